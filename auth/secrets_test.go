package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// captureLog collects everything logged during the test, at every level.
func captureLog(t *testing.T) *lockedBuffer {
	out, before := new(lockedBuffer), slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug - 4})))
	t.Cleanup(func() { slog.SetDefault(before) })
	return out
}

// wxFaults are ways in which WeChat, or the way there, can go wrong. Several
// echo what they were asked, as a broken proxy might.
var wxFaults = map[string]func(w http.ResponseWriter, r *http.Request){
	"reset": func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
	"HTTP 500": func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, r.URL.String(), http.StatusInternalServerError)
	},
	"HTTP 400": func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.String(), http.StatusBadRequest) },
	"echo":     func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.String()) },
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/?"+r.URL.RawQuery, http.StatusFound)
	},
	"bad jump": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "%zz"+r.URL.RawQuery)
		w.WriteHeader(302)
	},
	"bad proto": hijack(func(r *http.Request) string { return r.URL.String() + "\r\n\r\n" }),
	"cut off":   hijack(func(*http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + goodAnswer }),
	"echo text": func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"errcode":7,"errmsg":"%s, rid: 65f00000-11112222-33334444"}`, r.URL)
	},
	"short key": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Replace(goodAnswer, "hQ==", "h===", 1))
	},
}

func hijack(answer func(*http.Request) string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, answer(r))
			_ = conn.Close()
		}
	}
}

// TestSecretsStayHome makes everything fail that can, over real connections,
// and then searches all that was logged, answered and counted.
func TestSecretsStayHome(t *testing.T) {
	logged, spoken := captureLog(t), new(bytes.Buffer)
	var broken atomic.Value // names the fault at work
	broken.Store("")
	wx := httptest.NewServer(wxsim.New(wxsim.Options{
		Apps: []wxsim.App{{AppID: appA, Secret: secretA}},
		Fault: func(w http.ResponseWriter, r *http.Request) bool {
			f, ok := wxFaults[broken.Load().(string)]
			if ok {
				f(w, r)
			}
			return ok
		},
	}))
	defer wx.Close()
	redisServer, reg := testdeps.StartRedis(t), prometheus.NewRegistry()
	store := NewRedisStore(newRedisClient(t, redisServer.Addr), "test")
	e := newEnv(t, store, func(o *Options) {
		o.Settings.WeChat.BaseURL, o.Transport, o.Metrics = wx.URL, nil, NewMetrics(reg)
	})
	run(t, e.Run)
	awaitListeners(t, store, 1)
	ask := func(h rest.Handler, token, body string, status int) {
		w, _ := call(h, http.MethodPost, token, body)
		spoken.WriteString(w.Body.String())
		if w.Code != status && (status != 0 || w.Code < 500) {
			t.Errorf("with fault %q: answered %d %s, want %d", broken.Load(), w.Code, w.Body, status)
		}
	}

	token, s := e.mustLogin("ann")
	phone, _ := e.mustLogin("ann")
	key, access, me := sessionKeyOf(t, e, s), accessToken(t, wx.URL), `{"user":"`+s.User.OpenID+`"}`
	ask(e.ServeCheckSession, "", me, http.StatusOK)
	for name := range wxFaults {
		broken.Store(name)
		ask(e.ServeLogin, "", `{"code":"sim:ann"}`, 0)
		ask(e.Require(e.ServePhone), phone, `{"code":"x"}`, 0)
		if name != "short key" { // which is no trouble for a call without an answer
			ask(e.ServeCheckSession, "", me, 0)
		}
	}
	broken.Store("")
	ask(e.ServeLogin, "", `{"code":"sim:ann","appid":"`+appB+`"}`, http.StatusInternalServerError) // the simulator does not know it
	redisServer.Kill()
	ask(e.ServeLogin, "", `{"code":"sim:ann"}`, http.StatusServiceUnavailable)
	ask(e.ServeSession, token, "", http.StatusServiceUnavailable)
	ask(e.ServeLogout, token, "", http.StatusServiceUnavailable)
	wx.Close()
	ask(e.ServeLogin, "", `{"code":"sim:ann"}`, http.StatusServiceUnavailable)

	everything := logged.String() + spoken.String() + exposition(t, reg)
	if !strings.Contains(everything, "wechat_unavailable") || !strings.Contains(logged.String(), "the appid is wrong") {
		t.Errorf("the log does not tell what happened:\n%s", logged)
	}
	for _, secret := range []string{key, "tiihtNczf5v6AKRyjwEU", secretA, secretB, url.QueryEscape(secretB), token, token[3:], access, phone} {
		if i := strings.Index(everything, secret); i >= 0 {
			t.Errorf("a secret got out: …%s…", everything[max(0, i-200):i])
		}
	}
}

// accessToken asks WeChat for the one we have, too.
func accessToken(t *testing.T, wechatURL string) string {
	t.Helper()
	res, err := http.Post(wechatURL+"/cgi-bin/stable_token", "application/json",
		strings.NewReader(`{"grant_type":"client_credential","appid":"`+appA+`","secret":"`+secretA+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var a struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil || a.Token == "" {
		t.Fatal(a, err)
	}
	return a.Token
}

func sessionKeyOf(t *testing.T, e *env, s *Session) string {
	t.Helper()
	keys, err := e.sessionKeys(t.Context(), s.User)
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	return keys[0]
}

func exposition(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// Whatever is printed of a Service's parts, secrets are masked.
func TestSettingsAreMasked(t *testing.T) {
	app := AppSettings{AppID: appB, Secret: secretB}
	if text := fmt.Sprintf("%v %+v %#v", app, app, app); strings.Contains(text, "second") {
		t.Errorf("printed as %q", text)
	}
}
