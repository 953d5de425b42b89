package wechat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/wxsim"
)

// calls are all APIs, each called in a way that works for ann.
var calls = map[*api]func(b *bench, ctx context.Context) error{
	apiCode2Session: func(b *bench, ctx context.Context) error {
		_, err := b.Code2Session(ctx, "sim:ann")
		return err
	},
	apiCheckSession: func(b *bench, ctx context.Context) error { return b.CheckSession(ctx, b.openID, b.key) },
	apiResetSession: func(b *bench, ctx context.Context) error {
		key, err := b.ResetSessionKey(ctx, b.openID, b.key)
		if err == nil && (key == b.key || !isSessionKey(key)) {
			b.t.Errorf("the new key is %q", key)
		}
		return err
	},
	apiPhoneNumber: func(b *bench, ctx context.Context) error {
		_, err := b.PhoneNumber(ctx, b.sim.NewPhoneCode(appID, "ann"), b.openID)
		return err
	},
	apiMsgSecCheck: func(b *bench, ctx context.Context) error {
		_, err := b.CheckText(ctx, Text{OpenID: b.openID, Scene: SceneComment, Content: "hello"})
		return err
	},
	apiMediaCheck: func(b *bench, ctx context.Context) error {
		_, err := b.CheckMedia(ctx, Media{b.openID, SceneForum, MediaImage, "https://example.com/a.png"})
		return err
	},
	apiSubscribeSend: func(b *bench, ctx context.Context) error {
		b.sim.Grant(appID, "ann", "T")
		return b.SendSubscribe(ctx, SubscribeMessage{OpenID: b.openID, Template: "T", Data: map[string]string{"thing1": "x"}, Page: "/pages/a"})
	},
	apiCustomerSend: func(b *bench, ctx context.Context) error {
		b.sim.Write(appID, "ann")
		return b.SendCustomer(ctx, CustomerMessage{OpenID: b.openID, Text: "hello"})
	},
}

// TestTrouble puts every API through everything that can go wrong on the way.
func TestTrouble(t *testing.T) {
	for name, tc := range map[string]struct {
		trouble wxsim.Trouble
		code    string // of the fault
	}{
		"hang":      {wxsim.Trouble{Hang: true}, "wechat_unavailable"},
		"reset":     {wxsim.Trouble{Reset: true}, "wechat_unavailable"},
		"HTTP 500":  {wxsim.Trouble{HTTP: 500}, "wechat_unavailable"},
		"HTTP 429":  {wxsim.Trouble{HTTP: 429}, "wechat_unavailable"},
		"HTTP 404":  {wxsim.Trouble{HTTP: 404}, "wechat_error"},
		"redirect":  {wxsim.Trouble{HTTP: 302}, "wechat_error"},
		"not JSON":  {wxsim.Trouble{Body: "<html>"}, "wechat_error"},
		"cut off":   {wxsim.Trouble{Body: `{"errcode":0,`}, "wechat_error"},
		"too long":  {wxsim.Trouble{Body: `{}` + strings.Repeat(" ", maxAnswer)}, "wechat_error"},
		"bad type":  {wxsim.Trouble{Body: `{"errcode":"40029"}`}, "wechat_error"},
		"minute":    {wxsim.Trouble{Code: 45011}, "wechat_quota"},
		"minute 2":  {wxsim.Trouble{Code: 44991}, "wechat_quota"},
		"day":       {wxsim.Trouble{Code: 45009}, "wechat_quota"},
		"appid":     {wxsim.Trouble{Code: 40013}, "wechat_config"},
		"secret":    {wxsim.Trouble{Code: 40125}, "wechat_config"},
		"address":   {wxsim.Trouble{Code: 40164}, "wechat_config"},
		"forbidden": {wxsim.Trouble{Code: 48001}, "wechat_config"},
		"frozen":    {wxsim.Trouble{Code: 50007}, "wechat_config"},
		"unknown":   {wxsim.Trouble{Code: 123456}, "wechat_error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				for a, call := range calls {
					b.sim.Script(a.path, tc.trouble)
					start := time.Now()
					wantFault(t, call(b, t.Context()), tc.code)
					if took := time.Since(start); took > 5*time.Second {
						t.Errorf("%s took %v", a.name, took)
					}
					wantFault(t, call(b, t.Context()), "")
					if a == apiResetSession || a == apiCode2Session {
						b.relogin()
					}
				}
			})
		})
	}
}

// Who gives up hears so, and WeChat is not blamed.
func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for a, call := range calls {
			b.sim.Script(a.path, wxsim.Trouble{Hang: true})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := call(b, ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrAway) {
				t.Errorf("%s: %v", a.name, err)
			}
			cancel()
		}
	})
}

func (b *bench) relogin() {
	id, err := b.Code2Session(b.t.Context(), "sim:ann")
	if err != nil {
		b.t.Fatal(err)
	}
	b.key = id.SessionKey
}

func TestOwnErrcodes(t *testing.T) {
	for _, tc := range []struct {
		api  *api
		code int
		want *fault.Error
	}{
		{apiCode2Session, 40029, ErrCodeInvalid},
		{apiCode2Session, 40163, ErrCodeUsed},
		{apiCode2Session, 40226, ErrBlocked},
		{apiCheckSession, 87009, ErrSessionKey},
		{apiResetSession, 87009, ErrSessionKey},
		{apiPhoneNumber, 40029, ErrPhoneCode},
		{apiMsgSecCheck, 61010, ErrInactive},
		{apiMsgSecCheck, 40003, ErrOpenID},
		{apiMediaCheck, 61010, ErrInactive},
		{apiSubscribeSend, 43101, ErrSubscribeRefused},
		{apiSubscribeSend, 40037, ErrTemplateInvalid},
		{apiSubscribeSend, 41030, ErrPageInvalid},
		{apiSubscribeSend, 47003, ErrTemplateData},
		{apiSubscribeSend, 45168, ErrContentRisky},
		{apiCustomerSend, 45015, ErrWindowClosed},
		{apiCustomerSend, 45047, ErrMessageLimit},
		{apiCustomerSend, 45002, ErrTooLong},
		{apiStableToken, 40001, ErrConfig},
		{apiStableToken, 41001, ErrConfig},
		{apiPhoneNumber, 41006, ErrConfig},
	} {
		err := tc.api.errorOf(tc.code, "text, rid: 65f00000-11112222-33334444")
		e, ok := errors.AsType[*Error](err)
		if !errors.Is(err, tc.want) || !ok || e.Code != tc.code || e.RID != "65f00000-11112222-33334444" || e.API != tc.api.name {
			t.Errorf("%s %d: %v (%+v), want %v", tc.api.name, tc.code, err, e, tc.want)
		}
	}
}

// WeChat being busy is worth another try where trying twice does no harm.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for a, call := range calls {
			busy, before := wxsim.Trouble{Code: -1, Msg: "system error"}, b.sim.Calls(a.path)
			b.sim.Script(a.path, busy, busy)
			err := call(b, t.Context())
			if a.retry {
				wantFault(t, err, "")
			} else {
				wantFault(t, err, "wechat_unavailable")
				wantFault(t, call(b, t.Context()), "wechat_unavailable") // the second one
			}
			if n := b.sim.Calls(a.path) - before; a.retry && n != 3 || !a.retry && n != 2 {
				t.Errorf("%s was called %d times", a.name, n)
			}
			b.relogin()
		}
	})
}

// What WeChat says of our address, and of a field, helps whoever has to mend it.
func TestErrorsNameTheCause(t *testing.T) {
	for _, tc := range []struct {
		code      int
		msg       string
		log, user string
	}{
		{40164, "invalid ip 192.0.2.7 ipv6 ::ffff:192.0.2.7, not in whitelist rid: 65f00000-11112222-33334444", "add our IP address 192.0.2.7 to", ""},
		{40164, "invalid ip 2001:db8::7, not in whitelist", "add our IP address 2001:db8::7 to", ""},
		{40164, "invalid ip <script>, not in whitelist", "our IP address is not on", ""},
		{40164, "invalid ip 999.1.1.1 x", "our IP address is not on", ""},
		{40125, "invalid appsecret, rid: 65f00000-11112222-33334444", "40125, the secret does not belong to the appid (rid 65f00000-11112222-33334444)", ""},
		{41001, "access_token missing", "WeChat misses or refuses a parameter", ""},
		{47003, "argument invalid! data.thing1.value is empty", "47003", "The field thing1 does"},
		{47003, "argument invalid!", "47003", "The data does not"},
		{7, "secret=" + secret, "wechat errcode 7 (rid none)", ""},
	} {
		err := apiSubscribeSend.errorOf(tc.code, tc.msg)
		if text := err.Error(); !strings.Contains(text, tc.log) || strings.Contains(text, secret) {
			t.Errorf("the log would say %q, want %q in it", text, tc.log)
		}
		if msg := fault.Of(err).Msg; !strings.Contains(msg, tc.user) || strings.Contains(msg, "192.0.2") {
			t.Errorf("the caller is told %q, want %q in it", msg, tc.user)
		}
	}
}

type transport func(r *http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An error of the network that quotes the URL gives nothing away, and neither
// does the client, however it is printed.
func TestNothingGetsOut(t *testing.T) {
	var urls []string
	b := newBench(t)
	for a, call := range calls {
		b.Client = b.another(func(o *Options) {
			o.Transport = transport(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path != a.path {
					return network{b.sim}.RoundTrip(r)
				}
				urls = append(urls, r.URL.String())
				return nil, &url.Error{Op: r.Method, URL: r.URL.String(), Err: errors.New(r.URL.Query().Get("secret") + r.URL.Query().Get("access_token"))}
			})
		})
		err := call(b, t.Context())
		wantFault(t, err, "wechat_unavailable")
		text := fmt.Sprintf("%v %+v %#v %s %d", err, b.Client, b.Client, b.Client, b.Client)
		last, _ := url.Parse(urls[len(urls)-1])
		for name, values := range last.Query() {
			if name == "appid" || name == "grant_type" || name == "sig_method" || name == "openid" || name == "js_code" {
				continue
			}
			if strings.Contains(text, values[0]) || strings.Contains(text, url.QueryEscape(values[0])) {
				t.Errorf("%s: the %s is in %q", a.name, name, text)
			}
		}
		if strings.Contains(text, secret) {
			t.Errorf("%s: the AppSecret is in %q", a.name, text)
		}
	}
}

// WeChat lets escaped text pass its content check unread, so nothing is escaped.
func TestBodiesAreUTF8(t *testing.T) {
	var body string
	b := newBench(t)
	b.Client = b.another(func(o *Options) {
		o.Transport = transport(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == apiMsgSecCheck.path {
				data, _ := io.ReadAll(r.Body)
				body = string(data)
				r.Body = io.NopCloser(strings.NewReader(body))
			}
			return network{b.sim}.RoundTrip(r)
		})
	})
	v, err := b.CheckText(t.Context(), Text{OpenID: b.openID, Scene: SceneComment, Content: "<b>&" + wxsim.RiskyText + "🀄"})
	if err != nil || v.Suggest != SuggestRisky || v.Label != 20001 || v.TraceID == "" {
		t.Errorf("%+v, %v", v, err)
	}
	if !strings.Contains(body, `"<b>&`+wxsim.RiskyText+`🀄"`) {
		t.Errorf("sent %s", body)
	}
	for _, content := range []string{"", strings.Repeat("字", 2501), "\xff"} {
		_, err := b.CheckText(t.Context(), Text{OpenID: b.openID, Scene: SceneComment, Content: content})
		wantFault(t, err, "content_invalid")
	}
	_, err = b.CheckText(t.Context(), Text{OpenID: b.openID, Scene: SceneComment, Content: strings.Repeat("字", 2500)})
	wantFault(t, err, "")
}

func TestPhoneNumber(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	p, err := b.PhoneNumber(ctx, b.sim.NewPhoneCode(appID, "ann"), b.openID)
	if err != nil || p.Number != wxsim.Phone("ann") || p.Pure != p.Number || p.CountryCode != "86" || time.Since(p.At).Abs() > time.Minute {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = b.PhoneNumber(ctx, b.sim.NewPhoneCode(appID, "bob"), b.openID)
	wantFault(t, err, "phone_code_invalid") // bob's code with ann's openid
	for body, code := range map[string]string{
		`{"errcode":0,"phone_info":{"phoneNumber":"+4412","purePhoneNumber":"12","countryCode":44,"watermark":{"timestamp":"1","appid":"` + appID + `"}}}`: "",
		`{"phone_info":{"phoneNumber":"12","countryCode":"86","watermark":{"appid":"wx4f4bc4dec97d474b"}}}`:                                                "wechat_error",
		`{"phone_info":{"countryCode":"86","watermark":{"appid":"` + appID + `"}}}`:                                                                        "wechat_error",
		`{"phone_info":{"phoneNumber":{},"watermark":{"appid":"` + appID + `"}}}`:                                                                          "wechat_error",
		`{}`: "wechat_error",
	} {
		b.sim.Script(apiPhoneNumber.path, wxsim.Trouble{Body: body})
		_, err := b.PhoneNumber(ctx, "x", b.openID)
		wantFault(t, err, code)
	}
}

func TestSessionKeys(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	old := b.key
	wantFault(t, b.CheckSession(ctx, b.openID, old), "")
	key, err := b.ResetSessionKey(ctx, b.openID, old)
	wantFault(t, err, "")
	wantFault(t, b.CheckSession(ctx, b.openID, old), "session_key_stale")
	wantFault(t, b.CheckSession(ctx, b.openID, key), "")
	_, err = b.ResetSessionKey(ctx, b.openID, old)
	wantFault(t, err, "session_key_stale")
}

// A node stays within the quota of every minute, waits its turn for up to a
// second and then says how long it would take.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		start, done, limited := time.Now(), 0, 0
		for time.Since(start) < time.Minute {
			err := b.limits.take(t.Context(), apiMediaCheck)
			switch {
			case err == nil:
				done++
			case fault.Of(err).RetryAfter <= maxQueue:
				t.Fatalf("refused, but to wait only %v", fault.Of(err).RetryAfter)
			default:
				limited++
			}
		}
		if done > apiMediaCheck.perMinute || done < apiMediaCheck.perMinute*9/10 || limited > 0 {
			t.Errorf("%d calls in a minute, %d refused", done, limited)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"openid":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","session_key":"tiihtNczf5v6AKRyjwEUhQ==","unionid":"ocMvos6NjeKLIBqg5Mr9QjxrP1FA"}`,
		`{"errcode":40029,"errmsg":"invalid code, rid: 1-2-3"}`, "", "null", "[]", `{"openid":"o"}`,
		`{"errcode":0,"result":{"suggest":"pass","label":"100"},"trace_id":"x"}`, `{"result":{"suggest":"risky","label":20001}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var a identityAnswer
		err := apiCode2Session.decode(body, &a)
		if err == nil {
			if id, err := a.identity(); err == nil && (!IsID(id.OpenID) || !isSessionKey(id.SessionKey)) {
				t.Errorf("%q was taken as %+v", body, id)
			}
		} else if fault.Of(err).Code == "internal" {
			t.Errorf("error without a policy: %v", err)
		}
		var v verdictAnswer
		if apiMsgSecCheck.decode(body, &v) == nil {
			if got, err := v.verdict(); (got == nil) == (err == nil) {
				t.Errorf("%q: %v, %v", body, got, err)
			}
		}
	})
}
