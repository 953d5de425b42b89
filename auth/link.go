package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// A link lets anybody who has it read one file until it expires. Unlike a
// ticket it stands for no login: the business backend makes it, and it ends
// with its time, its key or its file.
//
// It is "mgl_", the id of the key that signed it, a dot, and in unpadded
// URL-safe base64:
//
//	1 byte    version, 1
//	8 bytes   expiry, Unix seconds, big endian
//	32 bytes  HMAC-SHA256 (RFC 2104) over the above, the key's id and the file's id
//
// The file's id is not in there: it stands in the URL's path. A later version
// may carry more in front of its MAC, such as a user or a number of downloads;
// links of this one stay good.
//
// The keys are derived from those of tickets (HKDF-SHA256, RFC 5869), so that
// neither MAC can pass for the other.
const (
	linkPrefix  = "mgl_"
	linkVersion = 1
	linkSigned  = 1 + 8
	linkSize    = linkSigned + sha256.Size
	linkLength  = (linkSize*8 + 5) / 6 // in base64
	linkKeyInfo = "minigate file links"
)

var (
	errLinkInvalid = fault.New(fault.Forbidden, "link_invalid", "This link is not good for this file.")
	errLinkExpired = fault.New(fault.Forbidden, "link_expired", "This link has expired.")
)

// Link is what a link that was verified allows.
type Link struct {
	File    string // id
	Expires time.Time
}

// linkKey derives the key that signs links from one that signs tickets.
func linkKey(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, linkKeyInfo, sha256.Size)
}

// linkMAC binds what a link says to a file. The first has a fixed length and the
// key's id its own in front, so that no two inputs run together to the same bytes.
func linkMAC(key []byte, keyID string, signed []byte, file string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(signed)
	mac.Write([]byte{byte(len(keyID))})
	mac.Write([]byte(keyID))
	mac.Write([]byte(file))
	return mac.Sum(nil)
}

func (k ticketKeys) signLink(l Link) string {
	raw := make([]byte, 0, linkSize)
	raw = append(raw, linkVersion)
	raw = binary.BigEndian.AppendUint64(raw, uint64(l.Expires.Unix()))
	raw = append(raw, linkMAC(k.links[k.newest], k.newest, raw, l.File)...)
	return linkPrefix + k.newest + "." + strict.EncodeToString(raw)
}

// openLink reads a link to file, of which nothing is believed before its MAC
// is right.
func (k ticketKeys) openLink(text, file string) (l Link, ok bool) {
	if len(text) > len(linkPrefix)+maxTicketKey+1+linkLength {
		return l, false
	}
	text, ok = strings.CutPrefix(text, linkPrefix)
	keyID, body, dot := strings.Cut(text, ".")
	key := k.links[keyID]
	if !ok || !dot || key == nil || len(body) != linkLength {
		return l, false
	}
	raw, err := strict.DecodeString(body)
	if err != nil || len(raw) != linkSize || raw[0] != linkVersion { // DecodeString skips line breaks
		return l, false
	}
	signed, mac := raw[:linkSigned], raw[linkSigned:]
	if !hmac.Equal(mac, linkMAC(key, keyID, signed, file)) {
		return l, false
	}
	return Link{file, time.Unix(int64(binary.BigEndian.Uint64(signed[1:])), 0)}, true
}

// SignLink makes a link to a file. The same file and time give the same link,
// so that caches know it again.
func (s *Service) SignLink(file string, expires time.Time) string {
	return s.tickets.signLink(Link{file, expires})
}

// VerifyLink tells whether text is a link to file that still works. Faults:
// Forbidden `link_invalid` where it is malformed, not signed by us or for
// another file, `link_expired`.
func (s *Service) VerifyLink(text, file string) (Link, error) {
	l, ok := s.tickets.openLink(text, file)
	var err error
	switch {
	case !ok:
		err = errLinkInvalid
	case !time.Now().Before(l.Expires):
		err = errLinkExpired
	}
	result := "ok"
	if err != nil {
		result = fault.Of(err).Code
	}
	s.metrics.linksVerified.WithLabelValues(result).Inc()
	return l, err
}

type linkInContext struct{}

// WithLink puts a verified link into a request's context.
func WithLink(ctx context.Context, l Link) context.Context {
	return context.WithValue(ctx, linkInContext{}, l)
}

// LinkFrom returns the verified link that a request came with.
func LinkFrom(ctx context.Context) (Link, bool) {
	l, ok := ctx.Value(linkInContext{}).(Link)
	return l, ok
}

// RequireLinkOr takes "?link=" for the file that fileOf names, whoever sends
// it: a link that is there decides alone. Requests without one go to
// otherwise.
func (s *Service) RequireLinkOr(fileOf func(r *http.Request) string, next, otherwise rest.Handler) rest.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !strings.Contains(r.URL.RawQuery, "link=") {
			return otherwise(w, r)
		}
		links, given := r.URL.Query()["link"]
		if !given {
			return otherwise(w, r)
		}
		// Pages that what we answer leads to must not learn our URL.
		w.Header().Set("Referrer-Policy", "no-referrer")
		if len(links) != 1 {
			return errLinkInvalid
		}
		l, err := s.VerifyLink(links[0], fileOf(r))
		if err != nil {
			return err
		}
		return next(w, r.WithContext(WithLink(r.Context(), l)))
	}
}
