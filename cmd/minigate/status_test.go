package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/gateway/status"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/webhook"
)

// statusBackend is a backend that keeps the events of each user, by seq.
type statusBackend struct {
	t       *testing.T
	url     string
	away    atomic.Bool
	mu      sync.Mutex
	events  map[string][]status.Event // without repeats
	repeats int
	calls   int
}

var statusKey = webhook.Key{ID: "k1", Secret: settings.Secret("a-webhook-secret-for-tests")}

func newStatusBackend(t *testing.T) *statusBackend {
	b := &statusBackend{t: t, events: map[string][]status.Event{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := webhook.Verify(r.Header, body, []webhook.Key{statusKey}, time.Now()); err != nil {
			t.Errorf("signature: %v", err)
		}
		if b.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var news statusNews
		if err := json.Unmarshal(body, &news); err != nil || news.Event != "user_status" || news.Delivery == "" || len(news.Events) == 0 {
			t.Errorf("not a user_status: %v %s", err, body)
		}
		b.hear(news.Events)
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

func (b *statusBackend) hear(events []status.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	for _, e := range events {
		list := b.events[e.User]
		switch n := len(list); {
		case n > 0 && list[n-1] == e:
			b.repeats++
			continue
		case n > 0 && (e.Seq <= list[n-1].Seq || e.Status == list[n-1].Status) || n == 0 && e.Status != status.Online:
			b.t.Errorf("%+v came after %+v", e, list)
		}
		b.events[e.User] = append(list, e)
	}
}

// are counts users by their last status.
func (b *statusBackend) are(state string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, list := range b.events {
		if list[len(list)-1].Status == state {
			n++
		}
	}
	return n
}

// patiently is eventually for what takes its time on a busy machine.
func (b *statusBackend) patiently(what string, cond func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("never happened: %s; %d users are online and %d offline", what, b.are(status.Online), b.are(status.Offline))
		}
	}
}

// await waits until as many users are online and offline.
func (b *statusBackend) await(what string, online, offline int) {
	b.t.Helper()
	began := time.Now()
	b.patiently(what, func() bool { return b.are(status.Online) == online && b.are(status.Offline) == offline })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Logf("%s: told after %v, %d calls and %d repeats so far", what, time.Since(began).Round(time.Millisecond), b.calls, b.repeats)
}

// want compares what a user's events were.
func (b *statusBackend) want(user string, want ...string) []status.Event {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []string
	for _, e := range b.events[user] {
		got = append(got, e.Status)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s was told to be %v, want %v", user, got, want)
	}
	return b.events[user]
}

const statusSecret = "a secret of more than thirty-two bytes"

// statusConfig has more for the end, and what for the hook.
func statusConfig(base, url, hook string) string {
	base = strings.Replace(base, "client:\n", "client:\n  token: {hmac_secret_key: "+statusSecret+"}\n", 1)
	return base + fmt.Sprintf("webhooks:\n  keys: [{id: k1, secret: a-webhook-secret-for-tests}]\n  user_status: {endpoint: '%s', %s}\n", url, hook)
}

// phone is a connection of a user that answers pings.
type phone struct {
	conn *websocket.Conn
	done chan struct{}
}

func (p *phone) hangUp() { _ = p.conn.CloseNow(); <-p.done }

// dialPhone logs a user in with a token that the backend signed.
func dialPhone(base, user string) (*phone, error) {
	enc := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{"sub": user, "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		return nil, err
	}
	signed := enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc(claims)
	mac := hmac.New(sha256.New, []byte(statusSecret))
	mac.Write([]byte(signed))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+"/connection/websocket", nil)
	if err != nil {
		return nil, err
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"id":1,"connect":{"token":"`+signed+"."+enc(mac.Sum(nil))+`"}}`)); err != nil {
		return nil, err
	}
	if _, data, err := conn.Read(ctx); err != nil || !strings.Contains(string(data), `"client"`) {
		return nil, fmt.Errorf("connect was answered %s: %w", data, err)
	}
	p := &phone{conn, make(chan struct{})}
	go func() {
		defer close(p.done)
		for {
			if _, _, err := conn.Read(context.Background()); err != nil {
				_ = conn.CloseNow()
				return
			}
			_ = conn.Write(context.Background(), websocket.MessageText, []byte(`{}`)) // the next read says so
		}
	}()
	return p, nil
}

// dialPhones connects users PREFIX0 … to one node, some at a time.
func dialPhones(t *testing.T, p *program, prefix string, from, to int) []*phone {
	t.Helper()
	phones := make([]*phone, to-from)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range phones {
		g.Go(func() (err error) {
			phones[i], err = dialPhone(p.Public, prefix+strconv.Itoa(from+i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range phones {
			p.hangUp()
		}
	})
	return phones
}

// metric reads the sum of a metric's series.
func (p *program) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	_, raw := callRaw(t, "GET", p.Ops+"/metrics", map[string]string{"X-API-Key": testAPIKey}, nil)
	line := regexp.MustCompile(`^` + name + `(?:\{.*\})? (\S+)$`)
	for sc := bufio.NewScanner(strings.NewReader(string(raw))); sc.Scan(); {
		if m := line.FindStringSubmatch(sc.Text()); m != nil {
			v, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// TestStatusOfAKilledNode kills a node with 2,000 users: they are told to be
// offline by the other one, and nobody else is.
func TestStatusOfAKilledNode(t *testing.T) {
	t.Parallel()
	const dies, stays, both = 2000, 200, 50
	back := newStatusBackend(t)
	_, wechatURL := simulator(t)
	redis := testdeps.StartRedis(t)
	config := func() string {
		return statusConfig(hubCluster(t, wechatURL, "{addresses: ["+redis.Addr+"]}"), back.url, "grace: 3s")
	}
	a, b := startServe(t, config()), startServe(t, config())
	dialPhones(t, a, "a", 0, dies)
	others := dialPhones(t, b, "b", 0, stays)
	dialPhones(t, b, "a", 0, both) // who have a second phone
	back.await("coming", dies+stays, 0)

	killed := time.Now()
	a.kill()
	back.await("kill -9 of a node", stays+both, dies-both)
	leaves := time.Now()
	others[0].hangUp()
	back.await("one more", stays+both-1, dies-both+1) // whoever was wrongly due had been told by now
	for i := range dies {
		if i < both {
			back.want(fmt.Sprint("a", i), "online")
			continue
		}
		if e := back.want(fmt.Sprint("a", i), "online", "offline"); len(e) == 2 && (e[1].At > killed.UnixMilli() || e[1].At < killed.Add(-time.Minute).UnixMilli()) {
			t.Errorf("%+v, killed at %d", e[1], killed.UnixMilli())
		}
	}
	for i := 1; i < stays; i++ {
		back.want(fmt.Sprint("b", i), "online")
	}
	if e := back.want("b0", "online", "offline"); e[1].At < leaves.UnixMilli() {
		t.Errorf("%+v, but left at %d", e[1], leaves.UnixMilli())
	}
	if n := b.metric(t, "minigate_user_status_buried_nodes_total"); n != 1 {
		t.Errorf("%v nodes were buried", n)
	}
	if n := b.metric(t, "minigate_user_status_events_total"); n < dies-both+1 {
		t.Errorf("the other node told of %v events", n)
	}
}

// TestStatusOverARestart ends a node: whose phones turn to the next one in time
// are not told of.
func TestStatusOverARestart(t *testing.T) {
	t.Parallel()
	const n = 200
	back := newStatusBackend(t)
	_, wechatURL := simulator(t)
	redis := testdeps.StartRedis(t)
	config := func() string {
		return statusConfig(hubCluster(t, wechatURL, "{addresses: ["+redis.Addr+"]}"), back.url, "grace: 15s")
	}
	old := startServe(t, config())
	phones := dialPhones(t, old, "u", 0, n)
	back.await("coming", n, 0)
	next := startServe(t, config())
	old.stop(t)
	for _, p := range phones {
		<-p.done
	}
	dialPhones(t, next, "u", 1, n) // one stays away
	back.await("a restart", n-1, 1)
	for i := 1; i < n; i++ {
		back.want(fmt.Sprint("u", i), "online")
	}
	if n := next.metric(t, "minigate_user_status_buried_nodes_total"); n != 0 {
		t.Errorf("%v nodes were buried that had said goodbye", n)
	}
}

// TestStatusOfASingleNode kills a node that runs alone while its backend is
// away and its queue full. The next process tells everything.
func TestStatusOfASingleNode(t *testing.T) {
	t.Parallel()
	const early, late, back = 150, 100, 60
	news := newStatusBackend(t)
	_, wechatURL := simulator(t)
	config := strings.Replace(statusConfig(baseConfig(t, wechatURL), news.url, "grace: 3s, batch: 10"), "webhooks:\n", "webhooks:\n  queue: {max_pending: 3}\n", 1)
	p := startServe(t, config)
	news.away.Store(true)
	dialPhones(t, p, "early", 0, early)
	eventually(t, "the queue is full, and more is due", func() bool {
		return p.metric(t, "minigate_webhook_queue_items") == 3 && p.metric(t, "minigate_user_status_pending") > 0 && p.metric(t, "minigate_user_status_failing") == 1
	})
	dialPhones(t, p, "late", 0, late)
	p.kill()

	news.away.Store(false)
	p = startServe(t, config)
	dialPhones(t, p, "early", 0, back)
	dialPhones(t, p, "late", 0, back)
	known := func() (n int) { // of the late ones who stay away: whom the first process had entered
		news.mu.Lock()
		defer news.mu.Unlock()
		for i := back; i < late; i++ {
			if len(news.events[fmt.Sprint("late", i)]) > 0 {
				n++
			}
		}
		return n
	}
	news.patiently("all that was due is told", func() bool {
		return p.metric(t, "minigate_user_status_pending") == 0 && p.metric(t, "minigate_webhook_queue_items") == 0 &&
			news.are(status.Online) == 2*back && news.are(status.Offline) == early-back+known()
	})
	t.Logf("%d of %d who came in the last moment were known", known(), late-back)
	for i := range early {
		if i < back {
			news.want(fmt.Sprint("early", i), "online")
			news.want(fmt.Sprint("late", i), "online")
		} else {
			news.want(fmt.Sprint("early", i), "online", "offline")
		}
	}
}
