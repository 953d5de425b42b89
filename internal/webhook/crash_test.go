package webhook

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

func redisAddr(t testing.TB) string { return testdeps.Redis(t) }

func damage(t *testing.T, db *bbolt.DB, id string) {
	t.Helper()
	must(t, db.Update(func(tx *bbolt.Tx) error { return open(tx).items.Put([]byte(id), []byte("{")) }))
}

// children are what this test binary does instead of testing when it is run
// with WEBHOOK_TEST_CHILD, until it is killed.
var children = map[string]func(arg string){
	"fill":    childFill,
	"deliver": childDeliver,
}

// startChild runs this binary as a child and returns what it prints, and a
// function that kills it with SIGKILL.
func startChild(t *testing.T, name, arg string) (stdout *bufio.Scanner, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WEBHOOK_TEST_CHILD="+name, "WEBHOOK_TEST_ARG="+arg)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
	}
	t.Cleanup(kill)
	return bufio.NewScanner(out), kill
}

func fatalChild(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// childFill takes one item, and puts others into a FileQueue, telling of each
// once Put has returned.
func childFill(path string) {
	db, err := bbolt.Open(path, 0o600, nil)
	fatalChild(err)
	q, err := NewFileQueue(db, sealed(contractSettings))
	fatalChild(err)
	for i := range contractSettings.MaxPending {
		id := fmt.Sprintf("a-%03d", i)
		fatalChild(q.Put(context.Background(), newItem(id)))
		if i == 0 {
			_, err := q.Take(context.Background(), longLease)
			fatalChild(err)
		}
		fmt.Println(id)
	}
	select {}
}

// What Put returned for is there after kill -9, and what was taken can be
// taken again at once.
func TestFileQueueSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	out, kill := startChild(t, "fill", path)
	var put []string
	for len(put) < 20 && out.Scan() {
		put = append(put, out.Text())
	}
	kill()
	if len(put) < 20 {
		t.Fatalf("the child put only %q", put)
	}
	q, _ := openFileQueue(t, path, sealed(contractSettings))
	size, err := q.Size(t.Context())
	must(t, err)
	if size.Pending < len(put) || size.Pending > contractSettings.MaxPending {
		t.Errorf("%d items are left of at least %d", size.Pending, len(put))
	}
	for _, id := range put {
		must(t, q.Done(t.Context(), wantTake(t, q, id)))
	}
}

// childDeliver runs a Dispatcher over a RedisQueue; arg is the address of
// Redis, a space and that of the backend.
func childDeliver(arg string) {
	redis, backend, _ := strings.Cut(arg, " ")
	d := newNode(redisclient.Open(redisclient.Settings{Addresses: []string{redis}}), backend)
	fatalChild(d.Run(context.Background()))
}

// newNode is a node of a cluster, with a short lease.
func newNode(client redisclient.Client, backend string) *Dispatcher {
	s := testSettings()
	e, err := NewClient(Options{Settings: s}).Endpoint("news", backend, time.Hour)
	fatalChild(err)
	d := NewDispatcher(NewRedisQueue(client, "test", sealed(s.Queue)), s.Queue, nil, e)
	d.lease = 500 * time.Millisecond
	return d
}

// What a killed node was about to deliver is delivered by another, in order.
func TestRedisQueueSurvivesKillOfANode(t *testing.T) {
	redis := testdeps.Redis(t)
	reached, arrived := make(chan string, 1), make(chan string, 10)
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice who leaves
		reached <- r.Header.Get(HeaderDelivery)
		<-r.Context().Done()
	}))
	defer hang.Close()
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.Header.Get(HeaderDelivery) }))
	defer backend.Close()

	node := newNode(newRedisClient(t, redis), backend.URL)
	defer node.endpoints["news"].client.Close()
	_, kill := startChild(t, "deliver", redis+" "+hang.URL)
	for _, id := range []string{"1", "2", "3"} {
		must(t, node.Enqueue(t.Context(), id, "news", "test", "key", id))
	}
	if id := <-reached; id != "1" {
		t.Errorf("the first node delivers %s", id)
	}
	kill()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- node.Run(ctx) }()
	for _, want := range []string{"1", "2", "3"} {
		if got := <-arrived; got != want {
			t.Errorf("%s arrived, want %s", got, want)
		}
	}
	cancel()
	must(t, <-done)
	wantSize(t, node.Queue(), 0, 0)
}

// With appendonly, Redis may be killed, too.
func TestRedisQueueSurvivesKillOfRedis(t *testing.T) {
	server := testdeps.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	q := NewRedisQueue(newRedisClient(t, server.Addr), "test", sealed(contractSettings))
	mustEnqueue(t, q, "a-1", "a-2", "b-1")
	c := awaitTake(t, q, longLease)
	server.Kill()
	wantCode(t, q.Done(t.Context(), c), "webhook_queue_unavailable")
	server.Restart()
	must(t, q.Done(t.Context(), c)) // its lease outlived the restart
	wantSize(t, q, 2, 0)
}

// All keys of a queue lie in one slot of a cluster.
func TestRedisQueueInACluster(t *testing.T) {
	addrs, _ := testdeps.RedisCluster(t)
	client := redisclient.Open(redisclient.Settings{Addresses: addrs})
	defer func() { _ = client.Close() }()
	for i, test := range []func(*testing.T, Queue){contractRoundTrip, contractOrder, contractLease, contractDead} {
		test(t, NewRedisQueue(client, fmt.Sprint("test", i), sealed(contractSettings)))
	}
}
