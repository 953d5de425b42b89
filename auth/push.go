package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
)

const (
	// maxPush is for a request body, in bytes. What WeChat pushes has one or two
	// KiB; JSON may take six bytes for one of them, and so much still fits into
	// a webhook's body of 512 KiB.
	maxPush    = 64 << 10
	pushWindow = 5 * time.Minute
	// pushMemory is how long a push is remembered: the window, for a clock that
	// is wrong in either direction.
	pushMemory = 2 * pushWindow
	// pushClaim is how long a node has to deliver what it took.
	pushClaim = 5 * time.Second
	// pushTimeout is less than the five seconds after which WeChat gives up
	// and sends the same again, so that the two never overlap.
	pushTimeout = 4 * time.Second
)

var (
	errPushOff     = fault.New(fault.NotFound, "not_found", "There is nothing at this path.")
	errPushInvalid = fault.New(fault.Forbidden, "push_invalid", "This is not a message that WeChat sent here now.")
	errPushFailed  = fault.New(fault.Unavailable, "push_failed", "The message could not be passed on: send it again.")
)

// pushes are what WeChat sends to its mini-programs' servers.
type pushes struct {
	apps    map[string]*pushApp // by appid, where it is on
	forward func(ctx context.Context, p *wechat.Push) error

	mu     *sync.RWMutex
	onPush map[string][]func(ctx context.Context, p *wechat.Push) error // by event
}

type pushApp struct {
	appID      string
	keys       *wechat.PushKeys
	allowPlain bool
}

func newPushes(o Options) (pushes, error) {
	p := pushes{
		apps: make(map[string]*pushApp), forward: o.ForwardPush, mu: new(sync.RWMutex),
		onPush: make(map[string][]func(context.Context, *wechat.Push) error),
	}
	for _, app := range o.Settings.WeChat.Apps {
		if !app.Push.on() {
			continue
		}
		keys, err := app.Push.keys(app.AppID)
		if err != nil {
			return p, fmt.Errorf("push of %s: %w", app.AppID, err)
		}
		p.apps[app.AppID] = &pushApp{app.AppID, keys, app.Push.AllowPlain}
	}
	return p, nil
}

// OnPush registers f for an event that WeChat pushes, such as
// [wechat.EventMediaCheck]. Register before requests come in. f has four
// seconds; after an error WeChat is asked to push the same again, up to three
// times, and everybody registered hears it again. Otherwise each message comes
// once, on one node.
func (s *Service) OnPush(event string, f func(ctx context.Context, p *wechat.Push) error) {
	s.pushes.mu.Lock()
	defer s.pushes.mu.Unlock()
	s.pushes.onPush[event] = append(s.pushes.onPush[event], f)
}

// pushQuery is what WeChat puts into the URL.
type pushQuery struct {
	signature, msgSignature string
	timestamp, nonce        string
}

// recent tells whether the request was made just now.
func (q pushQuery) recent(now time.Time) bool {
	seconds, err := strconv.ParseInt(q.timestamp, 10, 64)
	return err == nil && len(q.timestamp) <= 12 && now.Sub(time.Unix(seconds, 0)).Abs() <= pushWindow
}

// open finds out whether a request is WeChat's and what it says. replay names
// the request: its like will not be taken again.
func (a *pushApp) open(ctx context.Context, q pushQuery, body []byte) (p *wechat.Push, replay string, err error) {
	if !q.recent(time.Now()) || q.nonce == "" || len(q.nonce) > 64 {
		return nil, "", errPushInvalid
	}
	encrypted, err := wechat.Envelope(body)
	if err != nil {
		return nil, "", errPushInvalid.Because(err)
	}
	if encrypted == "" {
		return a.openPlain(ctx, q, body)
	}
	if !a.keys.Signed(q.msgSignature, q.timestamp, q.nonce, encrypted) {
		return nil, "", errPushInvalid
	}
	message, err := a.keys.Open(encrypted)
	if err == nil {
		p, err = wechat.ParsePush(a.appID, message)
	}
	if err != nil {
		// It is signed, so somebody set something up wrongly.
		slog.WarnContext(ctx, "a message from wechat is refused", "appid", a.appID, "error", err)
		return nil, "", errPushInvalid.Because(err)
	}
	return p, q.msgSignature, nil
}

// openPlain takes a message that is not encrypted, where that is allowed.
func (a *pushApp) openPlain(ctx context.Context, q pushQuery, body []byte) (p *wechat.Push, replay string, err error) {
	if !a.keys.Signed(q.signature, q.timestamp, q.nonce) {
		return nil, "", errPushInvalid
	}
	if !a.allowPlain {
		slog.WarnContext(ctx, "wechat pushes in plain text: choose the safe mode at mp.weixin.qq.com", "appid", a.appID)
		return nil, "", errPushInvalid
	}
	if p, err = wechat.ParsePush(a.appID, body); err != nil {
		return nil, "", errPushInvalid.Because(err)
	}
	return p, q.signature, nil
}

// takePush passes a message on, unless that has happened before, here or on
// another node.
func (s *Service) takePush(ctx context.Context, p *wechat.Push, replay string) (duplicate bool, err error) {
	names := []string{pushName(p.AppID, "sent", replay), pushName(p.AppID, "is", identityOf(p))}
	for i, name := range names {
		taken, first, err := s.store.Claim(ctx, name, pushClaim)
		if err == nil && first {
			continue
		}
		if err == nil && len(taken) > 0 {
			return true, nil
		}
		// The store is away, or somebody is about to deliver it and may yet
		// fail: WeChat sends it again.
		s.forgetPush(ctx, names[:i])
		if err == nil {
			err = errPushFailed
		}
		return false, err
	}
	if err := s.deliver(ctx, p); err != nil {
		s.forgetPush(ctx, names)
		return false, errPushFailed.Because(err)
	}
	s.rememberPush(ctx, names)
	return false, nil
}

// rememberPush makes what was delivered known to all nodes. Where that fails,
// the message may be passed on twice, never lost.
func (s *Service) rememberPush(ctx context.Context, names []string) {
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	for _, name := range names {
		if err := s.store.Settle(after, name, []byte{1}, pushMemory); err != nil {
			slog.WarnContext(ctx, "a message from wechat may be passed on twice", "error", err)
		}
	}
}

func (s *Service) deliver(ctx context.Context, p *wechat.Push) error {
	s.pushes.mu.RLock()
	registered := s.pushes.onPush[p.Event]
	s.pushes.mu.RUnlock()
	for _, f := range registered {
		if err := f(ctx, p); err != nil {
			return err
		}
	}
	if s.pushes.forward == nil {
		return nil
	}
	return s.pushes.forward(ctx, p)
}

// forgetPush lets WeChat send a message again that nobody got.
func (s *Service) forgetPush(ctx context.Context, names []string) {
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	for _, name := range names {
		if err := s.store.Release(after, name); err != nil {
			slog.WarnContext(ctx, "a message from wechat is lost", "error", err)
		}
	}
}

// identityOf is what WeChat's documents say makes a message the same: its id,
// or for events the trace id, or user, time and event. Of the latter there can
// be several in one second, for one user, that say different things; what
// WeChat sends again says the same, so the text itself belongs to it.
func identityOf(p *wechat.Push) string {
	switch {
	case p.ID != "":
		return "id\x00" + p.ID
	case p.TraceID != "":
		return "trace\x00" + p.TraceID + "\x00" + p.Event
	}
	return fmt.Sprintf("event\x00%s\x00%d\x00%s\x00%x", p.From, p.Created.Unix(), p.Event, sha256.Sum256(p.Message))
}

// pushName is short whatever WeChat sends.
func pushName(appID, what, text string) string {
	sum := sha256.Sum256([]byte(text))
	return "push/" + appID + "/" + what + "/" + hex.EncodeToString(sum[:16])
}
