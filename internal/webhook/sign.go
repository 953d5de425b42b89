package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// The headers of a call.
const (
	HeaderTimestamp = "X-Minigate-Timestamp" // Unix seconds
	HeaderKeyID     = "X-Minigate-Key-Id"
	HeaderSignature = "X-Minigate-Signature"
	HeaderEvent     = "X-Minigate-Event"
	HeaderDelivery  = "X-Minigate-Delivery"
)

// Window is how far the time of a signature may be from the receiver's.
const Window = 5 * time.Minute

const signatureVersion = "v1="

var (
	errSignature    = fault.New(fault.Unauthenticated, "signature_invalid", "The signature is missing or not ours.")
	errSignatureOld = fault.New(fault.Unauthenticated, "signature_expired", "The signature is older than five minutes, or from the future.")
)

// Sign adds the headers that vouch for body.
func Sign(h http.Header, body []byte, key Key, now time.Time) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set(HeaderTimestamp, timestamp)
	h.Set(HeaderKeyID, key.ID)
	h.Set(HeaderSignature, signatureVersion+hex.EncodeToString(mac(key, timestamp, body)))
}

// Verify tells whether one of keys signed body within [Window] of now. Faults:
// Unauthenticated `signature_invalid`, `signature_expired`. Within the window
// a call can be replayed; a receiver that minds remembers delivery ids.
func Verify(h http.Header, body []byte, keys []Key, now time.Time) error {
	s, err := parseSignature(h)
	if err != nil {
		return errSignature.Because(err)
	}
	i := slices.IndexFunc(keys, func(k Key) bool { return k.ID == s.keyID })
	if i < 0 {
		return errSignature.Because(errors.New("the key id is unknown"))
	}
	if !hmac.Equal(s.mac[:], mac(keys[i], s.timestamp, body)) {
		return errSignature.Because(errors.New("the signature does not fit"))
	}
	if now.Sub(s.time).Abs() > Window {
		return errSignatureOld
	}
	return nil
}

func mac(key Key, timestamp string, body []byte) []byte {
	m := hmac.New(sha256.New, []byte(key.Secret.Value()))
	_, _ = m.Write([]byte(timestamp + ".")) // a hash never fails
	_, _ = m.Write(body)
	return m.Sum(nil)
}

// signature is what the headers say, not yet believed.
type signature struct {
	timestamp string
	time      time.Time
	keyID     string
	mac       [sha256.Size]byte
}

func parseSignature(h http.Header) (s signature, err error) {
	for _, field := range []struct {
		name string
		to   *string
	}{{HeaderTimestamp, &s.timestamp}, {HeaderKeyID, &s.keyID}} {
		if *field.to, err = single(h, field.name); err != nil {
			return s, err
		}
	}
	seconds, err := strconv.ParseInt(s.timestamp, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != s.timestamp {
		return s, errors.New("the timestamp is not a number of seconds")
	}
	s.time = time.Unix(seconds, 0)
	text, err := single(h, HeaderSignature)
	if err != nil {
		return s, err
	}
	s.mac, err = parseMAC(text)
	return s, err
}

// parseMAC finds our version in "v1=HEX"; a list "v2=…,v1=…" leaves room for
// another one.
func parseMAC(text string) (mac [sha256.Size]byte, err error) {
	for part := range strings.SplitSeq(text, ",") {
		digits, ours := strings.CutPrefix(strings.TrimSpace(part), signatureVersion)
		if !ours {
			continue
		}
		raw, err := hex.DecodeString(digits)
		if err != nil || len(raw) != len(mac) {
			return mac, errors.New("the signature is not 64 hexadecimal digits")
		}
		return [sha256.Size]byte(raw), nil
	}
	return mac, errors.New("the signature has no version that is known here")
}

// single refuses a header that is there twice: two readers could disagree on
// which one counts.
func single(h http.Header, name string) (string, error) {
	values := h.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", errors.New("the header " + name + " is not there exactly once")
	}
	return values[0], nil
}
