package auth

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/minigate/minigate/internal/fault"
)

const (
	maxCode = 256 // bytes of a login code; real ones have 32

	// simPrefix marks the codes of the simulator, which the real WeChat does
	// not know: they are refused here unless the simulator is behind us.
	simPrefix = "sim:"

	storeTimeout = 3 * time.Second // for a look into the store that several callers wait for
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
	// SealKey encrypts session_keys in the store. All nodes share it, and it
	// must survive restarts.
	SealKey [32]byte
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
	allowSim   bool
	apps       map[string]*wechatClient // by appid
	defaultApp string
	metrics    *Metrics

	limits  *loginLimits
	cache   *cache
	lookups singleflight.Group

	mu    sync.RWMutex
	onEnd []func(SessionEnd)
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
	sealer, err := newSealer(o.SealKey)
	if err != nil {
		return nil, err
	}
	s := &Service{
		settings:   o.Settings.Session,
		store:      o.Store,
		sealer:     sealer,
		allowSim:   o.AllowSim,
		apps:       make(map[string]*wechatClient),
		defaultApp: o.Settings.WeChat.Apps[0].AppID,
		metrics:    o.Metrics,
		limits:     newLoginLimits(o.Settings.Session),
		cache:      newCache(o.Settings.Session.VerifyCache),
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(prometheus.NewRegistry())
	}
	for _, app := range o.Settings.WeChat.Apps {
		transport := o.Transport
		if transport == nil {
			transport = newTransport()
		}
		s.apps[app.AppID] = &wechatClient{app, base, o.Settings.WeChat.Timeout, transport, s.metrics}
	}
	return s, nil
}

// newTransport keeps enough connections to WeChat for a rush of logins.
func newTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.IdleConnTimeout = 50 * time.Second
	return t
}

// Run does the background work of the service and its store until ctx ends.
// Login and Verify work without it, but what other nodes end is not heard of.
func (s *Service) Run(ctx context.Context) error {
	err := s.store.Run(ctx, s.forget)
	for _, app := range s.apps {
		if t, ok := app.transport.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
	}
	return err
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

// Login redeems a code of wx.login in the mini-program appID ("" means the
// first one configured) and makes a session. The token is shown only here.
//
// Faults: Invalid `code_missing`, `code_too_long`, `appid_unknown`;
// Unauthenticated `code_invalid`, `code_used`; Forbidden `blocked`; Limited
// `wechat_quota`; Internal `wechat_config`; Upstream `wechat_error`;
// Unavailable `wechat_unavailable`, `sessions_unavailable`.
func (s *Service) Login(ctx context.Context, appID, code string) (token string, ses *Session, err error) {
	result := "ok"
	if token, ses, err = s.login(ctx, appID, code); err != nil {
		result = fault.Of(err).Code
	}
	s.metrics.logins.WithLabelValues(result).Inc()
	return token, ses, err
}

func (s *Service) login(ctx context.Context, appID, code string) (string, *Session, error) {
	app, ok := s.apps[cmp.Or(appID, s.defaultApp)]
	switch {
	case !ok:
		return "", nil, errAppIDUnknown
	case code == "":
		return "", nil, errCodeMissing
	case len(code) > maxCode:
		return "", nil, errCodeTooLong
	case strings.HasPrefix(code, simPrefix) && !s.allowSim:
		return "", nil, errCodeInvalid
	}
	id, err := app.Code2Session(ctx, code)
	if err != nil {
		return "", nil, err
	}
	return s.open(ctx, User{AppID: app.app.AppID, OpenID: id.OpenID, UnionID: id.UnionID}, id.SessionKey)
}

// open makes a session for a user that WeChat vouched for.
func (s *Service) open(ctx context.Context, user User, sessionKey string) (string, *Session, error) {
	token, fp := newToken()
	now := time.Now()
	ses := Session{Fingerprint: fp, User: user, Created: now, Expires: now.Add(s.settings.TTL)}
	if err := s.store.Put(ctx, &Record{ses, s.sealer.seal(fp, sessionKey)}); err != nil {
		return "", nil, err
	}
	if err := s.replaceOldest(ctx, &ses); err != nil {
		slog.WarnContext(ctx, "a user has more sessions than allowed until the next login", "openid", user.OpenID, "error", err)
	}
	return token, &ses, nil
}

// replaceOldest ends the user's oldest sessions where there are too many. Two
// logins at the same moment may both be one too many until the next.
func (s *Service) replaceOldest(ctx context.Context, newest *Session) error {
	if s.settings.MaxPerUser == 0 {
		return nil
	}
	list, err := s.store.ListByUser(ctx, newest.User.OpenID)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(o *Session) bool { return o.Fingerprint == newest.Fingerprint })
	slices.SortFunc(list, func(a, b *Session) int { return b.Created.Compare(a.Created) })
	for _, old := range list[min(len(list), s.settings.MaxPerUser-1):] {
		if err := s.end(ctx, SessionEnd{old.Fingerprint, old.User, EndReplaced}); err != nil {
			return err
		}
	}
	return nil
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
	if ses := s.cache.get(fp, time.Now()); ses != nil {
		s.metrics.fromCache.Inc()
		return ses, nil
	}
	// The look is shared, so the first caller hanging up must not spoil it.
	v, err, _ := s.lookups.Do(string(fp[:]), func() (any, error) {
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
	r, err := s.store.Get(ctx, fp)
	if err != nil {
		return nil, err
	}
	ses := s.slide(ctx, r.Session)
	s.cache.put(&ses, mark, time.Now())
	return &ses, nil
}

// slide moves a session's expiry where that is worth a write: after a
// hundredth of its lifetime, though at most once a minute.
func (s *Service) slide(ctx context.Context, ses Session) Session {
	ttl := s.settings.TTL
	expires := time.Now().Add(ttl)
	if expires.Sub(ses.Expires) < min(max(ttl/100, time.Minute), ttl/10) {
		return ses
	}
	if err := s.store.Touch(ctx, &ses, expires); err != nil {
		slog.WarnContext(ctx, "a session in use was not extended", "openid", ses.User.OpenID, "error", err)
		return ses
	}
	ses.Expires = expires
	return ses
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

// Revoke ends all sessions of a user, on all nodes, and returns how many.
func (s *Service) Revoke(ctx context.Context, openID string) (int, error) {
	ends, err := s.store.DeleteByUser(ctx, openID, EndRevoked)
	for _, end := range ends {
		s.ended(end)
	}
	return len(ends), err
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
	s.cache.drop(end.Fingerprint)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, f := range s.onEnd {
		f(end)
	}
}
