package wechat

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" //nolint:gosec // WeChat's choice
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

const (
	pushKeyLength = 43 // characters of an EncodingAESKey
	pushBlock     = 32 // PKCS#7 pads to this, not to AES's 16
	pushHead      = 20 // 16 random bytes and the length
)

// Faults of a push, for the log only: outside they all look the same.
var (
	ErrPushKey   = errors.New("an EncodingAESKey must be 43 letters and digits")
	errPushOpen  = errors.New("the message does not open with any key")
	errPushAppID = errors.New("the message is for another mini-program")
)

// PushKeys check and decrypt what WeChat pushes to one mini-program
// (framework/server-ability/message-push; the scheme is that of
// "push/encryption"). Tokens and keys are tried in order, so that old ones may
// stand behind new ones while both are in use.
type PushKeys struct {
	appID  string
	tokens []string
	keys   [][]byte
}

// NewPushKeys takes the tokens and the EncodingAESKeys, newest first.
func NewPushKeys(appID string, tokens, aesKeys []string) (*PushKeys, error) {
	p := &PushKeys{appID: appID, tokens: tokens}
	for _, text := range aesKeys {
		key, err := base64.StdEncoding.DecodeString(text + "=")
		if len(text) != pushKeyLength || err != nil || len(key) != 32 {
			return nil, ErrPushKey
		}
		p.keys = append(p.keys, key)
	}
	return p, nil
}

// Signed tells whether signature covers the parts: hex(sha1) of them and a
// token, sorted and joined. For the query of a request, parts are timestamp and
// nonce; for a message they are timestamp, nonce and the encrypted text.
func (p *PushKeys) Signed(signature string, parts ...string) bool {
	good := 0
	for _, token := range p.tokens { // all of them: as long for the first as for the last
		good |= subtle.ConstantTimeCompare([]byte(pushSignature(token, parts...)), []byte(signature))
	}
	return good == 1
}

func pushSignature(token string, parts ...string) string {
	all := append([]string{token}, parts...)
	slices.Sort(all)
	sum := sha1.Sum([]byte(strings.Join(all, ""))) //nolint:gosec // see import
	return hex.EncodeToString(sum[:])
}

// Open decrypts a message: AES-256-CBC, inside of which are 16 random bytes,
// the length, the message and the appid, which has to be ours.
func (p *PushKeys) Open(encrypted string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(encrypted)
	if err != nil || len(data) < pushBlock || len(data)%aes.BlockSize != 0 {
		return nil, errPushOpen
	}
	err = errPushOpen
	for _, key := range p.keys {
		message, e := p.open(key, data)
		if e == nil {
			return message, nil
		}
		if errors.Is(e, errPushAppID) {
			err = e
		}
	}
	return nil, err
}

func (p *PushKeys) open(key, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, key[:aes.BlockSize]).CryptBlocks(plain, data)
	plain, ok := unpad(plain, pushBlock)
	if !ok || len(plain) < pushHead {
		return nil, errPushOpen
	}
	size := binary.BigEndian.Uint32(plain[16:])
	rest := plain[pushHead:]
	if uint64(size) > uint64(len(rest)) {
		return nil, errPushOpen
	}
	if string(rest[size:]) != p.appID {
		return nil, errPushAppID
	}
	return rest[:size], nil
}
