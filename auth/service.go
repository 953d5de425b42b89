package auth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/jws"
	"github.com/minigate/minigate/internal/webhook"
)

const (
	maxCode = 256 // bytes of a login code; real ones have 32

	// simPrefix marks the codes of the simulator, which the real WeChat does
	// not know: they are refused here unless the simulator is behind us.
	simPrefix = "sim:"

	storeTimeout = 3 * time.Second // for what several callers wait for, or nobody
)

var (
	errCodeMissing  = fault.New(fault.Invalid, "code_missing", "The field code is missing: it takes the code of wx.login.")
	errCodeTooLong  = fault.Newf(fault.Invalid, "code_too_long", "A login code may have at most %d bytes.", maxCode)
	errAppIDUnknown = fault.New(fault.Invalid, "appid_unknown", "This server does not serve a mini-program with that appid.")
)

// Options are what a Service is made of.
type Options struct {
	Settings Settings
	Store    Store
	// SealKeys encrypt session_keys in the store: the first one seals, all of
	// them open. All nodes share them, and they must survive restarts.
	SealKeys [][32]byte
	// TicketKeys sign tickets, the first one; all of them verify. All nodes
	// share them. Without any, tickets last as long as this process.
	TicketKeys []TicketKey
	// Signer signs what phones carry to the backend; nil makes a key that
	// lasts as long as this process.
	Signer *jws.Signer
	// ForwardPush, where set, takes what WeChat pushes to the backend. It has
	// four seconds; after an error WeChat pushes the same again.
	ForwardPush func(ctx context.Context, p *wechat.Push) error
	// ForwardData, where set, takes what phones had opened, to the backend. It
	// must only queue it.
	ForwardData func(ctx context.Context, v Vouched) error
	// Webhooks calls the backend; needed where a login webhook is configured.
	Webhooks *webhook.Client
	// AllowSim lets "sim:NAME" codes through to WeChat, for development
	// against the simulator only.
	AllowSim bool
	// Metrics may be nil, which counts for nobody.
	Metrics *Metrics
	// Transport carries calls to WeChat; nil makes one per mini-program.
	Transport http.RoundTripper
}

// Service logs users in and knows who they are. It is safe for concurrent use.
type Service struct {
	settings   SessionSettings
	store      Store
	sealer     sealer
	tickets    ticketKeys
	allowSim   bool
	apps       map[string]*wechat.Client // by appid
	opener     opener
	pushes     pushes
	defaultApp string
	loginHook  *loginHook // nil asks nobody
	metrics    *Metrics

	limits      *loginLimits
	appLimits   map[string]*rate.Limiter // by appid
	alerts      *alerts
	cache       *cache[Fingerprint, *Session]
	lookups     atomic.Pointer[singleflight.Group]
	touched     *touched
	blocks      *cache[string, *Block] // nil values for users who are not blocked
	blockLooks  atomic.Pointer[singleflight.Group]
	forwardData func(context.Context, Vouched) error // nil: nobody wants to know
	redemptions singleflight.Group

	mu      sync.RWMutex
	onEnd   []func(SessionEnd)
	onBlock []func(BlockChange)

	onResume []func()
}

// New makes a Service out of settings that passed their Check.
func New(o Options) (*Service, error) {
	base, err := url.Parse(o.Settings.WeChat.BaseURL)
	if err != nil {
		return nil, err
	}
	if len(o.Settings.WeChat.Apps) == 0 {
		return nil, errors.New("auth needs at least one mini-program")
	}
	sealer, err := newSealer(o.SealKeys)
	if err != nil {
		return nil, err
	}
	tickets, err := newTicketKeys(o.TicketKeys)
	if err != nil {
		return nil, err
	}
	s := &Service{
		forwardData: o.ForwardData,
		settings:    o.Settings.Session,
		store:       o.Store,
		sealer:      sealer,
		tickets:     tickets,
		allowSim:    o.AllowSim,
		apps:        make(map[string]*wechat.Client),
		appLimits:   make(map[string]*rate.Limiter),
		defaultApp:  o.Settings.WeChat.Apps[0].AppID,
		metrics:     o.Metrics,
		limits:      newLoginLimits(o.Settings.Session),
		cache:       newSessionCache(o.Settings.Session.VerifyCache),
		touched:     newTouched(),
		blocks:      newCache[string, *Block](o.Settings.Session.VerifyCache, maxBlocksCached, 0, nil),
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(prometheus.NewRegistry())
	}
	s.lookups.Store(new(singleflight.Group))
	s.blockLooks.Store(new(singleflight.Group))
	s.alerts = newAlerts(s.metrics)
	if s.loginHook, err = newLoginHook(o.Settings.Session.LoginWebhook, o.Webhooks, s.metrics); err != nil {
		return nil, err
	}
	for _, app := range o.Settings.WeChat.Apps {
		transport := o.Transport
		if transport == nil {
			transport = newTransport()
		}
		s.appLimits[app.AppID] = newAppLimiter(o.Settings.Session)
		s.apps[app.AppID] = s.newClient(app, base, o.Settings.WeChat.Timeout, transport)
	}
	if s.opener, err = newOpener(o); err != nil {
		return nil, err
	}
	s.pushes, err = newPushes(o)
	return s, err
}

// newTransport keeps enough connections to WeChat for a rush of logins.
func newTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.IdleConnTimeout = 50 * time.Second
	return t
}

// Run does the background work of the service and its store until ctx ends.
// Login and Verify work without it, but what other nodes end is not heard of,
// and sessions are extended only shortly before they end.
func (s *Service) Run(ctx context.Context) error {
	until, stop := context.WithCancel(ctx)
	var jobs sync.WaitGroup
	jobs.Go(func() { s.ageCaches(until) })
	jobs.Go(func() { s.writeTouched(until) })
	defer jobs.Wait()
	defer stop()
	err := s.store.Run(ctx, Hear{Ended: s.forget, Blocked: s.blockChanged, Resumed: s.resumed})
	for _, app := range s.apps {
		app.CloseIdleConnections()
	}
	return err
}

// ageCaches lets go of what is remembered for longer than it is used, until ctx
// ends: on a node where nothing happens any more it would be kept for ever.
func (s *Service) ageCaches(ctx context.Context) {
	t := time.NewTicker(max(time.Second, s.settings.VerifyCache))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.cache.age()
			s.blocks.age()
		}
	}
}

// Unburden lets go of all that Verify, Alive and Blocked remember. The next
// calls ask the store.
func (s *Service) Unburden() {
	s.cache.clear()
	s.blocks.clear()
}

// Ping tells whether sessions can be looked up now.
func (s *Service) Ping(ctx context.Context) error { return s.store.Ping(ctx) }

// OnEnd registers f, to be called on this node for every session that is
// ended on any node before it expires. Register before Run; f must not block.
func (s *Service) OnEnd(f func(SessionEnd)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onEnd = append(s.onEnd, f)
}

// OnResume registers f, to be called on this node whenever it begins to hear
// of what other nodes do, for the first time or again. What OnEnd and OnBlock
// should have told before may be lost, so whoever relies on it asks Alive,
// Verify or Blocked anew: from now on they do not answer from before. Register
// before Run; f must not block.
func (s *Service) OnResume(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onResume = append(s.onResume, f)
}

// resumed makes this node doubt all that it remembers.
func (s *Service) resumed() {
	s.lookups.Store(new(singleflight.Group)) // nobody joins a look begun before
	s.blockLooks.Store(new(singleflight.Group))
	s.Unburden()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, f := range s.onResume {
		f()
	}
}

// Verify returns the session that token belongs to, and keeps it alive.
// Faults: Unauthenticated `token_invalid` where no token looks like this,
// `token_expired` where the session is unknown, expired or ended; Unavailable
// `sessions_unavailable`.
func (s *Service) Verify(ctx context.Context, token string) (*Session, error) {
	fp, ok := parseToken(token)
	if !ok {
		return nil, errTokenInvalid
	}
	return s.Alive(ctx, fp)
}

// Alive is [Service.Verify] for who has verified the token before and kept
// only its fingerprint.
func (s *Service) Alive(ctx context.Context, fp Fingerprint) (*Session, error) {
	if ses, ok := s.cache.get(fp, time.Now()); ok {
		s.metrics.fromCache.Inc()
		return ses, nil
	}
	// The look is shared, so the first caller hanging up must not spoil it.
	v, err, _ := s.lookups.Load().Do(string(fp[:]), func() (any, error) {
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		return s.lookUp(shared, fp)
	})
	if err != nil {
		return nil, err
	}
	s.metrics.fromStore.Inc()
	return v.(*Session), nil
}

func (s *Service) lookUp(ctx context.Context, fp Fingerprint) (*Session, error) {
	mark := s.cache.mark()
	ses, err := s.store.Get(ctx, fp)
	if err != nil {
		return nil, err
	}
	if app := s.apps[ses.User.AppID]; app != nil { // very many sessions share the text
		ses.User.AppID = app.AppID()
	}
	if s.settings.MaxAge > 0 { // the setting may be shorter than it was
		ses.Expires = earlier(ses.Expires, ses.Created.Add(s.settings.MaxAge))
	}
	if !time.Now().Before(ses.Expires) {
		return nil, ErrNoSession
	}
	ses = s.slide(ctx, ses)
	s.cache.put(fp, ses, ses.Expires, mark, time.Now())
	return ses, nil
}

// expiry is when a session ends that is used now.
func (s *Service) expiry(created, now time.Time) time.Time {
	expires := now.Add(s.settings.TTL)
	if s.settings.MaxAge > 0 {
		expires = earlier(expires, created.Add(s.settings.MaxAge))
	}
	return expires
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Logout ends the session that token belongs to, on all nodes. Faults: as of
// Verify, except that a session which ended before is no mistake.
func (s *Service) Logout(ctx context.Context, token string) error {
	fp, ok := parseToken(token)
	if !ok {
		return errTokenInvalid
	}
	r, err := s.store.Get(ctx, fp)
	if errors.Is(err, ErrNoSession) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.end(ctx, SessionEnd{fp, r.User, EndLogout})
}

func (s *Service) end(ctx context.Context, end SessionEnd) error {
	if err := s.store.Delete(ctx, end); err != nil {
		return err
	}
	s.ended(end)
	return nil
}

// ended is for sessions that this node ended.
func (s *Service) ended(end SessionEnd) {
	s.metrics.ended.WithLabelValues(string(end.Reason)).Inc()
	s.forget(end)
}

// forget makes this node act on the end of a session.
func (s *Service) forget(end SessionEnd) {
	// A look begun before the session ended must not answer who asks from now on.
	s.lookups.Load().Forget(string(end.Fingerprint[:]))
	s.cache.drop(end.Fingerprint)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, f := range s.onEnd {
		f(end)
	}
}
