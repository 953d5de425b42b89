package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
)

// sealVersion is the first byte of everything sealed, so that another
// algorithm can be told apart later.
const sealVersion = 2

var errSealBroken = errors.New("what was sealed does not open")

// sealKeyID tells which key sealed something: the start of the key's own hash,
// so that it needs no configuration and says nothing about the key.
type sealKeyID [4]byte

const sealHeader = 1 + len(sealKeyID{})

// sealer encrypts at rest with AES-256-GCM: version byte, key id, random nonce,
// ciphertext. The key id and the context (whose it is and what for) are bound
// in, so that something moved elsewhere does not open. It seals with the first
// of its keys and opens with any.
type sealer struct {
	current sealKeyID
	tagKey  [sha256.Size]byte
	keys    map[sealKeyID]cipher.AEAD
}

func newSealer(keys [][32]byte) (sealer, error) {
	if len(keys) == 0 {
		return sealer{}, errors.New("auth needs a key to seal with")
	}
	s := sealer{current: idOf(keys[0]), tagKey: derived("tag", keys[0]), keys: make(map[sealKeyID]cipher.AEAD, len(keys))}
	for _, key := range keys {
		aead, err := newAEAD(key[:])
		if err != nil {
			return sealer{}, err
		}
		s.keys[idOf(key)] = aead
	}
	return s, nil
}

func idOf(key [32]byte) (id sealKeyID) {
	sum := derived("id", key)
	copy(id[:], sum[:])
	return id
}

// derived is a value for one purpose that says nothing about the key.
func derived(purpose string, key [32]byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte("minigate sealing "+purpose+"\x00"), key[:]...))
}

// newAEAD is AES-GCM with a random nonce in front of the ciphertext.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (s sealer) seal(context, plain string) []byte {
	header := append([]byte{sealVersion}, s.current[:]...)
	return s.keys[s.current].Seal(header, nil, []byte(plain), bound(header, context))
}

// open is the inverse of seal. It says only that it did not work, not why.
func (s sealer) open(context string, sealed []byte) (plain string, err error) {
	if len(sealed) < sealHeader || sealed[0] != sealVersion {
		return "", errSealBroken
	}
	aead, ok := s.keys[sealKeyID(sealed[1:sealHeader])]
	if !ok {
		return "", errSealBroken
	}
	opened, err := aead.Open(nil, nil, sealed[sealHeader:], bound(sealed[:sealHeader], context))
	if err != nil {
		return "", errSealBroken
	}
	return string(opened), nil
}

// tag is the same for the same text in the same context, for who has to tell
// sealed things apart without opening them.
func (s sealer) tag(context, plain string) (tag [8]byte) {
	mac := hmac.New(sha256.New, s.tagKey[:])
	mac.Write([]byte(context + "\x00" + plain))
	copy(tag[:], mac.Sum(nil))
	return tag
}

func bound(header []byte, context string) []byte {
	return append(append(make([]byte, 0, len(header)+len(context)), header...), context...)
}
