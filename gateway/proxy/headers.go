package proxy

import (
	"net/http"
	"net/textproto"
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

	// headerSource says where a call comes from. There it has a value in every
	// call; here it is only said of whom WeChat has logged in, since nothing
	// is known of others.
	headerSource = "X-Wx-Source"
)

var sourceClient = []string{"wx_client"}

// ours are the headers that only the gateway may say. Longer names under a
// prefix that ends in "-" are ours, too.
var ours = []string{
	"x-wx-",
	"x-minigate-", // the signed identity, the id of a connection
	"forwarded",
	"x-forwarded-",
	"x-original-forwarded-for", // the client address on 云托管
	"x-real-ip",
	"x-request-id",
	"x-http-method-override", // decided by the gateway before it forwards
	"x-http-method",
	"x-method-override",
	"x-original-url", // instead of the path to some frameworks and to IIS; the route was chosen by the path
	"x-rewrite-url",
}

// isOurs tells whether a backend could take a header called name for one of
// ours. CGI, WSGI, PHP and Rack fold "_" and "-" (some servers every other
// punctuation) into one character, and all of them fold case.
func isOurs(name string) bool {
	switch name[0] { // most names are none at a glance
	case 'x', 'X', 'f', 'F':
	default:
		return false
	}
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

// hopByHop are headers between two neighbours (RFC 9110 section 7.6.1), and
// Trailer and Te, since no trailers are passed on: they could smuggle headers
// into backends that merge them, and a proxy may drop them (section 6.5.1).
// Proxy is no header at all, but to CGI it is HTTP_PROXY ("httpoxy").
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// dropNamed removes the headers that Connection names.
func dropNamed(h http.Header, connection []string) {
	for _, value := range connection {
		for name := range strings.SplitSeq(value, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
}

// passOn returns the headers of a request that a backend gets: without those
// between client and gateway, and without all that it could take for one of
// ours. Answers keep theirs: a client never derives trust from a header, and
// what the backend tells the user about himself is its own affair.
func passOn(in http.Header) http.Header {
	room := len(in) + maxOurs
	if len(in) < 7 { // then few of ours are on top: a map that is twice as large would be full of holes
		room = maxOurs
	}
	out := make(http.Header, room)
	for name, values := range in {
		if name != "" && !hopByHop(name) && !isOurs(name) {
			out[name] = values
		}
	}
	dropNamed(out, in["Connection"])
	return out
}

// maxOurs is how many headers the gateway adds to a request, at most.
const maxOurs = 14

// added sets headers of one value each, all of which share an array.
type added struct {
	http.Header
	values []string
}

func addTo(h http.Header) added { return added{h, make([]string, 0, maxOurs)} }

// set wants a canonical name, and passes over what has no value.
func (a *added) set(name, value string) {
	if value == "" {
		return
	}
	a.values = append(a.values, value)
	n := len(a.values)
	a.Header[name] = a.values[n-1 : n : n]
}

// identity says who the caller is; s is nil for nobody, signed is the token
// that says the same, nil for none.
func (a *added) identity(s *auth.Session, signed []string) {
	if s == nil {
		return
	}
	a.set(headerOpenID, s.User.OpenID)
	a.set(headerAppID, s.User.AppID) // users of the backend's own tokens have none
	a.set(headerUnionID, s.User.UnionID)
	a.set(headerClaims, string(s.Claims))
	if s.User.AppID != "" {
		a.Header[headerSource] = sourceClient
	}
	if signed != nil {
		a.Header[headerIdentity] = signed
	}
}

// address says where the caller is, also under the name that 云托管 uses.
func (a *added) address(ip string) {
	a.set("X-Forwarded-For", ip)
	a.set("X-Original-Forwarded-For", ip)
}

// dropCORS removes what a backend says about other origins.
func dropCORS(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
}
