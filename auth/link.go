package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// A link lets anybody who has it read one file until it expires. Unlike a
// ticket it stands for no login: it ends with its time, its key or its file.
// It may stand for what one user may read, and be good for a number of
// downloads.
//
// It is "mgl_", the id of the key that signed it, a dot, and in unpadded
// URL-safe base64:
//
//	1 byte    version: 1; 2 where it has a user or a number of downloads; 3 for
//	          one that is good before the file was checked
//	8 bytes   expiry, Unix seconds, big endian
//	versions 2 and 3 only:
//	4 bytes   downloads it is good for, big endian; 0 is any number
//	8 bytes   random, by which they are counted; zeros for any number
//	1 byte    length of the user's appid, then that; 0 for no user
//	1 byte    length of the openid, then that
//	32 bytes  HMAC-SHA256 (RFC 2104) over the above, the key's id and the file's id
//
// The file's id is not in there: it stands in the URL's path.
//
// The keys are derived from those of tickets (HKDF-SHA256, RFC 5869), so that
// neither MAC can pass for the other.
const (
	linkPrefix   = "mgl_"
	linkPlain    = 1 // versions
	linkDetailed = 2
	linkEarly    = 3
	linkSigned   = 1 + 8
	linkDetails  = 4 + 8
	maxLinkUser  = 128 // bytes of an appid or openid
	linkKeyInfo  = "minigate file links"

	// MaxLinkDownloads is the largest number of downloads that can be asked for.
	MaxLinkDownloads = 1_000_000
)

// maxLinkLength is how long a link is at most, in base64.
var maxLinkLength = strict.EncodedLen(linkSigned + linkDetails + 2*(1+maxLinkUser) + sha256.Size)

var (
	errLinkInvalid = fault.New(fault.Forbidden, "link_invalid", "This link is not good for this file.")
	errLinkExpired = fault.New(fault.Forbidden, "link_expired", "This link has expired.")
)

// Link is what a link that was verified allows.
type Link struct {
	File    string // id
	Expires time.Time

	// User, where its OpenID is not empty, is whose right to read the link
	// stands for; it has no UnionID. Other links stand for themselves.
	User User
	// Downloads is how many the link is good for, 0 for any number.
	Downloads int
	// Count tells links with Downloads apart. SignLink makes it up.
	Count uint64
	// Unchecked tells that the link is good before the file has passed its
	// checks: it is for those who check.
	Unchecked bool
}

// linkKey derives the key that signs links from one that signs tickets.
func linkKey(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, linkKeyInfo, sha256.Size)
}

// linkMAC binds what a link says to a file. The first says how long it is and the
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
	raw := l.encode()
	raw = append(raw, linkMAC(k.links[k.newest], k.newest, raw, l.File)...)
	return linkPrefix + k.newest + "." + strict.EncodeToString(raw)
}

// encode returns what a link says, without its file.
func (l Link) encode() []byte {
	version := byte(linkPlain)
	if l.User.OpenID != "" || l.Downloads > 0 {
		version = linkDetailed
	}
	if l.Unchecked {
		version = linkEarly
	}
	raw := binary.BigEndian.AppendUint64([]byte{version}, uint64(l.Expires.Unix()))
	if version == linkPlain {
		return raw
	}
	raw = binary.BigEndian.AppendUint32(raw, uint32(l.Downloads))
	raw = binary.BigEndian.AppendUint64(raw, l.Count)
	for _, name := range []string{l.User.AppID, l.User.OpenID} {
		raw = append(append(raw, byte(len(name))), name...)
	}
	return raw
}

// decodeLink reads what encode made, and nothing else.
func decodeLink(raw []byte, file string) (l Link, ok bool) {
	if len(raw) < linkSigned {
		return l, false
	}
	l = Link{File: file, Expires: time.Unix(int64(binary.BigEndian.Uint64(raw[1:])), 0)}
	if raw[0] == linkPlain {
		return l, len(raw) == linkSigned
	}
	l.Unchecked = raw[0] == linkEarly
	if raw[0] != linkDetailed && !l.Unchecked || len(raw) < linkSigned+linkDetails {
		return l, false
	}
	rest := raw[linkSigned:]
	l.Downloads, l.Count = int(binary.BigEndian.Uint32(rest)), binary.BigEndian.Uint64(rest[4:])
	rest = rest[linkDetails:]
	for _, name := range []*string{&l.User.AppID, &l.User.OpenID} {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return l, false
		}
		*name, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
	}
	return l, len(rest) == 0
}

// openLink reads a link to file, of which nothing is believed before its MAC
// is right.
func (k ticketKeys) openLink(text, file string) (l Link, ok bool) {
	if len(text) > len(linkPrefix)+maxTicketKey+1+maxLinkLength {
		return l, false
	}
	text, ok = strings.CutPrefix(text, linkPrefix)
	keyID, body, dot := strings.Cut(text, ".")
	key := k.links[keyID]
	if !ok || !dot || key == nil {
		return l, false
	}
	raw, err := strict.DecodeString(body)
	if err != nil || len(raw) < linkSigned+sha256.Size || strict.EncodedLen(len(raw)) != len(body) { // DecodeString skips line breaks
		return l, false
	}
	signed, mac := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if !hmac.Equal(mac, linkMAC(key, keyID, signed, file)) {
		return l, false
	}
	return decodeLink(signed, file)
}

// SignLink makes a link to a file. The same file, time and user give the same
// link, so that caches know it again, unless it is good for a number of
// downloads. The names of the user have at most 128 bytes, and Downloads is at
// most MaxLinkDownloads.
func (s *Service) SignLink(l Link) string {
	if l.Downloads > 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		l.Count = binary.BigEndian.Uint64(b[:])
	}
	return s.tickets.signLink(l)
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
// it: a link that is there decides alone. One that stands for a user ends while
// that is blocked. Requests without one go to otherwise.
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
		if b, err := s.Blocked(r.Context(), l.User.OpenID); err != nil {
			return err
		} else if b != nil {
			return b.Fault()
		}
		return next(w, r.WithContext(WithLink(r.Context(), l)))
	}
}
