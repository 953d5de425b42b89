package wxsim

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// codePrefix marks login codes that name their user and never wear out.
const codePrefix = "sim:"

const maxName = 64 // characters

// OpenID is the user's openid in one mini-program.
func OpenID(appID, user string) string { return derive("openid", appID, user) }

// UnionID is the user's unionid, the same in every mini-program.
func UnionID(user string) string { return derive("unionid", user) }

// Phone is the user's number: an 11-digit Chinese mobile number.
func Phone(user string) string {
	sum := sha256.Sum256([]byte("phone\x00" + user))
	return fmt.Sprintf("13%09d", binary.BigEndian.Uint64(sum[:8])%1_000_000_000)
}

// derive makes an identifier that looks like WeChat's: "o" and 27 characters
// of the URL-safe base64 alphabet.
func derive(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "o" + base64.RawURLEncoding.EncodeToString(sum[:])[:27]
}

// validName says whether user may log in: 1 to 64 characters out of letters,
// digits, "_", "." and "-", or CJK letters.
func validName(user string) bool {
	if user == "" || utf8.RuneCountInString(user) > maxName {
		return false
	}
	for _, c := range user {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		case unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Bopomofo):
		default:
			return false
		}
	}
	return true
}

func userKey(appID, openID string) string { return appID + "/" + openID }
