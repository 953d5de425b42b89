// Package wxsim is a WeChat that behaves as documented: the server APIs a
// mini-program's backend calls, under their real paths and with their real
// errors, for development and tests. It is never part of a production start.
//
// Two kinds of login code exist. A code from [Server.NewCode] or POST
// /sim/login is like the one wx.login hands out: it lives five minutes, works
// once and belongs to one mini-program. The code "sim:NAME" logs in as the
// user NAME as often as wanted. Either way the same name has the same openid
// per mini-program, the same unionid everywhere and the same phone number,
// also after a restart, because all three are derived from the name.
//
// Source of the behaviour: developers.weixin.qq.com, "API/user-login",
// "API/mp-access-token" and "API/user-info"; where those pages are silent,
// the choice is stated at the code in question.
package wxsim

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/minigate/minigate/internal/rest"
)

const (
	codeLife = 5 * time.Minute // of login and phone codes, as documented
	// keyLife is how long a session_key stays current when nobody logs in
	// again. WeChat keeps its own number secret.
	keyLife = 30 * 24 * time.Hour

	maxBody  = 64 << 10 // bytes of a request body
	maxCodes = 1 << 17  // codes remembered, each for codeLife at most
	maxKeys  = 1 << 20  // users with a session_key
	maxToken = 1 << 12  // access tokens remembered
)

// App is a mini-program that the simulator knows.
type App struct {
	AppID  string
	Secret string
	Push   PushTarget // where its events go; zero: nowhere
}

// Options configure a Server.
type Options struct {
	Apps []App
	// Now is the clock; nil takes time.Now.
	Now func() time.Time
	// Fetch, where set, fetches files that are to be checked, when the verdict is
	// delivered: those are risky that have RiskyText in them, too.
	Fetch *http.Client
	// Fault, where set, sees every call to a WeChat API first. Returning true
	// means that it has answered (or hung up, or waited) itself.
	Fault func(w http.ResponseWriter, r *http.Request) bool
}

// Server is the simulated api.weixin.qq.com. It is safe for concurrent use.
type Server struct {
	secrets map[string]string     // by appid
	targets map[string]PushTarget // by appid
	now     func() time.Time
	fault   func(w http.ResponseWriter, r *http.Request) bool
	fetch   *http.Client
	mux     http.ServeMux

	mu         sync.Mutex
	logins     table[code]
	phones     table[code]
	keys       table[string] // session_key by userKey
	tokens     table[string] // appid by access token
	credential map[string]*credential
	grants     table[int] // consents left, by userKey and template
	windows    table[int] // customer messages left, by userKey
	sent       []Message
	queued     []queuedPush
	scripts    map[string][]Trouble // by path
	calls      map[string]int       // by path
}

// code is a login or phone code that was handed out.
type code struct {
	appID, user string
	used        bool
}

// New makes a Server that knows the given mini-programs.
func New(o Options) *Server {
	s := &Server{
		secrets:    make(map[string]string),
		now:        o.Now,
		fault:      o.Fault,
		fetch:      o.Fetch,
		logins:     newTable[code](maxCodes),
		phones:     newTable[code](maxCodes),
		keys:       newTable[string](maxKeys),
		tokens:     newTable[string](maxToken),
		credential: make(map[string]*credential),
		targets:    make(map[string]PushTarget),
		grants:     newTable[int](maxGrants),
		windows:    newTable[int](maxGrants),
		scripts:    make(map[string][]Trouble),
		calls:      make(map[string]int),
	}
	if s.now == nil {
		s.now = time.Now
	}
	for _, app := range o.Apps {
		s.secrets[app.AppID] = app.Secret
		s.targets[app.AppID] = app.Push
		s.credential[app.AppID] = new(credential)
	}
	s.mux.Handle("/sns/jscode2session", s.api(http.MethodGet, s.code2Session))
	s.mux.Handle("/cgi-bin/token", s.api(http.MethodGet, s.token))
	s.mux.Handle("/cgi-bin/stable_token", s.api(http.MethodPost, s.stableToken))
	s.mux.Handle("/wxa/checksession", s.api(http.MethodGet, s.checkSession))
	s.mux.Handle("/wxa/resetusersessionkey", s.api(http.MethodGet, s.resetSessionKey))
	s.mux.Handle("/wxa/business/getuserphonenumber", s.api(http.MethodPost, s.phoneNumber))
	s.mux.Handle("/wxa/msg_sec_check", s.api(http.MethodPost, s.msgSecCheck))
	s.mux.Handle("/wxa/media_check_async", s.api(http.MethodPost, s.mediaCheck))
	s.mux.Handle("/cgi-bin/message/subscribe/send", s.api(http.MethodPost, s.subscribeSend))
	s.mux.Handle("/cgi-bin/message/custom/send", s.api(http.MethodPost, s.customerSend))
	s.mux.Handle("POST /sim/login", rest.Handler(s.serveLogin))
	s.mux.Handle("POST /sim/phone", rest.Handler(s.servePhone))
	s.mux.Handle("POST /sim/opendata", rest.Handler(s.serveOpenData))
	s.mux.Handle("POST /sim/grant", rest.Handler(s.serveGrant))
	s.mux.Handle("POST /sim/write", rest.Handler(s.serveWrite))
	s.mux.Handle("GET /sim/messages", rest.Handler(s.serveMessages))
	s.mux.Handle("POST /sim/push", rest.Handler(s.servePush))
	s.mux.Handle("POST /sim/deliver", rest.Handler(s.serveDeliver))
	return s
}

// ServeHTTP answers WeChat's URLs and the simulator's own under /sim/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// api wraps one WeChat API: whatever happens, the answer is HTTP 200 with JSON
// labelled text/plain, as the real one sends it.
func (s *Server) api(method string, answer func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.scripted(w, r) || s.fault != nil && s.fault(w, r) {
			return
		}
		v, err := any(nil), error(nil)
		if r.Method == method {
			v, err = answer(r)
		} else if method == http.MethodGet {
			err = &apiError{43001, "require GET method"}
		} else {
			err = &apiError{43002, "require POST method"}
		}
		if e, ok := errors.AsType[*apiError](err); ok {
			v = s.failure(e)
		}
		w.Header().Set("Content-Type", "text/plain")
		_ = json.NewEncoder(w).Encode(v) // the caller may be gone, which is its own affair
	})
}

// apiError is a failure as WeChat reports it.
type apiError struct {
	code int
	msg  string
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s", e.code, e.msg) }

type failure struct {
	Code int    `json:"errcode"`
	Msg  string `json:"errmsg"`
}

// failure appends the request id that WeChat's support asks for.
func (s *Server) failure(e *apiError) failure {
	id := random(8)
	return failure{e.code, fmt.Sprintf("%s, rid: %08x-%s-%s", e.msg, s.now().Unix(), hex.EncodeToString(id[:4]), hex.EncodeToString(id[4:]))}
}

var success = failure{0, "ok"}

// readJSON reads a bounded JSON body; WeChat calls anything else 47001.
func readJSON(r *http.Request, v any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(body) > maxBody || json.Unmarshal(body, v) != nil {
		return &apiError{47001, "data format error"}
	}
	return nil
}

// checkApp checks the pair every credential API starts with.
func (s *Server) checkApp(appID, secret string) error {
	want, known := s.secrets[appID]
	switch {
	case appID == "":
		return &apiError{41002, "appid missing"}
	case secret == "":
		return &apiError{41004, "appsecret missing"}
	case !known:
		return &apiError{40013, "invalid appid"}
	case secret != want:
		return &apiError{40125, "invalid appsecret"}
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its contract
	return b
}

// randomText is n random characters of the alphabet WeChat uses.
func randomText(n int) string {
	return base64.RawURLEncoding.EncodeToString(random(n))[:n]
}
