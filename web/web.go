// Package web serves the console: the page where operators watch connections,
// messages and transfers live, and where they look after users.
//
// The browser gets everything over one stream of server-sent events. What it
// shows is read from the same registry as /metrics, so the two cannot
// disagree.
package web

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/health"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/webhook"
)

// Options are what the console shows and who may see it.
type Options struct {
	Gatherer    prometheus.Gatherer
	Health      func() health.Snapshot
	Nodes       func(ctx context.Context) ([]engine.Node, error)
	Connections func(limit int) []gateway.ConnectionInfo
	// Kick closes one connection of a user for good, on whichever node it is.
	Kick  func(ctx context.Context, user, client string) error
	Users UserHandlers

	Webhooks WebhookHandlers
	// Hooks tells how the webhooks do on this node.
	Hooks func() []webhook.EndpointInfo
	// Alerts are what only an operator can mend, as this node met it.
	Alerts  func() []auth.Alert
	Keys    *apikey.Keys
	Open    bool // ask nobody to sign in: for dev on loopback
	Version string
}

// UserHandlers are what an operator of scope admin can do about users. Each
// takes a POST as the methods of [auth.Service] with these names describe it,
// and need not ask who sends it.
type UserHandlers struct {
	Info    rest.Handler // ServeUser
	Revoke  rest.Handler // ServeRevokeSessions
	Block   rest.Handler // ServeBlock
	Unblock rest.Handler // ServeUnblock
}

// WebhookHandlers are what an operator of scope admin can do about news that
// could not be delivered, as the methods of webhook.Dispatcher describe it.
type WebhookHandlers struct {
	List   rest.Handler // ServeDead
	Show   rest.Handler // ServeShow
	Replay rest.Handler // ServeReplay
	Drop   rest.Handler // ServeDrop
}

// Console is the http.Handler for everything below / of the ops listener that
// has no other owner.
type Console struct {
	o        Options
	handler  http.Handler
	visitors *visitors
	live     *live
}

// New builds the console; Run makes it live.
func New(o Options) *Console {
	c := &Console{o: o, visitors: newVisitors(), live: newLive()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", servePage)
	mux.Handle("GET /console/session", rest.Handler(c.serveSession))
	mux.Handle("POST /console/session", rest.Handler(c.serveSignIn))
	mux.Handle("DELETE /console/session", rest.Handler(c.serveSignOut))
	mux.Handle("GET /console/events", c.require(apikey.Read, http.HandlerFunc(c.serveEvents)))
	mux.Handle("POST /console/kick", c.change("kick", c.serveKick))
	// POST also to look: no openid in URLs, which are logged.
	mux.Handle("POST /console/user", c.require(apikey.Admin, o.Users.Info))
	mux.Handle("POST /console/user/revoke", c.change("user/revoke", o.Users.Revoke))
	mux.Handle("POST /console/user/block", c.change("user/block", o.Users.Block))
	mux.Handle("POST /console/user/unblock", c.change("user/unblock", o.Users.Unblock))
	mux.Handle("POST /console/webhooks", c.require(apikey.Admin, o.Webhooks.List))
	mux.Handle("POST /console/webhooks/show", c.change("webhooks/show", o.Webhooks.Show)) // it may show what is about a user
	mux.Handle("POST /console/webhooks/replay", c.change("webhooks/replay", o.Webhooks.Replay))
	mux.Handle("POST /console/webhooks/drop", c.change("webhooks/drop", o.Webhooks.Drop))
	// In dev nobody signs in, so no cookie keeps other sites out.
	c.handler = http.NewCrossOriginProtection().Handler(mux)
	return c
}

func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// Run samples the registry until ctx ends, every second while somebody looks,
// and then ends every open stream.
func (c *Console) Run(ctx context.Context) error {
	defer c.live.close()
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if !c.live.due(now) {
				continue
			}
			s, err := takeSample(c.o.Gatherer, now)
			if err != nil {
				continue // a collector that fails is seen at /metrics; the next sample may be whole
			}
			c.live.add(s)
		}
	}
}

type kickRequest struct {
	User   string `json:"user"`
	Client string `json:"client"`
}

func (c *Console) serveKick(w http.ResponseWriter, r *http.Request) error {
	var req kickRequest
	if err := rest.Decode(w, r, 4<<10, &req); err != nil {
		return err
	}
	if err := c.o.Kick(r.Context(), req.User, req.Client); err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, struct{}{})
}

// live keeps the newest samples and wakes the streams when there is one more.
type live struct {
	mu      sync.Mutex
	samples []sample      // oldest first, those of keptFor
	sampled time.Time     // when the last one was due
	next    chan struct{} // closed when a sample is added
	streams int           // that are open
	closed  bool
}

func newLive() *live { return &live{next: make(chan struct{})} }

func (l *live) add(s sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(slices.DeleteFunc(l.samples, func(o sample) bool {
		return o.Time <= s.Time-keptFor.Milliseconds() || o.Time >= s.Time // the clock was set back
	}), s)
	close(l.next)
	l.next = make(chan struct{})
}

// due tells whether it is time for another sample, which the caller takes then.
func (l *live) due(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Ticks come a little early, or late.
	due := l.streams > 0 || l.sampled.IsZero() || now.Sub(l.sampled) > idleInterval-sampleInterval/2
	if due {
		l.sampled = now
	}
	return due
}

// watch has samples taken every second, until the caller calls what it returns.
func (l *live) watch() (leave func()) {
	count := func(n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.streams += n
	}
	count(1)
	return func() { count(-1) }
}

func (l *live) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	close(l.next)
	l.next = make(chan struct{})
}

// since returns the samples after t, and a channel that closes when there are
// more; ok is false once the console has ended.
func (l *live) since(t int64) (news []sample, next <-chan struct{}, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.samples {
		if s.Time > t {
			news = append(news, l.samples[i:]...)
			break
		}
	}
	return news, l.next, !l.closed
}
