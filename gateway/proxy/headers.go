package proxy

import (
	"net/http"
	"strings"

	"github.com/minigate/minigate/auth"
)

// The identity headers have the names that WeChat's cloud hosting (云托管)
// uses, so that services written for it run behind minigate unchanged.
const (
	headerOpenID  = "X-Wx-Openid"
	headerUnionID = "X-Wx-Unionid"
	headerAppID   = "X-Wx-Appid"

	// headerClaims is ours: what the business backend said at login, a JSON
	// object in ASCII of at most 4 KiB.
	headerClaims = "X-Wx-Claims"
)

// ours are the headers that only the gateway may say. Longer names under a
// prefix that ends in "-" are ours, too.
var ours = []string{
	"x-wx-",
	"x-minigate-", // kept for a signed identity
	"forwarded",
	"x-forwarded-",
	"x-original-forwarded-for", // the client address on 云托管
	"x-real-ip",
	"x-request-id",
	"x-http-method-override", // decided by the gateway before it forwards
	"x-http-method",
	"x-method-override",
}

// isOurs tells whether a backend could take a header called name for one of
// ours. CGI, WSGI, PHP and Rack fold "_" and "-" (some servers every other
// punctuation) into one character, and all of them fold case.
func isOurs(name string) bool {
	for _, own := range ours {
		if len(name) < len(own) || (len(name) > len(own) && !strings.HasSuffix(own, "-")) {
			continue
		}
		if foldsTo(name[:len(own)], own) {
			return true
		}
	}
	return false
}

// foldsTo compares names of equal length; own is in lower case.
func foldsTo(name, own string) bool {
	for i := range len(own) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case !isAlnum(c):
			c = '-'
		}
		if c != own[i] {
			return false
		}
	}
	return true
}

// isBearer tells whether credentials are of the scheme that login tokens use.
// SDKs send the token everywhere, so no route passes that scheme on; a backend
// with logins of its own can use any other, on routes that ask for no login.
func isBearer(credentials string) bool {
	scheme, _, _ := strings.Cut(strings.TrimSpace(credentials), " ")
	return strings.EqualFold(scheme, "Bearer")
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// stripOurs removes every header that a backend could take for one of ours.
// Answers keep theirs: a client never derives trust from a header, and what
// the backend tells the user about himself is its own affair.
func stripOurs(h http.Header) {
	for name := range h {
		if isOurs(name) {
			delete(h, name)
		}
	}
}

// setIdentity says who the caller is; s is nil for nobody.
func setIdentity(h http.Header, s *auth.Session) {
	if s == nil {
		return
	}
	h.Set(headerOpenID, s.User.OpenID)
	if s.User.AppID != "" { // users of the backend's own tokens have none
		h.Set(headerAppID, s.User.AppID)
	}
	if s.User.UnionID != "" {
		h.Set(headerUnionID, s.User.UnionID)
	}
	if len(s.Claims) > 0 {
		h.Set(headerClaims, string(s.Claims))
	}
}

// dropCORS removes what a backend says about other origins.
func dropCORS(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
}
