package gateway

import (
	"context"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/gateway/epoll"
)

// By default the hubs of these tests are reached in memory, which works in
// bubbles of synctest too; the library reads from such connections, on
// goroutines. With this flag they come by TCP and are held by epoll, except in
// bubbles.
var byTCP = flag.Bool("tcp", false, "reach the hubs of the tests by TCP instead of in memory")

type testListener interface {
	net.Listener
	dial(context.Context) (net.Conn, error)
	clientIP() string
}

func listen(t testing.TB) testListener {
	if !*byTCP || inBubble() {
		return newMemoryListener()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return tcpListener{l}
}

// inBubble tells whether this is a goroutine of a bubble, where time begins
// with the year 2000 (testing/synctest).
func inBubble() bool { return time.Now().Year() < 2020 }

type tcpListener struct{ net.Listener }

func (l tcpListener) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", l.Addr().String())
}

func (tcpListener) clientIP() string { return "127.0.0.1" }

// memoryListener accepts connections that never leave the process.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) clientIP() string { return "pipe" } // as net.Pipe says

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// TestHeldByEpoll runs the tests of this package again that dial and are not in
// bubbles, whose connections the library reads otherwise.
func TestHeldByEpoll(t *testing.T) {
	if *byTCP || !epoll.Supported {
		t.Skip("there is no epoll, or this is its run")
	}
	again, bubbles := testsThatDial(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.count=1", "-tcp", "-test.run=^("+strings.Join(again, "|")+")$")
	out, err := cmd.CombinedOutput()
	if passed := strings.Count("\n"+string(out), "\n--- PASS: Test"); err != nil || passed != len(again) || passed == 0 {
		t.Fatalf("%d of %d tests pass: %v\n%s", passed, len(again), err, withoutPassed(string(out)))
	}
	t.Logf("%d tests pass under epoll, too:\n%s", len(again), strings.Join(again, " "))
	t.Logf("%d tests in bubbles have connections in memory alone:\n%s", len(bubbles), strings.Join(bubbles, " "))
}

// withoutPassed takes out of what tests print what those print that pass, whose
// thousands of lines hide the others.
func withoutPassed(out string) string {
	var kept strings.Builder
	name, block := "", ""
	keep := func() {
		if !strings.Contains(block, "\n--- PASS: "+name+" (") {
			kept.WriteString(block)
		}
	}
	for line := range strings.Lines(out) {
		if run, ok := strings.CutPrefix(strings.TrimSpace(line), "=== RUN   "); ok && !strings.Contains(run, "/") {
			keep()
			name, block = run, ""
		}
		block += line
	}
	keep()
	return kept.String()
}

func TestWithoutPassed(t *testing.T) {
	passes := "=== RUN   TestA\n=== RUN   TestA/part\nnoise\n--- PASS: TestA (0.01s)\n    --- PASS: TestA/part (0.01s)\n"
	fails := "=== RUN   TestAB\n=== RUN   TestAB/part\n    a_test.go:1: no\n--- FAIL: TestAB (0.01s)\n    --- FAIL: TestAB/part (0.01s)\n"
	hangs := "=== RUN   TestB\npanic: test timed out\n"
	if got := withoutPassed(passes + fails + passes + hangs); got != fails+hangs {
		t.Errorf("kept:\n%s", got)
	}
}

// testsThatDial finds tests by what they mention: a bubble, themselves, and
// clients, themselves or in what they call.
func testsThatDial(t *testing.T) (outside, bubbles []string) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	mentions := map[string]map[string]bool{} // names, by function or method
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				mentions[f.Name.Name] = namesIn(f)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mentions)) {
		all := map[string]bool{}
		reach(mentions, name, all)
		switch {
		case !strings.HasPrefix(name, "Test") || name == "TestMain" || name == t.Name() || !all["startHub"] || !all["dial"]:
		case mentions[name]["synctest"]:
			bubbles = append(bubbles, name)
		default:
			outside = append(outside, name)
		}
	}
	return outside, bubbles
}

func namesIn(f *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			names[id.Name] = true
		}
		return true
	})
	return names
}

// reach adds to all what name mentions, and what those do.
func reach(mentions map[string]map[string]bool, name string, all map[string]bool) {
	for m := range mentions[name] {
		if !all[m] {
			all[m] = true
			reach(mentions, m, all)
		}
	}
}

// A connection that comes before Run has begun waits for the poller, or for the
// end: it is not left to goroutines.
func TestConnectionsWaitForThePoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, release := range map[string]func(*Hub){
			"Run begins":     func(h *Hub) { h.lean.open(t.Context(), nil) },
			"the node stops": func(h *Hub) { h.cut() },
		} {
			h := New(Options{Settings: testSettings(), Metrics: NewMetrics(prometheus.NewRegistry())})
			asked := make(chan struct{})
			go func() { h.lean.of(h); close(asked) }()
			synctest.Wait()
			select {
			case <-asked:
				t.Errorf("%s: asked in vain before", name)
			default:
			}
			release(h)
			<-asked
		}
	})
}

// wantHolder fails if a hub's connections were held by what neither the flag nor
// the test asks for.
func (th *testHub) wantHolder() {
	if *byTCP && !inBubble() && th.settings.WebSocket.Epoll && testutil.ToFloat64(th.metrics.held.WithLabelValues(heldByGoroutine)) > 0 {
		th.t.Error("connections were held by goroutines")
	}
}
