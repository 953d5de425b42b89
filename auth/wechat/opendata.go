package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" //nolint:gosec // WeChat's choice, see CheckSignature
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"
)

// CheckSignature tells whether signature is WeChat's over rawData, byte for
// byte as the phone received it: hex(sha1(rawData ‖ session_key)). The
// session_key counts as its base64 text. It takes as long for a wrong
// signature as for the right one.
//
// A hash with the key behind the data is weaker than an HMAC: whoever finds
// two texts with the same SHA-1 state has a signature for both, and SHA-1
// collisions are practical. Trust what it covers no further than the user.
func CheckSignature(rawData, signature, sessionKey string) bool {
	h := sha1.New() //nolint:gosec // see import
	h.Write([]byte(rawData))
	h.Write([]byte(sessionKey))
	want := hex.EncodeToString(h.Sum(nil))
	return subtle.ConstantTimeCompare([]byte(want), []byte(signature)) == 1
}

// OpenData is what a phone got from WeChat in encrypted form.
type OpenData struct {
	JSON []byte // all of it
	// OpenID is the user it is about; "" where this kind of data names none.
	OpenID string
	AppID  string    // the mini-program it was made for
	At     time.Time // when WeChat made it
}

// Ciphertext is encryptedData and iv of a wx API.
type Ciphertext struct{ data, iv []byte }

const maxCiphertext = 64 << 10 // bytes

// ErrCiphertext answers for something that cannot be encryptedData and iv
// under any key.
var ErrCiphertext = errors.New("encryptedData must be base64 of whole AES blocks, iv of one")

// ParseCiphertext decodes encryptedData, of at most 64 KiB, and iv. No key is
// involved, so its error says nothing about one.
func ParseCiphertext(encryptedData, iv string) (*Ciphertext, error) {
	if len(encryptedData) > base64.StdEncoding.EncodedLen(maxCiphertext) {
		return nil, ErrCiphertext
	}
	data, err1 := base64.StdEncoding.DecodeString(encryptedData)
	start, err2 := base64.StdEncoding.DecodeString(iv)
	if err1 != nil || err2 != nil || len(start) != aes.BlockSize || len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, ErrCiphertext
	}
	return &Ciphertext{data, start}, nil
}

var errOpenData = errors.New("the data does not open with this key")

// Open decrypts with a session_key in base64: AES-128-CBC with PKCS#7 padding
// and JSON with a watermark inside. Its error is the same whatever is wrong.
//
// Nothing protects the text from being changed: whoever flips bits of the iv
// chooses the first 16 bytes of the JSON, where the openid is. The caller has
// to compare OpenID and AppID with what it knows, and must never take them as
// a login.
func (c *Ciphertext) Open(sessionKey string) (*OpenData, error) {
	key, err := base64.StdEncoding.DecodeString(sessionKey)
	if err != nil || len(key) != 16 {
		return nil, errOpenData
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errOpenData
	}
	plain := make([]byte, len(c.data))
	cipher.NewCBCDecrypter(block, c.iv).CryptBlocks(plain, c.data)
	plain, ok := unpad(plain, aes.BlockSize)
	if !ok {
		return nil, errOpenData
	}
	return decodeOpenData(plain)
}

func decodeOpenData(plain []byte) (*OpenData, error) {
	var a struct {
		OpenID    *string `json:"openId"`
		Watermark struct {
			AppID     string `json:"appid"`
			Timestamp number `json:"timestamp"`
		} `json:"watermark"`
	}
	if !bytes.HasPrefix(plain, []byte("{")) || json.Unmarshal(plain, &a) != nil || a.Watermark.AppID == "" || a.Watermark.Timestamp <= 0 || a.Watermark.Timestamp > maxUnix {
		return nil, errOpenData
	}
	d := &OpenData{JSON: plain, AppID: a.Watermark.AppID, At: time.Unix(int64(a.Watermark.Timestamp), 0)}
	if a.OpenID != nil {
		d.OpenID = *a.OpenID
	}
	return d, nil
}

// unpad removes PKCS#7 padding (RFC 5652 section 6.3) to blocks of the given
// size and says whether all of it was right. How long it takes depends on the
// block size only, not on where the padding is wrong.
func unpad(plain []byte, blockSize int) ([]byte, bool) {
	if len(plain) < blockSize || len(plain)%blockSize != 0 {
		return nil, false
	}
	last := plain[len(plain)-blockSize:]
	pad := int(last[blockSize-1])
	good := subtle.ConstantTimeLessOrEq(1, pad) & subtle.ConstantTimeLessOrEq(pad, blockSize)
	for i, b := range last {
		padded := subtle.ConstantTimeLessOrEq(blockSize-i, pad)
		right := subtle.ConstantTimeByteEq(b, byte(pad))
		good &= subtle.ConstantTimeSelect(padded, right, 1)
	}
	if good != 1 {
		return nil, false
	}
	return plain[:len(plain)-pad], true
}
