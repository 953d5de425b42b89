package transfer

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

// checkPeer is a house whose files one real checker looks at.
type checkPeer struct {
	*house
	name    string
	content [2]string     // of a picture that passes, and one that does not
	label   string        // of the second
	deliver func()        // brings what comes by itself
	away    func(is bool) // ends and begins the peer
	large   int64         // size of a file that it does not take, 0 for none
}

// pngOf is something that begins as a picture does.
func pngOf(text string) string { return "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + text }

func clamdPeer(t *testing.T, ledger Ledger) *checkPeer {
	const most = 1 << 20
	s := testdeps.Clamd(t, most)
	h := newHouse(t, newTestFolder(t), ledger, func(o *Settings) { o.Inspect.Clamd.Address, o.Inspect.Clamd.MaxStream = s.Address, most })
	return &checkPeer{
		house: h, name: nameClamd, content: [2]string{pngOf("hello"), pngOf(testdeps.Eicar)}, label: testdeps.EicarName,
		large: most + 1, deliver: func() {},
		away: func(is bool) {
			if is {
				s.Stop()
			} else {
				s.Restart()
			}
		},
	}
}

func webhookPeer(t *testing.T, ledger Ledger) *checkPeer {
	var away atomic.Bool
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q checkQuestion
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Event != "check" || q.File.State != Checking {
			t.Errorf("asked %+v, %v", q, err)
		}
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		answer := `{"verdict":"pass"}`
		if body := fetch(t, q.URL); strings.Contains(body, "bad") {
			answer = `{"verdict":"block","label":"bad\nthing"}`
		} else if !strings.Contains(body, "hello") {
			t.Errorf("fetched %q", body)
		}
		_, _ = io.WriteString(w, answer) // to a client that waits
	}))
	t.Cleanup(backend.Close)
	h := openHouse(t, Options{
		Store: newTestFolder(t), Ledger: ledger, Webhooks: testWebhooks(t),
		CheckWebhook: CheckWebhookSettings{Endpoint: backend.URL, Timeout: 5 * time.Second},
	}, func(o *Settings) { o.PublicURL = "self" })
	return &checkPeer{
		house: h, name: nameWebhook, content: [2]string{pngOf("hello"), pngOf("bad")}, label: "badthing",
		deliver: func() {}, away: away.Store,
	}
}

// fetch gets a file as a checker does, without a login.
func fetch(t *testing.T, url string) string {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Error(err)
		return ""
	}
	req.Header.Set("User", "nobody")
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body) // what is cut short is another text
	return string(body)
}

// asNobody sends requests without a login, over connections of their own.
type asNobody struct{ http.Transport }

func (n *asNobody) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("User", "nobody")
	return n.Transport.RoundTrip(r)
}

// toSim carries calls to WeChat while it is there.
type toSim struct {
	sim  *wxsim.Server
	away atomic.Bool
}

func (s *toSim) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.away.Load() {
		return nil, io.ErrUnexpectedEOF
	}
	w := httptest.NewRecorder()
	s.sim.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

func wechatPeer(t *testing.T, ledger Ledger) *checkPeer {
	const token, key = "AAAAA", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	sim := wxsim.New(wxsim.Options{
		Apps:  []wxsim.App{{AppID: alice.AppID, Secret: "s", Push: wxsim.PushTarget{URL: server.URL + "/wechat/push/" + alice.AppID, Token: token, AESKey: key}}},
		Fetch: &http.Client{Transport: &asNobody{http.Transport{DisableKeepAlives: true}}},
	})
	network := &toSim{sim: sim}
	store, err := auth.NewFileStore(openBolt(t, filepath.Join(t.TempDir(), "auth.db")))
	if err != nil {
		t.Fatal(err)
	}
	o := auth.Options{Store: store, AllowSim: true, Transport: network, SealKeys: [][32]byte{{1}}}
	settings.Defaults(&o.Settings)
	o.Settings.WeChat.Apps = []auth.AppSettings{{AppID: alice.AppID, Secret: "s", Push: auth.PushSettings{Token: token, AESKey: key}}}
	login, err := auth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := login.Login(t.Context(), alice.AppID, "sim:alice"); err != nil { // whom WeChat has seen lately
		t.Fatal(err)
	}
	h := openHouse(t, Options{Store: newTestFolder(t), Ledger: ledger, WeChat: login.WeChat}, func(o *Settings) {
		o.PublicURL, o.Inspect.WeChat.Enabled, o.Inspect.WeChat.Unsuitable = "self", true, decideBlock
	})
	login.OnPush("wxa_media_check", h.TakeMediaVerdict)
	mux.Handle("POST /wechat/push/{appid}", rest.Handler(login.ServePush))
	return &checkPeer{
		house: h, name: nameWeChat, content: [2]string{pngOf("hello"), pngOf(wxsim.RiskyText)}, label: "20002", large: maxMedia + 1,
		deliver: func() {
			if _, err := sim.Deliver(t.Context()); err != nil {
				t.Error(err)
			}
		},
		away: network.away.Store,
	}
}

// uploadPicture is by a user whom WeChat knows.
func (p *checkPeer) uploadPicture(content string) uploaded {
	p.t.Helper()
	return p.decode(p.upload("", formOf(field{"f", "a.png", content}), "User", wxsim.OpenID(alice.AppID, "alice")))
}

// eachChecker runs test with every checker that ships, and on both ledgers.
func eachChecker(t *testing.T, test func(t *testing.T, p *checkPeer)) {
	for name, make := range map[string]func(*testing.T, Ledger) *checkPeer{"clamd": clamdPeer, "webhook": webhookPeer, "wechat": wechatPeer} {
		t.Run(name, func(t *testing.T) {
			eachLedger(t, func(t *testing.T, l Ledger) { test(t, make(t, l)) })
		})
	}
}

func TestChecker(t *testing.T) {
	eachChecker(t, func(t *testing.T, p *checkPeer) {
		good, bad := p.uploadPicture(p.content[0]), p.uploadPicture(p.content[1])
		p.check()
		p.deliver()
		p.wantState("harmless", good.ID, Ready)
		p.wantState("not harmless", bad.ID, Blocked)
		if r := p.record(bad.ID).Check.Reason; r != (Reason{p.name, p.label}) {
			t.Errorf("reason %+v", r)
		}
		if c := p.record(good.ID).Check; c.Waiting != "" || c.Asked != "" || !c.Due.IsZero() {
			t.Errorf("left over: %+v", c)
		}

		p.away(true)
		f := p.uploadPicture(p.content[0])
		p.check()
		p.wantState("nobody there", f.ID, Checking)
		if c := p.record(f.ID).Check; c.Waiting != p.name || !c.Due.After(now()) {
			t.Errorf("nobody there: %+v", c)
		}
		p.away(false)
		p.age(f.ID, mostPause)
		p.check()
		p.deliver()
		p.wantState("there again", f.ID, Ready)

		ended, end := context.WithCancel(t.Context())
		end()
		if found, err := p.checks.named(p.name).check(ended, p.record(f.ID)); err == nil {
			t.Errorf("at the end of all: %+v", found)
		}
		if p.large > 0 {
			large := p.record(f.ID)
			large.Size = p.large
			if found, err := p.checks.named(p.name).check(t.Context(), large); err != nil || found.outcome != unsuitable {
				t.Errorf("too large: %+v, %v", found, err)
			}
		}
	})
}

// WeChat does not judge all, is not always able to fetch, and may answer before
// it is known here what it was asked.
func TestWeChatChecker(t *testing.T) {
	p := wechatPeer(t, newTestFileLedger(t))
	text := p.decode(p.upload("", formOf(field{"f", "a.txt", "hello"}), "User", wxsim.OpenID(alice.AppID, "alice")))
	stranger := p.decode(p.upload("", formOf(field{"f", "a.png", p.content[0]}), "User", "stranger"))
	p.check()
	for f, label := range map[uploaded]string{text: labelUnsuitable, stranger: "user_inactive"} {
		if r := p.record(f.ID).Check.Reason; r != (Reason{nameWeChat, label}) {
			t.Errorf("%s: %+v", label, r)
		}
	}
	of, _ := p.checks.named(nameWeChat).(*wechatChecker)
	of.WeChat.Inactive = decidePass
	lucky := p.decode(p.upload("", formOf(field{"f", "a.png", p.content[0]}), "User", "stranger"))
	p.check()
	p.wantState("of somebody inactive, who may", lucky.ID, Ready)

	f := p.uploadPicture(p.content[0])
	own := p.settings.PublicURL
	p.settings.PublicURL = own + "/nothing-here"
	p.check()
	p.deliver()
	p.wantState("not fetched", f.ID, Checking)
	if c := p.record(f.ID).Check; c.Asked != "" || time.Until(c.Due) > mostPause {
		t.Errorf("not fetched: %+v", c)
	}
	p.settings.PublicURL = own
	p.age(f.ID, mostPause)
	p.check()
	p.deliver()
	p.wantState("fetched", f.ID, Ready)

	early := p.uploadPicture(p.content[1])
	c, _ := p.checks.named(nameWeChat).(*wechatChecker)
	c.ledger = &hasty{Ledger: c.ledger, before: p.deliver}
	p.check()
	p.wantState("answered at once", early.ID, Blocked)
	for word, want := range map[string]outcome{"pass 100": passed, "risky 1": objected, "review 1": objected, "failed": failed, "": failed} {
		if got := c.parse(word); got.outcome != want {
			t.Errorf("%q: %+v", word, got)
		}
	}
	if c.WeChat.Review = decidePass; c.parse("review 1").outcome != passed {
		t.Error("a review does not pass")
	}
}

// hasty is a ledger that is slower than WeChat.
type hasty struct {
	Ledger
	before func()
}

func (l *hasty) Alias(ctx context.Context, owner auth.User, alias, stale, id string, until time.Time) (string, error) {
	if before := l.before; id != "" && before != nil {
		l.before = nil
		before()
	}
	return l.Ledger.Alias(ctx, owner, alias, stale, id, until)
}

// An answer that is no verdict is none.
func TestWebhookCheckerAnswers(t *testing.T) {
	backend := newAsked(t, ``)
	h := openHouse(t, Options{
		Store: newTestFolder(t), Ledger: newTestFileLedger(t), Webhooks: backend.client,
		CheckWebhook: CheckWebhookSettings{Endpoint: backend.URL, Timeout: 5 * time.Second},
	})
	f := h.record(h.keep("a.txt", "hello").ID)
	for answer, want := range map[string]string{
		`{"verdict":"pass"}`: "pass ", `{"verdict":"block"}`: "block ", `{"verdict":"block","label":"x"}`: "block x",
		`{}`: "error", `{"verdict":"maybe"}`: "error", `[]`: "error", ``: "error",
	} {
		backend.set(answer)
		found, err := h.checks.named(nameWebhook).check(t.Context(), f)
		got := string(found.outcome) + " " + found.label
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s, %v; want %s", answer, got, err, want)
		}
	}
}

// A verdict is pushed to any node, and for what the backend has checked by
// itself, too.
func TestWeChatVerdictAnywhere(t *testing.T) {
	ledger := newTestRedisLedger(t)
	p := wechatPeer(t, ledger)
	other := newHouse(t, p.store, ledger)
	c, _ := p.checks.named(nameWeChat).(*wechatChecker)
	other.checks.checkers = []checker{&wechatChecker{c.CheckSettings, nil, ledger, nil}}
	traces := &tracing{Ledger: ledger}
	c.ledger = traces
	f := p.uploadPicture(p.content[0])
	p.check()
	push := func(trace string) *wechat.Push {
		return &wechat.Push{AppID: alice.AppID, TraceID: trace, Message: []byte(`{"result":{"suggest":"risky","label":"20002"}}`)}
	}
	for _, none := range []*wechat.Push{push("somebody-elses"), push(""), {AppID: "wx2", TraceID: traces.last, Message: push("").Message}} {
		if err := other.TakeMediaVerdict(t.Context(), none); err != nil {
			t.Error(err)
		}
	}
	p.wantState("none of these", f.ID, Checking)
	for range 2 {
		if err := other.TakeMediaVerdict(t.Context(), push(traces.last)); err != nil {
			t.Error(err)
		}
	}
	p.wantState("judged", f.ID, Blocked)
	other.wantEvents("judged, twice", "file_blocked-"+f.ID)
}

// tracing remembers the trace of WeChat's last order.
type tracing struct {
	Ledger
	last string
}

func (l *tracing) Alias(ctx context.Context, owner auth.User, alias, stale, id string, until time.Time) (string, error) {
	if trace, ok := strings.CutPrefix(alias, traceAlias); ok {
		l.last = trace
	}
	return l.Ledger.Alias(ctx, owner, alias, stale, id, until)
}
