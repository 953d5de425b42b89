package auth

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/rest"
)

// fixedAnswer is a WeChat that answers what the test says.
type fixedAnswer struct{ body atomic.Value }

func (s *fixedAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	_, _ = io.WriteString(w, s.body.Load().(string))
	return w.Result(), r.Context().Err()
}

func errcodeBody(code int) string {
	return fmt.Sprintf(`{"errcode":%d,"errmsg":"whatever, rid: 65f00000-11112222-33334444"}`, code)
}

func TestAlerts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged, wx, reg := captureLog(t), new(fixedAnswer), prometheus.NewRegistry()
		e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Transport, o.Metrics = wx, NewMetrics(reg) })
		login := func(body, status string) {
			t.Helper()
			wx.body.Store(body)
			_, _, err := e.Login(t.Context(), "", "sim:ann")
			wantFault(t, err, status)
		}
		metric := func(line string) {
			t.Helper()
			if text := exposition(t, reg); !strings.Contains(text, line+"\n") {
				t.Errorf("no %q in\n%s", line, text)
			}
		}
		for range 3 {
			login(errcodeBody(40125), "wechat_config")
			time.Sleep(time.Minute)
		}
		login(errcodeBody(-1), "wechat_unavailable") // proves nothing
		login("nonsense", "wechat_error")
		list := e.Alerts()
		if len(list) != 1 || list[0].AppID != appA || list[0].Code != 40125 || list[0].Count != 3 ||
			!strings.Contains(list[0].Cause, "secret") || list[0].RID != "65f00000-11112222-33334444" || list[0].Last.Sub(list[0].Since).Round(time.Second) != 2*time.Minute {
			t.Errorf("alerts %+v", list)
		}
		metric(`minigate_wechat_alerts{appid="` + appA + `",errcode="40125"} 1`)
		if n := strings.Count(logged.String(), "wechat refuses a mini-program"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, logged)
		}
		login(errcodeBody(40013), "wechat_config")
		if list := e.Alerts(); len(list) != 2 || list[1].Code != 40013 {
			t.Errorf("alerts %+v", list)
		}
		login(errcodeBody(40029), "code_invalid") // so the credentials were accepted
		if list := e.Alerts(); len(list) != 0 {
			t.Errorf("alerts that should have ended: %+v", list)
		}
		metric(`minigate_wechat_alerts{appid="` + appA + `",errcode="40125"} 0`)
	})
}

// Every way in which WeChat can fail, seen by a phone that logs in.
func TestLoginWhenWeChatFails(t *testing.T) {
	type want struct {
		status     int
		code       string
		retryAfter string
		alerts     int
	}
	synctest.Test(t, func(t *testing.T) {
		for body, want := range map[string]want{
			errcodeBody(-1):    {503, "wechat_unavailable", "1", 0},
			errcodeBody(40029): {401, "code_invalid", "", 0},
			errcodeBody(40163): {401, "code_used", "", 0},
			errcodeBody(40226): {403, "blocked", "", 0},
			errcodeBody(45011): {429, "wechat_quota", "60", 0},
			errcodeBody(40013): {500, "wechat_config", "", 1},
			errcodeBody(40125): {500, "wechat_config", "", 1},
			errcodeBody(40164): {500, "wechat_config", "", 1},
			errcodeBody(41002): {500, "wechat_config", "", 1},
			errcodeBody(41004): {500, "wechat_config", "", 1},
			errcodeBody(41008): {500, "wechat_config", "", 1},
			errcodeBody(12345): {502, "wechat_error", "", 0},
			"":                 {502, "wechat_error", "", 0},
			"{":                {502, "wechat_error", "", 0},
			"[]":               {502, "wechat_error", "", 0},
			`{"openid":"o"}`:   {502, "wechat_error", "", 0},
			`{"openid":"a b","session_key":"` + keyA + `"}`: {502, "wechat_error", "", 0},
			`{"errcode":"40029"}`:                           {502, "wechat_error", "", 0},
		} {
			wx := new(fixedAnswer)
			wx.body.Store(body)
			e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Transport = wx })
			w, v := call(rest.Handler(e.ServeLogin), http.MethodPost, "", `{"code":"0abc"}`)
			if w.Code != want.status || errorCode(v) != want.code || w.Header().Get("Retry-After") != want.retryAfter || len(e.Alerts()) != want.alerts {
				t.Errorf("%s: %d %s, Retry-After %q, alerts %v, want %+v", body, w.Code, w.Body, w.Header().Get("Retry-After"), e.Alerts(), want)
			}
			if strings.Contains(w.Body.String(), "12345") {
				t.Errorf("the errcode got out: %s", w.Body)
			}
		}
	})
}
