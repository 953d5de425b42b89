package proxy

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decodeRounds is how many layers of percent-encoding are looked through: a
// backend behind another proxy may decode twice.
const decodeRounds = 3

// oddPath says why an escaped path could mean another path to the backend
// than to us, "" if it cannot. Prefixes are the border of what a caller may
// reach, so anything that a backend might read as a way out of its prefix is
// refused instead of being normalised: dot segments (also Tomcat's "..;x"),
// empty segments, backslashes, encoded separators, control bytes and bytes
// that are not UTF-8 (overlong encodings), under any layer of encoding.
func oddPath(escaped string) string {
	if !strings.HasPrefix(escaped, "/") {
		return "it does not start with a slash"
	}
	path := escaped
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
func oddLayer(path string) string {
	if !utf8.ValidString(path) {
		return "it is not valid UTF-8"
	}
	for _, c := range []byte(path) {
		if c < ' ' || c == 0x7f {
			return "it contains a control character"
		}
	}
	if strings.Contains(path, `\`) {
		return "it contains a backslash"
	}
	if strings.Contains(path, "//") {
		return "it contains an empty segment"
	}
	for segment := range strings.SplitSeq(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." {
			return "it contains a dot segment"
		}
	}
	return ""
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

// cutPrefix removes prefix from the front of an escaped path. The prefix may
// be spelled with escapes there, but it has as many slashes: oddPath let no
// encoded one through.
func cutPrefix(escaped, prefix string) string {
	for range strings.Count(prefix, "/") {
		_, escaped, _ = strings.Cut(escaped, "/")
	}
	return "/" + escaped
}
