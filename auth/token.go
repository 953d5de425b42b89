package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/minigate/minigate/internal/fault"
)

// A login token is opaque: "mg_" and 32 random bytes in unpadded URL-safe
// base64. The prefix lets secret scanners find leaked ones.
const (
	tokenPrefix = "mg_"
	tokenSize   = 32
	tokenLength = len(tokenPrefix) + (tokenSize*8+5)/6
)

// strict refuses other spellings of the same bytes.
var strict = base64.RawURLEncoding.Strict()

var (
	errTokenMissing = fault.New(fault.Unauthenticated, "token_missing", "A login token is required: Authorization: Bearer <token>.")
	errTokenInvalid = fault.New(fault.Unauthenticated, "token_invalid", "This is not a login token.")
)

func newToken() (string, Fingerprint) {
	var raw [tokenSize]byte
	_, _ = rand.Read(raw[:]) // never fails, by its contract
	token := tokenPrefix + strict.EncodeToString(raw[:])
	return token, sha256.Sum256([]byte(token))
}

// IsLoginToken tells whether a token claims to be one of ours, good or not.
func IsLoginToken(token string) bool { return strings.HasPrefix(token, tokenPrefix) }

// parseToken returns the fingerprint of a well-formed token. Whether such a
// token was ever handed out only the store knows.
func parseToken(token string) (Fingerprint, bool) {
	if len(token) != tokenLength || token[:len(tokenPrefix)] != tokenPrefix {
		return Fingerprint{}, false
	}
	var text [tokenLength]byte // copies, so that nothing here is allocated
	copy(text[:], token)
	var raw [tokenSize + 1]byte
	n, err := strict.Decode(raw[:], text[len(tokenPrefix):])
	if err != nil || n != tokenSize { // n: Decode skips line breaks
		return Fingerprint{}, false
	}
	return sha256.Sum256(text[:]), true
}

// BearerToken returns the token of the Authorization header (RFC 6750 section
// 2.1) as it came; whether it is any good is for [Service.Verify] to say.
// Faults: Unauthenticated `token_missing`, `token_invalid`.
func BearerToken(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return "", errTokenMissing
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	if len(values) > 1 || token == "" || !strings.EqualFold(scheme, "Bearer") {
		return "", errTokenInvalid
	}
	return token, nil
}
