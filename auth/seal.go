package auth

import (
	"crypto/cipher"
	"errors"

	"github.com/minigate/minigate/internal/seal"
)

const (
	sealVersion = seal.Version
	sealHeader  = seal.Header
)

var errSealBroken = errors.New("what was sealed does not open")

// sealer encrypts texts at rest, see [seal.Sealer].
type sealer struct{ keys *seal.Sealer }

func newSealer(keys [][32]byte) (sealer, error) {
	s, err := seal.New(keys)
	return sealer{s}, err
}

func newAEAD(key []byte) (cipher.AEAD, error) { return seal.NewAEAD(key) }

func (s sealer) seal(context, plain string) []byte { return s.keys.Seal(context, []byte(plain)) }

// open is the inverse of seal. It says only that it did not work, not why.
func (s sealer) open(context string, sealed []byte) (plain string, err error) {
	opened, err := s.keys.Open(context, sealed)
	if err != nil {
		return "", errSealBroken
	}
	return string(opened), nil
}

// tag is the same for the same text in the same context, for who has to tell
// sealed things apart without opening them.
func (s sealer) tag(context, plain string) [8]byte { return s.keys.Tag(context, plain) }
