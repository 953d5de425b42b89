package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
)

const (
	maxBlockReason = 200 // characters
	maxDevice      = 64  // characters
)

// Block keeps a user out.
type Block struct {
	Reason string    `json:"reason,omitempty"` // shown to the user
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until Unblock
}

// Fault is what the user is told whom the block keeps out: Forbidden
// `user_blocked`, with the reason and until when.
func (b *Block) Fault() error {
	var msg strings.Builder
	msg.WriteString("This user is blocked")
	if !b.Until.IsZero() {
		fmt.Fprintf(&msg, " until %s", b.Until.UTC().Format(time.RFC3339))
	}
	if b.Reason != "" {
		msg.WriteString(": " + b.Reason)
	}
	e := fault.New(fault.Forbidden, "user_blocked", msg.String()+".")
	if !b.Until.IsZero() {
		e = e.After(time.Until(b.Until))
	}
	return e
}

// decodeBlock reads what a store kept of a block, nil where there is none. One
// that is damaged still keeps the user out.
func decodeBlock(data []byte) *Block {
	if data == nil {
		return nil
	}
	var b Block
	if err := json.Unmarshal(data, &b); err != nil {
		slog.Error("the record of a block is damaged", "error", err)
		return &Block{}
	}
	return &b
}

var errBlockPast = fault.New(fault.Invalid, "until_past", "The time until which to block has passed already.")

// Block ends all sessions of a user on all nodes, as EndBlocked, and refuses
// their logins with 403 `user_blocked` until the given time; the zero time
// means until Unblock. It replaces a block that is there already, and returns
// how many sessions it ended. reason is shown to the user; what is not
// printable is taken out of it, and it is cut after 200 characters.
// Faults: Invalid `until_past`, `openid_invalid`; Unavailable `sessions_unavailable`.
func (s *Service) Block(ctx context.Context, openID, reason string, until time.Time) (int, error) {
	now := time.Now()
	if err := CheckOpenID(openID); err != nil {
		return 0, err
	}
	if !until.IsZero() && !until.After(now) {
		return 0, errBlockPast
	}
	ends, err := s.store.Block(ctx, openID, Block{Reason: Printable(reason, maxBlockReason), Since: now, Until: until})
	for _, end := range ends {
		s.ended(end)
	}
	if err != nil {
		s.forgetBlock(openID) // it may be in force all the same
		return len(ends), err
	}
	s.blockChanged(BlockChange{OpenID: openID, Blocked: true})
	return len(ends), nil
}

// Unblock lets a user log in again; one who is not blocked is no mistake.
// Faults: Invalid `openid_invalid`; Unavailable `sessions_unavailable`.
func (s *Service) Unblock(ctx context.Context, openID string) error {
	if err := CheckOpenID(openID); err != nil {
		return err
	}
	if err := s.store.Unblock(ctx, openID); err != nil {
		s.forgetBlock(openID)
		return err
	}
	s.blockChanged(BlockChange{OpenID: openID})
	return nil
}

// BlockChange tells that a user was blocked, or unblocked.
type BlockChange struct {
	OpenID  string `json:"openid"`
	Blocked bool   `json:"blocked"`
}

// OnBlock registers f, to be called on this node for every user whom Block or
// Unblock of any node names, also one without any session: connections may
// stand on something else than a session. After a Block it is called in no
// certain order with the functions of OnEnd. That a block expires is not told.
// Register before Run; f must not block.
func (s *Service) OnBlock(f func(BlockChange)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onBlock = append(s.onBlock, f)
}

// blockChanged makes this node act on a block or its end.
func (s *Service) blockChanged(c BlockChange) {
	s.forgetBlock(c.OpenID)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, f := range s.onBlock {
		f(c)
	}
}

// forgetBlock has the store asked next time, also by who joins a look that has
// begun.
func (s *Service) forgetBlock(openID string) {
	s.blockLooks.Load().Forget(openID)
	s.blocks.drop(openID)
}

// Blocked returns the block that keeps a user out, or nil. It is for who lets
// users in without a login of ours: Open and so Login ask the store
// themselves. The answer is remembered as that of Verify is, for
// session.verify_cache, and forgotten when a message comes that changes it; who
// registers a connection first, asks then and listens to OnBlock misses
// nothing. A name that no user of WeChat can have, and so cannot be blocked, is
// nobody's. Fault: Unavailable `sessions_unavailable`.
func (s *Service) Blocked(ctx context.Context, openID string) (*Block, error) {
	if CheckOpenID(openID) != nil {
		return nil, nil
	}
	if b, ok := s.blocks.get(openID, time.Now()); ok {
		return b, nil
	}
	v, err, _ := s.blockLooks.Load().Do(openID, func() (any, error) {
		// Shared, so the first caller hanging up must not spoil it.
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		mark := s.blocks.mark()
		b, err := s.store.Blocked(shared, openID)
		if err != nil {
			return nil, err
		}
		var end time.Time
		if b != nil {
			end = b.Until
		}
		s.blocks.put(openID, b, end, mark, time.Now())
		return b, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*Block), nil
}

// blockNow is Blocked, but asks the store, for operators.
// Faults: Invalid `openid_invalid`; Unavailable `sessions_unavailable`.
func (s *Service) blockNow(ctx context.Context, openID string) (*Block, error) {
	if err := CheckOpenID(openID); err != nil {
		return nil, err
	}
	return s.store.Blocked(ctx, openID)
}

var errOpenIDInvalid = fault.New(fault.Invalid, "openid_invalid", "An openid has 1 to 64 letters, digits, dashes or underscores.")

// CheckOpenID refuses what cannot be one. Fault: Invalid `openid_invalid`.
func CheckOpenID(openID string) error {
	if !wechat.IsID(openID) {
		return errOpenIDInvalid
	}
	return nil
}

// Printable is text that somebody else chose, fit for a console, a log and a
// terminal: no control characters, no broken UTF-8, at most limit characters.
func Printable(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	text = strings.TrimSpace(text)
	for i := range text {
		if limit--; limit < 0 {
			return strings.TrimSpace(text[:i])
		}
	}
	return text
}
