package ask

import (
	"net/http"
	"slices"
	"strings"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// maxHeaders is how many bytes of headers are kept for a connection, of those
// of its handshake and of those in its connect command each.
const maxHeaders = 8 << 10

// Errors about headers of clients.
var (
	ErrHeadersTooLarge = fault.Newf(fault.TooLarge, "headers_too_large", "Headers that are passed on may have %d bytes together.", maxHeaders)
	ErrHeadersBad      = fault.New(fault.Invalid, "bad_request", "A header has characters that no header may have.")
)

// Headers copies those of a handshake that some proxy wants; nil if none. ip
// is the client's address as trusted proxies say: headers that name it carry
// this one. Fault: TooLarge `headers_too_large`.
func (b *Backend) Headers(h http.Header, ip string) (kept http.Header, err error) {
	if b == nil {
		return nil, nil
	}
	size := 0
	for _, name := range b.wanted {
		values := h.Values(name)
		if len(values) > 0 && (name == "X-Real-Ip" || name == "X-Forwarded-For") {
			values = []string{ip}
		}
		for _, v := range values {
			if size += len(name) + len(v); size > maxHeaders {
				return nil, ErrHeadersTooLarge
			}
			if !carriesLogin(v) {
				kept = add(kept, name, strings.Clone(v))
			}
		}
	}
	return kept, nil
}

// Emulated is Headers for those that a connect command gives.
func (b *Backend) Emulated(given map[string]string) (kept http.Header, err error) {
	if b == nil || len(given) == 0 || len(b.emulated) == 0 {
		return nil, nil
	}
	size := 0
	for name, v := range given {
		name = http.CanonicalHeaderKey(name)
		if !slices.Contains(b.emulated, name) {
			continue
		}
		if !validValue(v) {
			return nil, ErrHeadersBad
		}
		if size += len(name) + len(v); size > maxHeaders {
			return nil, ErrHeadersTooLarge
		}
		if !carriesLogin(v) {
			kept = add(kept, strings.Clone(name), strings.Clone(v))
		}
	}
	return kept, nil
}

const nameChars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// validName tells whether a header may be called that (RFC 9110, section 5.1).
func validName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(nameChars, r) }) < 0
}

// validValue tells whether a header may say that (RFC 9110, section 5.5): no
// control characters, which could begin another header.
func validValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func add(h http.Header, name, value string) http.Header {
	if h == nil {
		h = http.Header{}
	}
	h[name] = append(h[name], value)
	return h
}

// carriesLogin tells whether a value has one of our login tokens in it. Who
// holds one is its user, so it is nobody's to pass on.
func carriesLogin(value string) bool {
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune(" \t,;=\"'.&?", r) }) {
		if auth.IsLoginToken(word) {
			return true
		}
	}
	return false
}

// headers are what a proxy is sent along for a connection: static ones, over
// them those of the connect command, over them those of the handshake.
func (h *hook) headers(c *Caller) http.Header {
	all := make(http.Header, len(h.static)+len(h.emulated)+len(h.wanted))
	for name, values := range h.static {
		all[name] = values
	}
	for _, name := range h.emulated {
		if values := c.Emulated[name]; len(values) > 0 {
			all[name] = values
		}
	}
	for _, name := range h.wanted {
		if values := c.Headers[name]; len(values) > 0 {
			all[name] = values
		}
	}
	return all
}

func canonical(names []string) []string {
	list := make([]string, 0, len(names))
	for _, name := range names {
		list = append(list, http.CanonicalHeaderKey(name))
	}
	return list
}
