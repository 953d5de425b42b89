// Package seal encrypts what is kept at rest, so that whoever gets hold of a
// file or of Redis, but not of the configuration, reads nothing and can change
// nothing unnoticed.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
)

// Version is the first byte of everything sealed, so that another algorithm
// can be told apart later.
const Version = 2

// Header is how many bytes stand before the ciphertext: version and key id.
const Header = 1 + len(keyID{})

// What Open answers; neither says anything about key or text.
var (
	ErrUnknownKey = errors.New("it was sealed with a key that is not configured")
	ErrBroken     = errors.New("what was sealed does not open")
)

// keyID tells which key sealed something: the start of the key's own hash, so
// that it needs no configuration and says nothing about the key.
type keyID [4]byte

// Sealer encrypts with AES-256-GCM: version byte, key id, random nonce,
// ciphertext. The key id and the context (whose it is and what for) are bound
// in, so that something moved elsewhere does not open. It seals with the first
// of its keys and opens with any. It is safe for concurrent use.
type Sealer struct {
	current keyID
	tagKey  [sha256.Size]byte
	keys    map[keyID]cipher.AEAD
}

// New makes a Sealer of at least one key.
func New(keys [][32]byte) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("there is no key to seal with")
	}
	s := &Sealer{current: idOf(keys[0]), tagKey: derived("tag", keys[0]), keys: make(map[keyID]cipher.AEAD, len(keys))}
	for _, key := range keys {
		aead, err := NewAEAD(key[:])
		if err != nil {
			return nil, err
		}
		s.keys[idOf(key)] = aead
	}
	return s, nil
}

func idOf(key [32]byte) (id keyID) {
	sum := derived("id", key)
	copy(id[:], sum[:])
	return id
}

// derived is a value for one purpose that says nothing about the key.
func derived(purpose string, key [32]byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte("minigate sealing "+purpose+"\x00"), key[:]...))
}

// NewAEAD is AES-GCM with a random nonce in front of the ciphertext. The key
// has 16, 24 or 32 bytes.
func NewAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal encrypts plain for the context, which takes 33 bytes more.
func (s *Sealer) Seal(context string, plain []byte) []byte {
	aead := s.keys[s.current]
	sealed := make([]byte, 0, Header+len(plain)+aead.Overhead())
	sealed = append(append(sealed, Version), s.current[:]...)
	return aead.Seal(sealed, nil, plain, bound(sealed, context))
}

// Open is the inverse of Seal. It answers ErrUnknownKey or ErrBroken.
func (s *Sealer) Open(context string, sealed []byte) ([]byte, error) {
	if len(sealed) < Header || sealed[0] != Version {
		return nil, ErrBroken
	}
	aead, ok := s.keys[keyID(sealed[1:Header])]
	if !ok {
		return nil, ErrUnknownKey
	}
	plain, err := aead.Open(nil, nil, sealed[Header:], bound(sealed[:Header], context))
	if err != nil {
		return nil, ErrBroken
	}
	return plain, nil
}

// Tag is the same for the same text in the same context, for who has to tell
// sealed things apart without opening them.
func (s *Sealer) Tag(context, plain string) (tag [8]byte) {
	mac := hmac.New(sha256.New, s.tagKey[:])
	mac.Write([]byte(context + "\x00" + plain))
	copy(tag[:], mac.Sum(nil))
	return tag
}

func bound(header []byte, context string) []byte {
	return append(append(make([]byte, 0, len(header)+len(context)), header...), context...)
}
