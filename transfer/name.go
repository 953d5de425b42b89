package transfer

import (
	"mime"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/unicode/norm"
)

// maxName is the longest file name in bytes, as in most file systems.
const maxName = 255

// cleanName makes a name that any program may show or save: one path element
// of NFC text without control, formatting or bidirectional characters, at most
// maxName bytes. It returns "" where nothing is left.
func cleanName(raw string) string {
	name := norm.NFC.String(decodeName(raw))
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		switch {
		case r == '\u200c' || r == '\u200d': // joiners: Persian, emoji
			return r
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Noncharacter_Code_Point):
			return -1
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, name)
	name = strings.Trim(name, " ")
	name = strings.TrimRight(name, ". ")
	return shorten(name)
}

// decodeName makes text of what clients put into a file name. multipart says
// no charset: nearly all send UTF-8, some wrap it as in mail (RFC 2047), and
// old Chinese systems send GBK.
func decodeName(raw string) string {
	if strings.HasPrefix(raw, "=?") {
		if text, err := new(mime.WordDecoder).DecodeHeader(raw); err == nil {
			raw = text
		}
	}
	if utf8.ValidString(raw) {
		return raw
	}
	text, err := simplifiedchinese.GB18030.NewDecoder().String(raw)
	if err != nil || strings.ContainsRune(text, utf8.RuneError) {
		return strings.ToValidUTF8(raw, "_")
	}
	return text
}

// shorten cuts name to maxName bytes before its extension.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	ext := path.Ext(name)
	if len(ext) > 32 {
		ext = ""
	}
	base := name[:maxName-len(ext)]
	for !utf8.ValidString(base) { // at most three times: name is valid
		base = base[:len(base)-1]
	}
	return strings.TrimRight(base, ". ") + ext
}

// disposition makes a Content-Disposition value (RFC 6266): the name as it is
// in filename* (RFC 8187), and something close in ASCII for clients that know
// no better.
func disposition(kind, name string) string {
	if name == "" {
		return kind
	}
	ascii := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\/%`, r) {
			return '_'
		}
		return r
	}, name)
	value := kind + `; filename="` + ascii + `"`
	if ascii != name {
		value += "; filename*=UTF-8''" + extEncode(name)
	}
	return value
}

// extEncode percent-encodes all but the attr-char of RFC 8187.
func extEncode(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("!#$&+-.^_`|~", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
