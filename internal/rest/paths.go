package rest

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/fault"
)

// RefuseOddPaths refuses every request whose path, as it was sent or as it was
// parsed, is an OddPath.
func RefuseOddPaths(next http.Handler) http.Handler {
	return Handler(func(w http.ResponseWriter, r *http.Request) error {
		sent, _, _ := strings.Cut(r.RequestURI, "?")
		if !strings.HasPrefix(sent, "/") {
			sent = "/" // absolute form: only its parsed path can be looked at
		}
		for i, path := range [...]string{sent, r.URL.EscapedPath(), r.URL.Path} {
			if i > 0 && path == sent { // as nearly always
				continue
			}
			if problem := OddPath(path); problem != "" {
				return fault.New(fault.Invalid, "path_invalid", "This path is refused: "+problem+".")
			}
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// decodeRounds is how many layers of percent-encoding are looked through: a
// backend behind another proxy may decode twice.
const decodeRounds = 3

// OddPath says why a path, in any state of encoding, could mean another one to
// somebody behind us than it does to our own routing, "" if it cannot. A
// prefix is the border of what a caller may reach, so anything that could be
// read as a way out of it is refused instead of being normalised: dot segments
// (also Tomcat's "..;x"), empty segments, backslashes, encoded separators,
// control bytes and bytes that are not UTF-8 (overlong encodings), under any
// layer of encoding. What passes is path.Clean of itself, apart from a slash
// at the end.
func OddPath(path string) (problem string) {
	if !strings.HasPrefix(path, "/") {
		return "it does not start with a slash"
	}
	path = unescapePercents(path)
	for range decodeRounds {
		if problem := oddLayer(path); problem != "" {
			return problem
		}
		decoded := unescape(path)
		if decoded == path {
			return ""
		}
		if strings.Count(decoded, "/") != strings.Count(path, "/") {
			return "it contains an encoded slash"
		}
		path = decoded
	}
	return oddLayer(path)
}

// oddLayer looks at a path as it stands, without decoding it.
func oddLayer(path string) (problem string) {
	if !utf8.ValidString(path) {
		return "it is not valid UTF-8"
	}
	for _, c := range []byte(path) {
		switch {
		case c < ' ' || c == 0x7f:
			return "it contains a control character"
		case c == '\\':
			return "it contains a backslash"
		}
	}
	for rest, more := path[1:], true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		name, _, _ := strings.Cut(segment, ";")
		switch {
		case name == "." || name == "..":
			return "it contains a dot segment"
		case name == "" && (more || segment != ""):
			return "it contains an empty segment"
		}
	}
	return ""
}

// unescapePercents turns "%25", "%2525" and so on into "%". It goes over s once
// however many layers there are, since the sender chooses their number.
func unescapePercents(s string) string {
	if !strings.Contains(s, "%25") {
		return s
	}
	out := make([]byte, 0, len(s))
	for _, c := range []byte(s) {
		out = append(out, c)
		if bytes.HasSuffix(out, []byte("%25")) {
			out = out[:len(out)-2]
		}
	}
	return string(out)
}

// unescape decodes every %XX and, as lenient backends do, leaves a % that
// starts none as it is.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}
