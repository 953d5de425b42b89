package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

const hookSecret = "secret-of-the-login-webhook"

// withLoginWebhook has logins ask the backend at url, over transport if that
// is not nil.
func withLoginWebhook(t *testing.T, url string, transport http.RoundTripper, change ...func(*LoginWebhookSettings)) func(*Options) {
	return func(o *Options) {
		var s webhook.Settings
		settings.Defaults(&s)
		s.Keys = []webhook.Key{{ID: "k1", Secret: hookSecret}, {ID: "k0", Secret: "an-older-secret-of-it"}}
		client := webhook.NewClient(webhook.Options{Settings: s, Transport: transport})
		t.Cleanup(client.Close)
		o.Webhooks = client
		o.Settings.Session.LoginWebhook.Endpoint = url
		for _, f := range change {
			f(&o.Settings.Session.LoginWebhook)
		}
	}
}

func required(s *LoginWebhookSettings) { s.Required = true }

// says is a backend that always gives the same answer.
func says(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// signedWell checks a signature as a backend written by somebody else would.
func signedWell(r *http.Request, body []byte) error {
	stamp := r.Header.Get("X-Minigate-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return fmt.Errorf("timestamp %q", stamp)
	}
	if id := r.Header.Get("X-Minigate-Key-Id"); id != "k1" {
		return fmt.Errorf("key %q", id)
	}
	mac := hmac.New(sha256.New, []byte(hookSecret))
	_, _ = fmt.Fprintf(mac, "%s.%s", stamp, body)
	if want := fmt.Sprintf("v1=%x", mac.Sum(nil)); r.Header.Get("X-Minigate-Signature") != want {
		return fmt.Errorf("signature %q, want %q", r.Header.Get("X-Minigate-Signature"), want)
	}
	return nil
}

// The backend learns who logs in, over a real connection, and what it says
// stays with the session.
func TestLoginWebhook(t *testing.T) {
	var question map[string]any
	var problem error
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		problem = signedWell(r, body)
		if json.Unmarshal(body, &question) != nil || r.URL.Path != "/hooks/login" || r.Header.Get("X-Minigate-Event") != "login" || question["delivery"] != r.Header.Get("X-Minigate-Delivery") {
			problem = fmt.Errorf("asked %s %v %s", r.URL, r.Header, body)
		}
		_, _ = io.WriteString(w, ` { "allow": true, "claims": { "name": "安<\u003e\n😀", "n": 1.50 }, "channels": ["room:x", "room:y", "room:x"], "later": 1 } `)
	}))
	defer backend.Close()
	file, _ := newFileStore(t)
	for name, store := range map[string]Store{"file": file, "redis": newRedisStore(t)} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, store, withLoginWebhook(t, backend.URL+"/hooks/login", nil))
			ctx := rest.WithInfo(t.Context(), &rest.Info{ClientIP: "203.0.113.7"})
			token, ses, err := e.LoginWith(ctx, LoginRequest{Code: "sim:ann", Device: "phone"})
			if err != nil || problem != nil {
				t.Fatal(err, problem)
			}
			user := map[string]any{"appid": ses.User.AppID, "openid": ses.User.OpenID}
			if ses.User.UnionID != "" {
				user["unionid"] = ses.User.UnionID
			}
			at, _ := question["time"].(float64)
			if !reflect.DeepEqual(question["user"], user) || question["event"] != "login" || question["device"] != "phone" || question["ip"] != "203.0.113.7" ||
				time.Since(time.Unix(int64(at), 0)).Abs() > time.Minute {
				t.Errorf("the backend was asked %v", question)
			}
			stored, err := e.store.Get(t.Context(), ses.Fingerprint)
			if err != nil {
				t.Fatal(err)
			}
			for where, s := range map[string]*Session{"login": ses, "verify": e.wantVerify(token, ""), "store": stored} {
				if got, want := string(s.Claims), `{"name":"\u5b89\u003c\u003e\n\ud83d\ude00","n":1.50}`; got != want {
					t.Errorf("%s: claims are %s, want %s", where, got, want)
				}
				if !slices.Equal(s.Channels, []string{"room:x", "room:y"}) {
					t.Errorf("%s: channels are %q", where, s.Channels)
				}
			}
		})
	}
}

func claimsOf(n int) string {
	return `{"claims":{"x":"` + strings.Repeat("x", n-len(`{"x":""}`)) + `"}}`
}

// channelBytes names channels of n bytes together, each once more.
func channelBytes(n int) string {
	var names []string
	for i := 0; n > 0; i++ {
		name := fmt.Sprintf("%02d", i) + strings.Repeat("x", 198)
		names = append(names, name[:min(n, len(name))], name[:min(n, len(name))])
		n -= len(name)
	}
	list, _ := json.Marshal(names)
	return fmt.Sprintf(`{"channels":%s}`, list)
}

func channelsOf(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("room:%d", i)
	}
	list, _ := json.Marshal(names)
	return fmt.Sprintf(`{"channels":%s}`, list)
}

const unusable, refused = "login_webhook_unavailable", "login_refused"

var loginAnswers = []struct {
	name    string
	backend http.Handler
	code    string // of the login where an answer is required
}{
	{"nothing to say", says(204, ""), ""},
	{"empty object", says(200, "{}"), ""},
	{"allow", says(200, `{"allow":true}`), ""},
	{"no claims", says(200, `{"claims":null,"channels":null}`), ""},
	{"empty claims", says(200, `{"claims":{ },"channels":[]}`), ""},
	{"as many claims as may be", says(200, claimsOf(maxClaims)), ""},
	{"as many channels as may be", says(200, channelsOf(maxChannels)), ""},
	{"refused", says(200, `{"allow":false,"reason":"Banned.\n"}`), refused},
	{"refused without a reason", says(200, `{"allow":false}`), refused},
	{"refused with claims", says(200, `{"allow":false,"claims":5}`), refused},

	{"claims too big", says(200, claimsOf(maxClaims+1)), unusable},
	{"claims too big in ASCII", says(200, `{"claims":{"x":"`+strings.Repeat("你", maxClaims/6)+`"}}`), unusable},
	{"claims no object", says(200, `{"claims":["x"]}`), unusable},
	{"claims a string", says(200, `{"claims":"{}"}`), unusable},
	{"too many channels", says(200, channelsOf(maxChannels+1)), unusable},
	{"as long channels as may be", says(200, channelBytes(maxChannelBytes)), ""},
	{"channels too long together", says(200, channelBytes(maxChannelBytes+1)), unusable},
	{"channel without a name", says(200, `{"channels":[""]}`), unusable},
	{"channel name too long", says(200, `{"channels":["`+strings.Repeat("x", 256)+`"]}`), unusable},
	{"channel name not ASCII", says(200, `{"channels":["房间"]}`), unusable},
	{"channel name with a line break", says(200, `{"channels":["a\nb"]}`), unusable},
	{"allow is no bool", says(200, `{"allow":"false"}`), unusable},
	{"garbage", says(200, `<html>`), unusable},
	{"empty", says(200, ``), unusable},
	{"too long", says(200, strings.Repeat(" ", 70<<10)+"{}"), unusable},
	{"HTTP 500", says(500, `{"allow":true}`), unusable},
	{"HTTP 403", says(403, `{"allow":false}`), unusable},
	{"redirect", http.RedirectHandler("/elsewhere", http.StatusTemporaryRedirect), unusable},
	{"reset", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), unusable},
}

// TestLoginWebhookAnswers has the backend say good and bad things; what cannot
// be used counts as no answer.
func TestLoginWebhookAnswers(t *testing.T) {
	for _, tt := range loginAnswers {
		t.Run(tt.name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.Handle("/hook", tt.backend)
			mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was asked", r.URL) })
			backend := httptest.NewServer(mux)
			defer backend.Close()
			hook := backend.URL + "/hook?token=hush"
			store, _ := newFileStore(t)

			strict := newEnv(t, store, withLoginWebhook(t, hook, nil, required))
			_, _, err := strict.Login(t.Context(), "", "sim:ann")
			wantFault(t, err, tt.code)
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Errorf("the error gives the URL away: %v", err)
			}

			lenient := newEnv(t, store, withLoginWebhook(t, hook, nil))
			_, ses, err := lenient.Login(t.Context(), "", "sim:bob")
			code, unchecked := tt.code, 0.0
			if code == unusable {
				code, unchecked = "", 1
			}
			wantFault(t, err, code)
			if got := testutil.ToFloat64(lenient.metrics.unchecked); got != unchecked {
				t.Errorf("%v unchecked logins are counted", got)
			}
			if unchecked == 1 && (ses == nil || ses.Claims != nil || ses.Channels != nil) {
				t.Errorf("an unusable answer left %+v", ses)
			}
		})
	}
}

// A newer login has claims and channels of its own, and leaves those of the
// older one as they are.
func TestNewerLoginHasItsOwnChannels(t *testing.T) {
	answers := []string{`{"claims":{"n":1},"channels":["a","b"]}`, `{"claims":{"n":2},"channels":["c"]}`, `{}`}
	asked := 0
	e := newEnv(t, newRedisStore(t), withLoginWebhook(t, "http://b.example", handlerTransport{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, answers[asked])
		asked++
	})}))
	var tokens []string
	for range answers {
		token, _ := e.mustLogin("ann")
		tokens = append(tokens, token)
	}
	for i, want := range []struct {
		claims   string
		channels []string
	}{{`{"n":1}`, []string{"a", "b"}}, {`{"n":2}`, []string{"c"}}, {"", nil}} {
		if s := e.wantVerify(tokens[i], ""); string(s.Claims) != want.claims || !slices.Equal(s.Channels, want.channels) {
			t.Errorf("login %d has %s and %q, want %+v", i, s.Claims, s.Channels, want)
		}
	}
}

// A refused login leaves nothing behind.
func TestLoginRefused(t *testing.T) {
	store, _ := newFileStore(t)
	long := strings.Repeat("很", 300)
	e := newEnv(t, store, withLoginWebhook(t, "http://b.example", handlerTransport{says(200, `{"allow":false,"reason":"`+long+`\u0007<b>"}`)}))
	w, answer := call(rest.Handler(e.ServeLogin), http.MethodPost, "", `{"code":"sim:ann"}`)
	message, _ := answer["error"].(map[string]any)["message"].(string)
	if w.Code != http.StatusForbidden || errorCode(answer) != "login_refused" || message != long[:3*maxRefusalReason] {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if n := testutil.ToFloat64(e.metrics.logins.WithLabelValues("login_refused")); n != 1 {
		t.Errorf("%v refusals are counted", n)
	}
	openID := e.openIDOf("ann")
	list, err := store.ListByUser(t.Context(), openID)
	keys, err2 := store.Keys(t.Context(), openID)
	if err != nil || err2 != nil || len(list)+len(keys) != 0 {
		t.Errorf("%d sessions and %d keys are left: %v, %v", len(list), len(keys), err, err2)
	}
}

// openIDOf finds a user of the simulator by logging in where nobody is asked.
func (e *env) openIDOf(user string) string {
	e.t.Helper()
	other, _ := newFileStore(e.t)
	_, ses := newEnv(e.t, other).mustLogin(user)
	return ses.User.OpenID
}

// A slow backend holds up a login for its timeout, and once it has failed often
// enough not at all; the log speaks up when that begins and when it ends.
func TestLoginWebhookSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := captureLog(t)
		slow := true
		backend := transportFunc(func(r *http.Request) (*http.Response, error) {
			if slow {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return handlerTransport{says(200, `{"claims":{"a":1}}`)}.RoundTrip(r)
		})
		store, _ := newFileStore(t)
		reg := prometheus.NewRegistry()
		e := newEnv(t, store, withLoginWebhook(t, "http://b.example/?token=hush", backend), func(o *Options) { o.Metrics = NewMetrics(reg) })
		for i := range 8 {
			start := time.Now()
			_, ses := e.mustLogin("ann")
			waited := time.Since(start)
			if i == 0 && (waited < 2*time.Second || waited > 2100*time.Millisecond) || i == 7 && waited > 100*time.Millisecond || ses.Claims != nil {
				t.Errorf("login %d took %v and has claims %s", i, waited, ses.Claims)
			}
		}
		if n := testutil.ToFloat64(e.metrics.unchecked); n != 8 {
			t.Errorf("%v unchecked logins are counted", n)
		}
		slow = false
		time.Sleep(time.Minute)
		if _, ses := e.mustLogin("ann"); string(ses.Claims) != `{"a":1}` {
			t.Errorf("claims are %s", ses.Claims)
		}
		text := logged.String()
		if strings.Count(text, "no usable answer") != 1 || strings.Count(text, "works again") != 1 || strings.Contains(text, "hush") {
			t.Errorf("the log says:\n%s", text)
		}
	})
}

// A phone that hangs up is not the backend's fault.
func TestLoginWebhookHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := captureLog(t)
		backend := transportFunc(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		store, _ := newFileStore(t)
		e := newEnv(t, store, withLoginWebhook(t, "http://b.example", backend))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := e.Login(ctx, "", "sim:ann")
		if err == nil || strings.Contains(logged.String(), "usable") || testutil.ToFloat64(e.metrics.unchecked) != 0 {
			t.Errorf("login: %v; log: %s", err, logged)
		}
	})
}

func TestLoginWebhookSettings(t *testing.T) {
	for yaml, wrong := range map[string]string{
		"{}":                                      "",
		"login_webhook: {endpoint: http://b/x}":   "",
		"login_webhook: {endpoint: b/x}":          "login_webhook.endpoint",
		"login_webhook: {endpoint: ftp://b/x}":    "login_webhook.endpoint",
		"login_webhook: {timeout: 10ms}":          "login_webhook.timeout",
		"login_webhook: {timeout: 31s}":           "login_webhook.timeout",
		"login_webhook: {required: true}":         "",
		"login_webhook: {endpoint: http://u:p@b}": "login_webhook.endpoint",
	} {
		var s SessionSettings
		err := settings.Load(&s, settings.Source{File: []byte(yaml), FileName: "x"})
		if (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
	store, _ := newFileStore(t)
	o := Options{Store: store, SealKeys: [][32]byte{{1}}}
	settings.Defaults(&o.Settings)
	o.Settings.WeChat.Apps = []AppSettings{{AppID: appA, Secret: secretA}}
	o.Settings.Session.LoginWebhook.Endpoint = "http://b.example"
	if _, err := New(o); err == nil {
		t.Error("a login webhook without a client is accepted")
	}
	o.Webhooks = webhook.NewClient(webhook.Options{})
	if _, err := New(o); err == nil {
		t.Error("a login webhook without a key is accepted")
	}
}

func FuzzCompactClaims(f *testing.F) {
	for _, s := range []string{"", "null", "{}", "[]", `{"a":"你😀\ud800<&>\u2028` + "\x7f" + `"}`, "{\"a\" :\t1}", "{\"a\":\"\xff\"}", claimsOf(maxClaims + 20), `{"a":"` + "\x00" + `"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		claims, err := CompactClaims(object)
		if err != nil || claims == nil {
			return
		}
		if len(claims) > maxClaims || bytes.ContainsFunc(claims, func(c rune) bool { return c < ' ' || c >= 0x7f }) {
			t.Errorf("%q became %q", object, claims)
		}
		var before, after any
		if json.Unmarshal(object, &before) != nil || json.Unmarshal(claims, &after) != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%q became %q", object, claims)
		}
		again, err := json.Marshal(claims) // as stores do
		if err != nil || !bytes.Equal(again, claims) {
			t.Errorf("%q is stored as %q: %v", claims, again, err)
		}
	})
}

// What the phone is told about a required webhook that fails.
func TestLoginWebhookRequired(t *testing.T) {
	store, _ := newFileStore(t)
	e := newEnv(t, store, withLoginWebhook(t, "http://b.example", handlerTransport{says(500, "")}, required))
	w, answer := call(rest.Handler(e.ServeLogin), http.MethodPost, "", `{"code":"sim:ann"}`)
	if w.Code != http.StatusServiceUnavailable || errorCode(answer) != "login_webhook_unavailable" || w.Header().Get("Retry-After") == "" {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	_, _, err := e.Login(t.Context(), "", "sim:ann")
	if e := fault.Of(err); !strings.Contains(e.Error(), "HTTP 500") {
		t.Errorf("the log would not say why: %v", err)
	}
}
