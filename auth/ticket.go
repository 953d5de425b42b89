package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
)

// A ticket stands for a session where only a URL can be given: a download that
// the system makes, a socket of a runtime without headers. URLs are seen by
// more eyes than headers, so a ticket opens one thing for minutes.
//
// It is "mgt_", the id of the key that signed it, a dot, and in unpadded
// URL-safe base64:
//
//	8 bytes   expiry, Unix milliseconds, big endian
//	12 bytes  random, the ticket's own name
//	32 bytes  fingerprint of the session
//	32 bytes  HMAC-SHA256 (RFC 2104) over all of the above and the scope
//
// The scope itself is not in there: whoever verifies a ticket knows what it
// has to be for.
const (
	ticketPrefix = "mgt_"
	ticketSigned = 8 + len(TicketID{}) + len(Fingerprint{})
	ticketSize   = ticketSigned + sha256.Size
	ticketLength = (ticketSize*8 + 5) / 6 // in base64

	maxTicketTTL = 10 * time.Minute   // except for UploadScope
	maxUploadTTL = 7 * 24 * time.Hour // for UploadScope
	maxTicketKey = 16                 // bytes of a key's id
)

var (
	errTicketInvalid = fault.New(fault.Unauthenticated, "ticket_invalid", "This ticket is not good for this.")
	errTicketExpired = fault.New(fault.Unauthenticated, "ticket_expired", "This ticket has expired, or its login has ended: get a new one.")
	errTicketUsed    = fault.New(fault.Unauthenticated, "ticket_used", "This ticket was used before: get a new one.")
	errTicketsBusy   = fault.New(fault.Unavailable, "tickets_busy", "Too many tickets are in use right now: try again.")
	errScopeInvalid  = fault.New(fault.Invalid, "scope_invalid", "The scope must be socket, upload, upload:ID or file:ID:read.")
)

// TicketID names a ticket among all that were ever made.
type TicketID [12]byte

// Scope is what a ticket is good for.
type Scope string

// Scopes without a parameter.
const (
	ScopeSocket Scope = "socket" // one WebSocket handshake
	ScopeUpload Scope = "upload" // new uploads
)

// FileScope is to read one file.
func FileScope(id string) Scope { return Scope("file:" + id + ":read") }

// UploadScope is to continue one upload.
func UploadScope(id string) Scope { return Scope("upload:" + id) }

var wellFormedScope = regexp.MustCompile(`^(socket|upload|upload:[-\w]{1,64}|file:[-\w]{1,64}:read)$`)

// ParseScope checks a scope that came from outside.
// Faults: Invalid `scope_invalid`.
func ParseScope(text string) (Scope, error) {
	if !wellFormedScope.MatchString(text) {
		return "", errScopeInvalid
	}
	return Scope(text), nil
}

// TicketKey signs tickets and links to files. The first key of a list signs,
// all of them verify: to rotate, put a new one in front and take the old one
// out when its last link has expired, or ten minutes later where there are no
// links (where uploads are resumed with tickets, when the last of those has
// ended).
type TicketKey struct {
	ID     string          `yaml:"id" doc:"Name of the key: 1 to 16 letters, digits, dashes or underscores. It is visible in tickets."`
	Secret settings.Secret `yaml:"secret" doc:"Base64 of 32 bytes. Make one with: openssl rand -base64 32"`
}

var wellFormedKeyID = regexp.MustCompile(`^[-\w]{1,16}$`)

// bytes decodes the secret.
func (k TicketKey) bytes() ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(k.Secret.Value())
	if err != nil || len(raw) != sha256.Size {
		return nil, errors.New("must be base64 of exactly 32 bytes")
	}
	return raw, nil
}

// CheckTicketKeys finds mistakes in a list of keys; paths are "[0].id".
func CheckTicketKeys(keys []TicketKey, report func(path, problem string)) {
	seen := make(map[string]bool, len(keys))
	for i, k := range keys {
		at := fmt.Sprintf("[%d]", i)
		switch {
		case !wellFormedKeyID.MatchString(k.ID):
			report(at+".id", "must have 1 to 16 letters, digits, dashes or underscores")
		case seen[k.ID]:
			report(at+".id", "is there twice")
		}
		seen[k.ID] = true
		if _, err := k.bytes(); err != nil {
			report(at+".secret", err.Error())
		}
	}
}

// ticketKeys is a list of keys, decoded. It does not change.
type ticketKeys struct {
	newest  string // id of the key that signs
	secrets map[string][]byte
	links   map[string][]byte // derived from secrets, see linkKey
}

// newTicketKeys decodes a list. An empty one gets a key that lasts as long as
// this process.
func newTicketKeys(list []TicketKey) (ticketKeys, error) {
	keys := ticketKeys{secrets: make(map[string][]byte, len(list)), links: make(map[string][]byte, len(list))}
	for _, k := range list {
		secret, err := k.bytes()
		if err != nil || !wellFormedKeyID.MatchString(k.ID) {
			return keys, errors.New("the ticket key " + k.ID + " is malformed")
		}
		keys.secrets[k.ID] = secret
	}
	if len(list) > 0 {
		keys.newest = list[0].ID
	} else {
		secret := make([]byte, sha256.Size)
		_, _ = rand.Read(secret) // never fails
		keys.newest, keys.secrets["process"] = "process", secret
	}
	for id, secret := range keys.secrets {
		link, err := linkKey(secret)
		if err != nil {
			return keys, err
		}
		keys.links[id] = link
	}
	return keys, nil
}

// ticketMAC binds what a ticket says to a scope. The id has its length in
// front, so that no two inputs run together to the same bytes.
func ticketMAC(secret []byte, keyID string, signed []byte, scope Scope) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte{byte(len(keyID))})
	mac.Write([]byte(keyID))
	mac.Write(signed)
	mac.Write([]byte(scope))
	return mac.Sum(nil)
}

// ticket is one that was signed by us.
type ticket struct {
	expires time.Time
	id      TicketID
	session Fingerprint
}

func (k ticketKeys) sign(t ticket, scope Scope) string {
	raw := make([]byte, 0, ticketSize)
	raw = binary.BigEndian.AppendUint64(raw, uint64(t.expires.UnixMilli()))
	raw = append(raw, t.id[:]...)
	raw = append(raw, t.session[:]...)
	raw = append(raw, ticketMAC(k.secrets[k.newest], k.newest, raw, scope)...)
	return ticketPrefix + k.newest + "." + strict.EncodeToString(raw)
}

// open reads a ticket, of which nothing is believed before its MAC is right.
func (k ticketKeys) open(text string, scope Scope) (t ticket, ok bool) {
	if len(text) > len(ticketPrefix)+maxTicketKey+1+ticketLength {
		return t, false
	}
	text, ok = strings.CutPrefix(text, ticketPrefix)
	keyID, body, dot := strings.Cut(text, ".")
	secret := k.secrets[keyID]
	if !ok || !dot || secret == nil || len(body) != ticketLength {
		return t, false
	}
	raw, err := strict.DecodeString(body)
	if err != nil || len(raw) != ticketSize { // DecodeString skips line breaks
		return t, false
	}
	signed, mac := raw[:ticketSigned], raw[ticketSigned:]
	if !hmac.Equal(mac, ticketMAC(secret, keyID, signed, scope)) {
		return t, false
	}
	t.expires = time.UnixMilli(int64(binary.BigEndian.Uint64(signed)))
	copy(t.id[:], signed[8:])
	copy(t.session[:], signed[8+len(t.id):])
	return t, true
}

// NewTicket makes a ticket that stands for a session in scope, for ttl or as
// long as the session lives. ttl 0 is session.ticket_ttl; what is beyond ten
// minutes, for [UploadScope] a week, is cut.
func (s *Service) NewTicket(_ context.Context, ses *Session, scope Scope, ttl time.Duration) string {
	limit := maxTicketTTL
	if strings.HasPrefix(string(scope), string(UploadScope(""))) {
		limit = maxUploadTTL
	}
	if ttl <= 0 {
		ttl = s.settings.TicketTTL
	}
	t := ticket{expires: time.Now().Add(min(ttl, limit)), session: ses.Fingerprint}
	_, _ = rand.Read(t.id[:]) // never fails
	s.metrics.ticketsMade.Inc()
	return s.tickets.sign(t, scope)
}

// VerifyTicket returns the session that a ticket stands for in scope, and
// keeps it alive. A ticket for [ScopeSocket] works once.
//
// Faults: Unauthenticated `ticket_invalid` where it is malformed, not signed
// by us or for another scope, `ticket_expired` also where the session has
// ended, `ticket_used`; Unavailable `sessions_unavailable`, `tickets_busy`.
func (s *Service) VerifyTicket(ctx context.Context, text string, scope Scope) (*Session, error) {
	ses, err := s.verifyTicket(ctx, text, scope)
	result := "ok"
	if err != nil {
		result = fault.Of(err).Code
	}
	s.metrics.ticketsVerified.WithLabelValues(result).Inc()
	return ses, err
}

func (s *Service) verifyTicket(ctx context.Context, text string, scope Scope) (*Session, error) {
	t, ok := s.tickets.open(text, scope)
	switch {
	case !ok:
		return nil, errTicketInvalid
	case !time.Now().Before(t.expires):
		return nil, errTicketExpired
	}
	ses, err := s.Alive(ctx, t.session)
	if errors.Is(err, ErrNoSession) {
		return nil, errTicketExpired
	}
	if err != nil || scope != ScopeSocket {
		return ses, err
	}
	first, err := s.store.UseTicket(ctx, t.id, t.expires)
	switch {
	case err != nil:
		return nil, err
	case !first:
		return nil, errTicketUsed
	}
	return ses, nil
}
