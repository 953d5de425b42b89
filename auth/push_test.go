package auth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

const (
	pushToken = "AAAAA"
	pushKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	otherKey  = "ABCDEFGabcdefghijklmnopqrstuvwxyz0123456789"
)

// pushEnv is a Service that takes pushes for appA, and a WeChat that makes them.
type pushEnv struct {
	*env
	wx *wxsim.Server

	mu    sync.Mutex
	heard []*wechat.Push // by forward
	fail  error          // what forward answers
}

func newPushEnv(t testing.TB, store Store, change ...func(*PushSettings)) *pushEnv {
	p := &pushEnv{wx: newPusher(appA, pushToken, pushKey, false)}
	p.env = newEnv(t, store, func(o *Options) {
		push := &o.Settings.WeChat.Apps[0].Push
		push.Token, push.AESKey = pushToken, pushKey
		for _, f := range change {
			f(push)
		}
		o.ForwardPush = p.forward
	})
	return p
}

func newPusher(appID, token, key string, xml bool) *wxsim.Server {
	return wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: appID, Push: wxsim.PushTarget{Token: token, AESKey: key, XML: xml}}}})
}

func (p *pushEnv) forward(_ context.Context, m *wechat.Push) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, m)
	return p.fail
}

// post sends a request to the push URL of a mini-program.
func (p *pushEnv) post(appID string, q url.Values, body []byte) *httptest.ResponseRecorder {
	return p.request(http.MethodPost, appID, q, string(body))
}

func (p *pushEnv) request(method, appID string, q url.Values, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/wechat/push/"+appID+"?"+q.Encode(), strings.NewReader(body))
	r.SetPathValue("appid", appID)
	w := httptest.NewRecorder()
	rest.Handler(p.ServePush).ServeHTTP(w, r)
	return w
}

// push has a WeChat send a message to appA.
func (p *pushEnv) push(wx *wxsim.Server, message string) (w *httptest.ResponseRecorder, q url.Values, body []byte) {
	p.t.Helper()
	q, body, err := wx.SealPush(appA, []byte(message))
	if err != nil {
		p.t.Fatal(err)
	}
	return p.post(appA, q, body), q, body
}

func (p *pushEnv) wantSuccess(w *httptest.ResponseRecorder, heard int) {
	p.t.Helper()
	if w.Code != http.StatusOK || w.Body.String() != "success" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		p.t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if len(p.heard) != heard {
		p.t.Errorf("%d messages were passed on, want %d", len(p.heard), heard)
	}
}

func (p *pushEnv) wantRefused(name string, w *httptest.ResponseRecorder) {
	p.t.Helper()
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"push_invalid"`) {
		p.t.Errorf("%s: answered %d %s", name, w.Code, w.Body)
	}
	if len(p.heard) != 0 {
		p.t.Fatalf("%s: passed on %+v", name, p.heard[0])
	}
}

const (
	pushEvent = `{"ToUserName":"gh","FromUserName":"o1","CreateTime":1714037059,"MsgType":"event","Event":"subscribe_msg_sent_event"}`
	pushXML   = `<xml><ToUserName>gh</ToUserName><FromUserName>o1</FromUserName><CreateTime>1714037059</CreateTime><MsgType>event</MsgType><Event>subscribe_msg_sent_event</Event></xml>`
)

func TestPush(t *testing.T) {
	for name, tc := range map[string]struct {
		message string
		xml     bool // the envelope
	}{"JSON": {pushEvent, false}, "XML": {pushXML, true}, "XML in JSON": {pushXML, false}} {
		t.Run(name, func(t *testing.T) {
			p := newPushEnv(t, first(newFileStore(t)))
			var inside []string
			p.OnPush(wechat.EventSubscribeSent, func(_ context.Context, m *wechat.Push) error {
				inside = append(inside, m.From)
				return nil
			})
			p.OnPush(wechat.EventMediaCheck, func(context.Context, *wechat.Push) error { return errors.New("not for us") })
			w, q, body := p.push(newPusher(appA, pushToken, pushKey, tc.xml), tc.message)
			p.wantSuccess(w, 1)
			m := p.heard[0]
			if m.AppID != appA || m.From != "o1" || m.Event != "subscribe_msg_sent_event" || m.Created.Unix() != 1714037059 || len(inside) != 1 {
				t.Errorf("heard %+v, inside %v", m, inside)
			}
			p.wantSuccess(p.post(appA, q, body), 1) // sent again, byte for byte
			w, _, _ = p.push(p.wx, tc.message)
			p.wantSuccess(w, 1) // sent again as WeChat does it, signed anew
		})
	}
}

// The same message is one by its id, its trace id, or user, time, event and
// what it says.
func TestPushIdentity(t *testing.T) {
	p := newPushEnv(t, first(newFileStore(t)))
	for i, message := range []string{
		`{"MsgType":"text","FromUserName":"o1","CreateTime":1,"MsgId":1,"Content":"a"}`,
		`{"MsgType":"text","FromUserName":"o1","CreateTime":1,"MsgId":2,"Content":"a"}`,
		`{"MsgType":"event","FromUserName":"o1","CreateTime":1,"Event":"wxa_media_check","trace_id":"a"}`,
		`{"MsgType":"event","FromUserName":"o1","CreateTime":1,"Event":"wxa_media_check","trace_id":"b"}`,
		`{"MsgType":"event","FromUserName":"o1","CreateTime":1,"Event":"x"}`,
		`{"MsgType":"event","FromUserName":"o1","CreateTime":2,"Event":"x"}`,
		`{"MsgType":"event","FromUserName":"o2","CreateTime":1,"Event":"x"}`,
		`{"MsgType":"event","FromUserName":"o1","CreateTime":1,"Event":"y"}`,
		`{"MsgType":"event","FromUserName":"o1","CreateTime":1,"Event":"y","List":[{"TemplateId":"a"}]}`,
		`{"MsgType":"event","FromUserName":"o1","CreateTime":1,"Event":"y","List":[{"TemplateId":"b"}]}`,
	} {
		for range 2 {
			w, _, _ := p.push(p.wx, message)
			p.wantSuccess(w, i+1)
		}
	}
}

func TestPushRefused(t *testing.T) {
	p := newPushEnv(t, first(newFileStore(t)))
	other := newPusher(appB, pushToken, pushKey, false)
	change := func(name, value string) func(url.Values, []byte) []byte {
		return func(q url.Values, body []byte) []byte {
			q.Set(name, value)
			return body
		}
	}
	shift := func(d time.Duration) func(url.Values, []byte) []byte {
		return change("timestamp", strconv.FormatInt(time.Now().Add(d).Unix(), 10))
	}
	for name, f := range map[string]func(url.Values, []byte) []byte{
		"another timestamp": shift(time.Second),
		"another nonce":     change("nonce", "1"),
		"no nonce":          change("nonce", ""),
		"long nonce":        change("nonce", strings.Repeat("1", 65)),
		"no timestamp":      change("timestamp", ""),
		"odd timestamp":     change("timestamp", "9223372036854775807"),
		"no msg_signature":  change("msg_signature", ""),
		"the signature of the query": func(q url.Values, body []byte) []byte {
			q.Set("msg_signature", q.Get("signature"))
			return body
		},
		"another body": func(_ url.Values, body []byte) []byte { return append([]byte(`{"Encrypt":"AAAA",`), body[1:]...)[:20] },
		"changed text": func(_ url.Values, body []byte) []byte {
			return []byte(strings.Replace(string(body), `Encrypt":"`, `Encrypt":"A`, 1))
		},
		"plain text":      func(url.Values, []byte) []byte { return []byte(pushEvent) },
		"no body":         func(url.Values, []byte) []byte { return nil },
		"not a document":  func(url.Values, []byte) []byte { return []byte("hello") },
		"broken envelope": func(_ url.Values, body []byte) []byte { return body[:len(body)-1] },
	} {
		q, body, err := p.wx.SealPush(appA, []byte(pushEvent))
		if err != nil {
			t.Fatal(err)
		}
		body = f(q, body)
		p.wantRefused(name, p.post(appA, q, body))
	}
	q, body, err := other.SealPush(appB, []byte(pushEvent))
	if err != nil {
		t.Fatal(err)
	}
	p.wantRefused("for another mini-program", p.post(appA, q, body))
	if w := p.post(appB, q, body); w.Code != http.StatusNotFound {
		t.Errorf("where the push is off: %d %s", w.Code, w.Body)
	}
	for name, wx := range map[string]*wxsim.Server{
		"with another key": newPusher(appA, pushToken, otherKey, false), "with another token": newPusher(appA, "BBBBB", pushKey, false),
	} {
		w, _, _ := p.push(wx, pushEvent)
		p.wantRefused(name, w)
	}
	w, _, _ := p.push(p.wx, `{"no":"message"}`)
	p.wantRefused("an odd message", w)
	w = p.post(appA, q, []byte(`{"Encrypt":"`+strings.Repeat("A", maxPush)+`"}`))
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d", w.Code)
	}
	w, _, _ = p.push(p.wx, pushEvent)
	p.wantSuccess(w, 1) // nothing refused was remembered as seen
}

func TestPushWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for age, good := range map[time.Duration]bool{
			time.Second - pushWindow: true, -time.Second - pushWindow: false, pushWindow - time.Second: true, pushWindow + time.Second: false,
		} {
			p := newPushEnv(t, first(newFileStore(t)))
			clock := wxsim.New(wxsim.Options{
				Apps: []wxsim.App{{AppID: appA, Push: wxsim.PushTarget{Token: pushToken, AESKey: pushKey}}},
				Now:  func() time.Time { return time.Now().Add(-age) },
			})
			w, q, body := p.push(clock, pushEvent)
			if !good {
				p.wantRefused(age.String(), w)
				continue
			}
			p.wantSuccess(w, 1)
			for range 12 { // as long as its time is right it is remembered
				time.Sleep(time.Minute)
				if w := p.post(appA, q, body); w.Code == http.StatusOK {
					p.wantSuccess(w, 1)
				}
			}
		}
	})
}

// Old keys work while new ones are introduced.
func TestPushRotation(t *testing.T) {
	p := newPushEnv(t, first(newFileStore(t)), func(s *PushSettings) {
		s.PreviousTokens, s.PreviousKeys = append(s.PreviousTokens, "OLD"), append(s.PreviousKeys, otherKey)
	})
	w, _, _ := p.push(newPusher(appA, "OLD", otherKey, true), pushEvent)
	p.wantSuccess(w, 1)
	w, _, _ = p.push(p.wx, strings.Replace(pushEvent, "o1", "o2", 1))
	p.wantSuccess(w, 2)
}

// What could not be passed on WeChat may send again.
func TestPushFails(t *testing.T) {
	p := newPushEnv(t, first(newFileStore(t)))
	p.fail = errors.New("the backend is away")
	w, q, body := p.push(p.wx, pushEvent)
	if w.Code != http.StatusServiceUnavailable || len(p.heard) != 1 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	p.fail = nil
	p.wantSuccess(p.post(appA, q, body), 2)
	p.wantSuccess(p.post(appA, q, body), 2)
}

func TestPlainPush(t *testing.T) {
	p := newPushEnv(t, first(newFileStore(t)), func(s *PushSettings) { s.AllowPlain, s.AESKey = true, "" })
	q, _, err := p.wx.SealPush(appA, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Del("msg_signature")
	p.wantSuccess(p.post(appA, q, []byte(pushEvent)), 1)
	p.wantSuccess(p.post(appA, q, []byte(strings.Replace(pushEvent, "o1", "EVIL", 1))), 1) // the same signature with another message
	p.heard = nil
	q.Set("signature", strings.Repeat("0", 40))
	p.wantRefused("unsigned", p.post(appA, q, []byte(pushXML)))
}

// What is taken can be passed on: also where JSON needs six bytes for each of
// one, a webhook's body of 512 KiB holds it.
func TestPushSize(t *testing.T) {
	const webhookBody = 512 << 10
	p := newPushEnv(t, first(newFileStore(t)), func(s *PushSettings) { s.AllowPlain = true })
	long := strings.Repeat("<", maxPushField)
	for name, frame := range map[string][2]string{
		"JSON":   {`{"MsgType":"` + long + `","FromUserName":"` + long + `","MsgId":"` + long + `","Event":"` + long + `","trace_id":"` + long + `","Content":"`, `"}`},
		"XML":    {`<xml><MsgType>text</MsgType><FromUserName>o1</FromUserName><Content><![CDATA[`, `]]></Content></xml>`},
		"escape": {`<xml><MsgType>text</MsgType><FromUserName>o2</FromUserName><MsgId>2</MsgId><Content>&#x2028;`, `</Content></xml>`},
	} {
		for size, status := range map[int]int{maxPush: http.StatusOK, maxPush + 1: http.StatusRequestEntityTooLarge} {
			q, _, err := p.wx.SealPush(appA, nil)
			if err != nil {
				t.Fatal(err)
			}
			q.Del("msg_signature")
			body := frame[0] + strings.Repeat("<", size-len(frame[0])-len(frame[1])) + frame[1]
			if name == "escape" {
				body = frame[0] + strings.Repeat("\"", size-len(frame[0])-len(frame[1])) + frame[1]
			}
			p.heard = nil
			if w := p.post(appA, q, []byte(body)); w.Code != status || len(p.heard) != map[bool]int{true: 1}[status == http.StatusOK] {
				t.Fatalf("%s of %d bytes: %d %s, passed on %d times", name, size, w.Code, w.Body, len(p.heard))
			}
			if len(p.heard) == 0 {
				continue
			}
			passed := bodyOf(t, map[string]any{"event": "wechat_push", "delivery": strings.Repeat("x", 64), "push": p.heard[0]})
			if len(passed) > webhookBody {
				t.Errorf("%s: %d bytes are to be passed on, at most %d can be", name, len(passed), webhookBody)
			}
			if m := p.heard[0]; len(m.From) > 128 {
				t.Errorf("%s: the user has a name of %d bytes", name, len(m.From))
			}
		}
	}
	q, body, err := p.wx.SealPush(appA, []byte(`{"MsgType":"text","FromUserName":"`+strings.Repeat("o", maxPushField+1)+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	p.heard = nil
	p.wantRefused("a name too long", p.post(appA, q, body))
}

const maxPushField = 128 // as in package wechat

func TestPushEcho(t *testing.T) {
	p := newPushEnv(t, first(newFileStore(t)))
	q, _, err := p.wx.SealPush(appA, nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name, value string) *httptest.ResponseRecorder {
		v := url.Values{"signature": q["signature"], "timestamp": q["timestamp"], "nonce": q["nonce"], "echostr": {"4375120948345356249"}}
		if name != "" {
			v.Set(name, value)
		}
		return p.request(http.MethodGet, appA, v, "")
	}
	if w := ask("", ""); w.Code != http.StatusOK || w.Body.String() != "4375120948345356249" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for name, bad := range map[string][2]string{
		"signature": {"signature", strings.Repeat("0", 40)}, "nonce": {"nonce", "1"}, "time": {"timestamp", "1714036504"},
		"markup": {"echostr", "<script>"}, "nothing": {"echostr", ""}, "too long": {"echostr", strings.Repeat("1", 257)},
	} {
		p.wantRefused(name, ask(bad[0], bad[1]))
	}
}

// Two nodes pass a message on once, and none while they cannot know.
func TestPushAcrossNodes(t *testing.T) {
	server := testdeps.StartRedis(t)
	nodes := []*pushEnv{newPushEnv(t, NewRedisStore(newRedisClient(t, server.Addr), "test")), newPushEnv(t, NewRedisStore(newRedisClient(t, server.Addr), "test"))}
	q, body, err := nodes[0].wx.SealPush(appA, []byte(pushEvent))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			// While one of them is being delivered, the others are to come again.
			if w := nodes[i%2].post(appA, q, body); w.Code != http.StatusOK && w.Code != http.StatusServiceUnavailable {
				t.Errorf("answered %d %s", w.Code, w.Body)
			}
		})
	}
	group.Wait()
	for _, n := range nodes {
		if w := n.post(appA, q, body); w.Code != http.StatusOK {
			t.Errorf("the repetition was answered %d %s", w.Code, w.Body)
		}
	}
	if n := len(nodes[0].heard) + len(nodes[1].heard); n != 1 {
		t.Errorf("passed on %d times", n)
	}
	server.Kill()
	if w, _, _ := nodes[0].push(nodes[0].wx, pushXML); w.Code != http.StatusServiceUnavailable {
		t.Errorf("without the store: %d %s", w.Code, w.Body)
	}
}

// A node that dies with a message in its hands does not take it along: WeChat
// sends it again, and it is passed on once the claim is over.
func TestPushOutlivesItsNode(t *testing.T) {
	p := newPushEnv(t, first(newFileStore(t)))
	push, err := wechat.ParsePush(appA, []byte(pushEvent))
	if err != nil {
		t.Fatal(err)
	}
	if _, first, err := p.store.Claim(t.Context(), pushName(appA, "is", identityOf(push)), 100*time.Millisecond); err != nil || !first {
		t.Fatal(first, err)
	}
	q, body, err := p.wx.SealPush(appA, []byte(pushEvent))
	if err != nil {
		t.Fatal(err)
	}
	if w := p.post(appA, q, body); w.Code != http.StatusServiceUnavailable || len(p.heard) != 0 {
		t.Errorf("while it is claimed: %d, passed on %d times", w.Code, len(p.heard))
	}
	for begin := time.Now(); p.post(appA, q, body).Code != http.StatusOK; {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("never passed on")
		}
	}
	if len(p.heard) != 1 {
		t.Errorf("passed on %d times", len(p.heard))
	}
}

func FuzzServePush(f *testing.F) {
	p := newPushEnv(f, first(newFileStore(f)))
	q, body, err := p.wx.SealPush(appA, []byte(pushEvent))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("x", q.Get("timestamp"), "1", "4375120948345356249", body)
	f.Add(q.Get("msg_signature"), q.Get("timestamp"), "1", "", []byte(pushXML))
	f.Fuzz(func(t *testing.T, signature, timestamp, nonce, echo string, body []byte) {
		v := url.Values{"signature": {signature}, "msg_signature": {signature}, "timestamp": {timestamp}, "nonce": {nonce}, "echostr": {echo}}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if w := p.request(method, appA, v, string(body)); w.Code == http.StatusOK {
				t.Errorf("%s was taken", method)
			}
		}
	})
}
