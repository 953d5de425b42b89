package auth

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

const (
	maxSessionKeys = 3              // of one user, newest first
	sessionKeyLife = 72 * time.Hour // how long after its login a session_key may still be tried

	endedKeyLife = 10 * time.Minute // how long a key that was replaced is refused: longer than any login takes
	maxEndedKeys = 16               // of one user, latest first
)

// SealedKey is a session_key as stores keep it.
type SealedKey struct {
	// Tag is the same for the same key of the same user: WeChat hands out one
	// key at several logins, and it must not push others out of the ring.
	Tag    [8]byte
	Issued time.Time // in milliseconds
	Sealed []byte
}

// sessionKeys returns the user's latest session_keys in base64, newest first:
// at most three, none older than 72 hours, often none at all. WeChat has one
// valid key per user, but data encrypted before a login may arrive after it.
// Fault: Unavailable `sessions_unavailable`.
func (s *Service) sessionKeys(ctx context.Context, user User) ([]string, error) {
	ring, err := s.store.Keys(ctx, user.OpenID)
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(ring))
	for _, k := range ring {
		if time.Since(k.Issued) > sessionKeyLife {
			continue
		}
		key, err := s.sealer.open(keyringContext(user), k.Sealed)
		if err != nil { // its sealing key is no longer configured, or it was tampered with
			slog.WarnContext(ctx, "a stored session_key is skipped", "openid", user.OpenID, "error", err)
			continue
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// sealSessionKey makes the entry of the keyring for a key that WeChat issued now.
func (s *Service) sealSessionKey(user User, sessionKey string) SealedKey {
	where := keyringContext(user)
	return SealedKey{Tag: s.sealer.tag(where, sessionKey), Issued: time.Now(), Sealed: s.sealer.seal(where, sessionKey)}
}

// keyringContext is what a user's sealed keys are bound to. Neither id can
// contain a NUL.
func keyringContext(user User) string {
	return "session_key\x00" + user.AppID + "\x00" + user.OpenID
}

// endKeys puts the tags of a ring that k replaces in front of those that ended
// before; k itself lives.
func endKeys(ended [][8]byte, ring []SealedKey, k SealedKey) [][8]byte {
	next := make([][8]byte, 0, len(ring)+len(ended))
	for _, old := range ring {
		next = append(next, old.Tag)
	}
	next = slices.DeleteFunc(append(next, ended...), func(tag [8]byte) bool { return tag == k.Tag })
	return next[:min(len(next), maxEndedKeys)]
}

// addKey puts k in front of the ring and drops what is too many, too old or
// the same key again.
func addKey(ring []SealedKey, k SealedKey) []SealedKey {
	next := []SealedKey{k}
	for _, old := range ring {
		if len(next) < maxSessionKeys && old.Tag != k.Tag && k.Issued.Sub(old.Issued) < sessionKeyLife {
			next = append(next, old)
		}
	}
	return next
}
