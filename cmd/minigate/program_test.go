package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/apidoc/apidoctest"
	"github.com/minigate/minigate/internal/wxsim"
)

// The tests of this file's package start the real program, as built for
// users, in processes of its own.

const (
	testAppID  = "wx0123456789abcdef"
	testSecret = "0123456789abcdef0123456789abcdef"
	testAPIKey = "an-admin-key-for-tests"
)

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "minigate-e2e-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "minigate")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func binary(t testing.TB) string {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := buildOnce(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// program is one running minigate.
type program struct {
	Public, Ops string // base URLs

	cmd    *exec.Cmd
	exited chan struct{}
	mu     sync.Mutex
	output bytes.Buffer // everything the process wrote; guarded by mu
}

// startServe runs `minigate serve` with the YAML config.
func startServe(t testing.TB, config string) *program {
	t.Helper()
	return start(t, "serve", "--config", writeConfig(t, config))
}

// start runs minigate and returns once it says that it is listening.
func start(t testing.TB, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(binary(t), args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "MINIGATE_LOG_FORMAT=json")
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = &lockedWriter{p}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	go p.readLog(pipe, listening)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("minigate %v wrote:\n%s", args, p.Output())
		}
	})
	select {
	case <-listening:
	case <-p.exited:
		t.Fatalf("minigate %v ended at once:\n%s", args, p.Output())
	case <-time.After(30 * time.Second):
		t.Fatalf("minigate %v never listened:\n%s", args, p.Output())
	}
	return p
}

type lockedWriter struct{ p *program }

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.p.output.Write(b)
}

func (p *program) readLog(r io.Reader, listening chan<- struct{}) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		_, _ = (&lockedWriter{p}).Write(append(sc.Bytes(), '\n'))
		var line struct{ Msg, Public, Ops string }
		if json.Unmarshal(sc.Bytes(), &line) == nil && line.Msg == "listening" && p.Public == "" {
			p.Public, p.Ops = line.Public, line.Ops
			described.Store(p.Ops, true)
			close(listening)
		}
	}
	_ = p.cmd.Wait()
	close(p.exited)
}

// Output is everything the process has written so far.
func (p *program) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// stop asks for a graceful end and returns how it went.
func (p *program) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		t.Fatalf("minigate did not stop:\n%s", p.Output())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit code %d after SIGTERM:\n%s", code, p.Output())
	}
}

// peakRSS is the most memory the process ever held, in bytes.
func (p *program) peakRSS(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	t.Fatal("no VmHWM in /proc")
	return 0
}

// simulator starts a simulated WeChat on loopback.
func simulator(t testing.TB) (*wxsim.Server, string) {
	t.Helper()
	sim := wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: testAppID, Secret: testSecret}}})
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	return sim, srv.URL
}

// baseConfig is what every serve config of these tests starts with.
func baseConfig(t testing.TB, wechatURL string) string {
	return fmt.Sprintf(`
listen: 127.0.0.1:0
ops:
  listen: 127.0.0.1:0
data: %s
wechat:
  base_url: %s
  apps:
    - appid: %s
      secret: %s
api:
  keys:
    - name: tests
      key: %s
      scope: admin
client:
  shutdown_spread: 200ms
  overload_delay: 0s # whatever else runs on the machine
`, t.TempDir(), wechatURL, testAppID, testSecret, testAPIKey)
}

var client = &http.Client{Timeout: 60 * time.Second}

// call makes a request and decodes a JSON answer into out (which may be nil).
func call(t testing.TB, method, url string, header map[string]string, body, out any) int {
	t.Helper()
	status, raw := callRaw(t, method, url, header, body)
	if out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			t.Fatalf("%s %s: status %d, body is not JSON: %q", method, url, status, raw)
		}
	}
	return status
}

func callRaw(t testing.TB, method, url string, header map[string]string, body any) (int, []byte) {
	t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case io.Reader:
		r = b
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(enc)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	checkDescribed(t, req, body, res, raw)
	return res.StatusCode, raw
}

// described are the base URLs of ops listeners, whose API must be as its
// description says.
var described sync.Map

func checkDescribed(t testing.TB, req *http.Request, body any, res *http.Response, raw []byte) {
	t.Helper()
	if _, ops := described.Load("http://" + req.URL.Host); !ops || !strings.HasPrefix(req.URL.Path, "/api") {
		return
	}
	var request []byte
	if text, ok := body.(string); ok {
		request = []byte(text)
	} else if body != nil {
		request, _ = json.Marshal(body) // it was encoded before
	}
	e := apidoctest.Exchange{Method: req.Method, Path: req.URL.Path, Request: request, Status: res.StatusCode, Header: res.Header, Answer: raw}
	if err := apidoctest.Check(e); err != nil {
		t.Error(err)
	}
}

type loginAnswer struct {
	Token     string
	ExpiresIn int `json:"expires_in"`
	User      struct{ OpenID, UnionID, AppID string }
}

func login(t testing.TB, base, code string) loginAnswer {
	t.Helper()
	var a loginAnswer
	if status := call(t, "POST", base+"/auth/login", nil, map[string]string{"code": code}, &a); status != 200 || a.Token == "" {
		t.Fatalf("login: status %d, %+v", status, a)
	}
	return a
}

func bearer(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token}
}

// eventually polls a condition on another process until it holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// backend is a business backend that answers with the identity it was given.
func backend(t testing.TB) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{
			"openid": r.Header.Get("X-WX-OPENID"), "unionid": r.Header.Get("X-WX-UNIONID"),
			"appid": r.Header.Get("X-WX-APPID"), "path": r.URL.Path,
		})
	}))
	t.Cleanup(srv.Close)
	return srv
}

// runNode runs a script of web/e2e and fails with what it printed.
func runNode(t *testing.T, script string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", script)
	cmd.Dir = "../../web/e2e"
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatalf("node %s: %v\n%s", script, err, out)
	}
	return string(out)
}
