package web

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/audit"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	cookieName   = "minigate_console"
	visitFor     = 12 * time.Hour
	maxVisitors  = 100
	signInsPerS  = 2 // attempts, over all operators: a key cannot be guessed
	signInsBurst = 10
)

// visitor is an operator who signed in.
type visitor struct {
	name   string
	scope  string
	caller apikey.Caller
	until  time.Time // zero: the key came with the request
}

// visitors remembers who signed in, by the hash of their cookie. They are
// forgotten when the process ends.
type visitors struct {
	limit *rate.Limiter
	mu    sync.Mutex
	byID  map[[sha256.Size]byte]visitor
}

func newVisitors() *visitors {
	return &visitors{limit: rate.NewLimiter(signInsPerS, signInsBurst), byID: map[[sha256.Size]byte]visitor{}}
}

func (v *visitors) add(who visitor, now time.Time) (cookie string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var oldest [sha256.Size]byte
	for id, other := range v.byID {
		if now.After(other.until) {
			delete(v.byID, id)
		} else if first, ok := v.byID[oldest]; !ok || other.until.Before(first.until) {
			oldest = id
		}
	}
	if len(v.byID) >= maxVisitors {
		delete(v.byID, oldest)
	}
	cookie = rand.Text()
	v.byID[sha256.Sum256([]byte(cookie))] = who
	return cookie
}

func (v *visitors) find(r *http.Request) (visitor, bool) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return visitor{}, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	who, ok := v.byID[sha256.Sum256([]byte(cookie.Value))]
	return who, ok && time.Now().Before(who.until) && who.caller.Present() // the key may have been taken back
}

func (v *visitors) remove(r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.byID, sha256.Sum256([]byte(cookie.Value)))
	}
}

// operator says who makes a request: a signed-in visitor or the holder of an
// API key.
func (c *Console) operator(r *http.Request) (visitor, bool) {
	if c.o.Open {
		return visitor{name: "dev", scope: apikey.Admin}, true
	}
	if who, ok := c.visitors.find(r); ok {
		return who, true
	}
	caller, ok := c.o.Keys.Authenticate(r)
	return visitor{name: caller.Name(), scope: caller.Scope(), caller: caller}, ok
}

func (c *Console) allowed(r *http.Request) bool {
	_, ok := c.operator(r)
	return ok
}

// RequireAdmin guards what can hurt: it asks for a key of scope admin, or for
// an operator who signed in with one.
func (c *Console) RequireAdmin(next http.Handler) http.Handler { return c.require(apikey.Admin, next) }

func (c *Console) require(need string, next http.Handler) http.Handler {
	return rest.Handler(func(w http.ResponseWriter, r *http.Request) error {
		who, ok := c.operator(r)
		if !ok {
			return fault.New(fault.Unauthenticated, "sign_in", "Sign in to the console, or send an API key.")
		}
		if !apikey.Allows(who.scope, need) {
			return fault.Newf(fault.Forbidden, "scope_too_small", "This needs a key of scope %s.", need)
		}
		if who.until.IsZero() && !c.o.Open {
			if err := who.caller.Take(); err != nil {
				return err
			}
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// change is what an operator of scope admin may change, and is audited.
func (c *Console) change(method string, next rest.Handler) http.Handler {
	name := func(r *http.Request) string {
		who, _ := c.operator(r)
		return who.name
	}
	return c.require(apikey.Admin, audit.Handler("console/"+method, name, next))
}

type sessionAnswer struct {
	SignedIn bool   `json:"signed_in"`
	Open     bool   `json:"open"` // nobody has to sign in here
	Name     string `json:"name,omitempty"`
	Scope    string `json:"scope,omitempty"`
	Version  string `json:"version,omitempty"`
}

// serveSession tells the page whether to show the sign-in form.
func (c *Console) serveSession(w http.ResponseWriter, r *http.Request) error {
	who, ok := c.operator(r)
	answer := sessionAnswer{SignedIn: ok, Open: c.o.Open, Name: who.name, Scope: who.scope}
	if ok {
		answer.Version = c.o.Version
	}
	return rest.JSON(w, http.StatusOK, answer)
}

type signInRequest struct {
	Key string `json:"key"`
}

func (c *Console) serveSignIn(w http.ResponseWriter, r *http.Request) error {
	if !c.visitors.limit.Allow() {
		return fault.New(fault.Limited, "too_many_attempts", "Too many attempts to sign in.").After(5 * time.Second)
	}
	var req signInRequest
	if err := rest.Decode(w, r, 4<<10, &req); err != nil {
		return err
	}
	caller, ok := c.o.Keys.Find(req.Key)
	if !ok {
		return fault.New(fault.Unauthenticated, "key_unknown", "No such key.")
	}
	now := time.Now()
	cookie := c.visitors.add(visitor{caller.Name(), caller.Scope(), caller, now.Add(visitFor)}, now)
	// SameSite=Strict keeps other sites from acting in an operator's name.
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: cookie, Path: "/", MaxAge: int(visitFor.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	return rest.JSON(w, http.StatusOK, sessionAnswer{SignedIn: true, Name: caller.Name(), Scope: caller.Scope(), Version: c.o.Version})
}

func (c *Console) serveSignOut(w http.ResponseWriter, r *http.Request) error {
	c.visitors.remove(r)
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.WriteHeader(http.StatusNoContent)
	return nil
}
