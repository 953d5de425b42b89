package transfer

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/wechat"
)

const (
	nameWeChat = "wechat"
	maxMedia   = 10_000_000 // bytes of a file that WeChat checks
	// verdictKept is how long a verdict waits for its file to be known here, and
	// how long after the end of its time a file still hears one.
	verdictKept = 24 * time.Hour
)

// mediaTypes are those of files that WeChat checks. Others it would fetch and
// then not judge.
var mediaTypes = map[wechat.MediaType][]string{
	wechat.MediaImage: {"image/jpeg", "image/png", "image/gif", "image/bmp", "image/webp"},
	wechat.MediaAudio: {"audio/mpeg", "audio/aac", "audio/wav", "audio/flac", "audio/ogg", "audio/amr", "audio/mp4", "audio/x-m4a"},
}

// wechatChecker has WeChat look at pictures and sound. It fetches them, and its
// verdict comes by push to any node: see [Service.TakeMediaVerdict].
//
// The link that it gets lives as long as its answer may take, and not a minute:
// nobody says when WeChat fetches. WeChat alone knows it, over https, and it
// ends with the file.
type wechatChecker struct {
	CheckSettings
	client func(appID string) *wechat.Client
	ledger Ledger
	link   func(f File, life time.Duration) string
}

func (c *wechatChecker) name() string { return nameWeChat }

func (c *wechatChecker) check(ctx context.Context, f File) (finding, error) {
	media, ok := mediaTypeOf(f.Type)
	client := c.client(f.Owner.AppID)
	if !ok || client == nil || f.Size > maxMedia || f.Size == 0 {
		return finding{outcome: unsuitable}, nil
	}
	asking, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	trace, err := client.CheckMedia(asking, wechat.Media{
		OpenID: f.Owner.OpenID, Scene: wechat.Scene(c.WeChat.Scene), Type: media, URL: c.link(f, c.WeChat.Answer),
	})
	if errors.Is(err, wechat.ErrInactive) || errors.Is(err, wechat.ErrOpenID) {
		if c.WeChat.Inactive == decidePass {
			return finding{outcome: passed}, nil
		}
		return finding{objected, "user_inactive"}, nil
	}
	if err != nil {
		return finding{}, err
	}
	// The verdict may be faster than this: then it is there when its trace is.
	app := auth.User{AppID: f.Owner.AppID}
	if _, err := c.ledger.Alias(ctx, app, traceAlias+trace, "", f.ID, now().Add(c.GiveUp+verdictKept)); err != nil {
		return finding{}, err
	}
	early, err := c.ledger.Alias(ctx, app, verdictAlias+trace, "", "", time.Time{})
	if err != nil || early == "" {
		return finding{outcome: later}, err
	}
	return c.parse(early), nil
}

func mediaTypeOf(media string) (wechat.MediaType, bool) {
	media, _, _ = strings.Cut(media, ";")
	for t, types := range mediaTypes {
		if slices.Contains(types, media) {
			return t, true
		}
	}
	return 0, false
}

// What the ledger knows of orders, as aliases of their mini-program, which no
// user has: traceAlias the file, verdictAlias the verdict that came before.
const (
	traceAlias   = "check "
	verdictAlias = "verdict "
)

// word is a verdict in one word, which parse reads again.
func word(p *wechat.Push) string {
	v, err := p.MediaVerdict()
	if err != nil {
		return string(failed) // WeChat could not fetch or judge it
	}
	return string(v.Suggest) + " " + strconv.Itoa(v.Label)
}

func (c *wechatChecker) parse(word string) finding {
	suggest, label, _ := strings.Cut(word, " ")
	switch wechat.Suggest(suggest) {
	case wechat.SuggestPass:
		return finding{outcome: passed}
	case wechat.SuggestRisky:
		return finding{objected, label}
	case wechat.SuggestReview:
		if c.WeChat.Review == decidePass {
			return finding{outcome: passed}
		}
		return finding{objected, label}
	}
	return finding{outcome: failed}
}

// TakeMediaVerdict hears what WeChat pushes as a verdict on a file, on whichever
// node. What was not asked from here is left to whoever did.
func (s *Service) TakeMediaVerdict(ctx context.Context, p *wechat.Push) error {
	c, ok := s.checks.named(nameWeChat).(*wechatChecker)
	if !ok || p.TraceID == "" {
		return nil
	}
	app, said := auth.User{AppID: p.AppID}, word(p)
	id, err := s.ledger.Alias(ctx, app, traceAlias+p.TraceID, "", "", time.Time{})
	if err == nil && id == "" {
		// Who asked may not have entered the trace yet, and then finds this.
		if _, err = s.ledger.Alias(ctx, app, verdictAlias+p.TraceID, "", said, now().Add(verdictKept)); err == nil {
			id, err = s.ledger.Alias(ctx, app, traceAlias+p.TraceID, "", "", time.Time{})
		}
	}
	if err != nil || id == "" {
		return err
	}
	found := c.parse(said)
	s.metrics.checked.WithLabelValues(nameWeChat, string(found.outcome)).Inc()
	next := time.Time{}
	if found.outcome == failed {
		next = now()
	}
	return s.conclude(ctx, id, findings{nameWeChat: found}, next)
}
