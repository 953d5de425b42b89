package rest

import (
	"bytes"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/fault"
)

var errPath = fault.New(fault.Invalid, "path_invalid", "The path may not contain dot segments, empty segments, backslashes, encoded slashes or control characters.")

// RefuseOddPaths refuses every path that somebody behind us could read in
// another way than our own routing does, and so reach what the routing would
// not have let through: dot segments, empty segments, backslashes, encoded
// slashes and backslashes (encoded any number of times), path parameters on
// such segments ("/..;/" means ".." to Tomcat), control characters and bytes
// that are no UTF-8 (overlong slashes). What passes is path.Clean of itself,
// apart from a slash at the end.
func RefuseOddPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _, _ := strings.Cut(r.RequestURI, "?")
		if !strings.HasPrefix(sent, "/") {
			sent = "/" // absolute form: only its parsed path can be looked at
		}
		if oddPath(r.URL.Path) || oddPath(r.URL.EscapedPath()) || oddPath(sent) {
			Fail(w, r, errPath)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// decoded undoes what hides dots and path parameters.
var decoded = strings.NewReplacer("%2e", ".", "%3b", ";")

// oddPath looks at a path in any state of encoding.
func oddPath(p string) bool {
	if p == "" || p[0] != '/' || !utf8.ValidString(p) {
		return true
	}
	for _, c := range []byte(p) {
		if c < ' ' || c == 0x7f || c == '\\' {
			return true
		}
	}
	if strings.Contains(p, "%") {
		p = decodePercents(strings.ToLower(p))
		if strings.Contains(p, "%2f") || strings.Contains(p, "%5c") || strings.Contains(p, "%00") {
			return true
		}
		p = decoded.Replace(p)
	}
	return oddSegments(p[1:])
}

// decodePercents turns "%25", "%2525" and so on into "%". It goes over p once,
// since the sender chooses how many there are.
func decodePercents(p string) string {
	out := make([]byte, 0, len(p))
	for _, c := range []byte(p) {
		out = append(out, c)
		if bytes.HasSuffix(out, []byte("%25")) {
			out = out[:len(out)-2]
		}
	}
	return string(out)
}

func oddSegments(p string) bool {
	for more := true; more; {
		var segment string
		segment, p, more = strings.Cut(p, "/")
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." || name == "" && (more || segment != "") {
			return true
		}
	}
	return false
}
