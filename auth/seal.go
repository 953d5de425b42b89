package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
)

// sealVersion is the first byte of everything sealed, so that another key or
// algorithm can be told apart later.
const sealVersion = 1

var errSealBroken = errors.New("a sealed session_key does not open")

// sealer encrypts session_keys at rest: version byte, then AES-256-GCM with a
// random nonce in front. The session's fingerprint is bound in, so that a
// sealed key moved to another session does not open.
type sealer struct{ aead cipher.AEAD }

func newSealer(key [32]byte) (sealer, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealer{aead}, err
}

func (s sealer) seal(fp Fingerprint, sessionKey string) []byte {
	return s.aead.Seal([]byte{sealVersion}, nil, []byte(sessionKey), fp[:])
}

// open is the inverse of seal. It says only that it did not work, not why.
func (s sealer) open(fp Fingerprint, sealed []byte) (sessionKey string, err error) {
	if len(sealed) == 0 || sealed[0] != sealVersion {
		return "", errSealBroken
	}
	plain, err := s.aead.Open(nil, nil, sealed[1:], fp[:])
	if err != nil {
		return "", errSealBroken
	}
	return string(plain), nil
}
