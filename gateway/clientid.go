package gateway

import (
	"crypto/rand"
	"encoding/hex"
)

// clientID is a random UUID (RFC 9562, version 4). As text it takes three times
// the memory.
type clientID [16]byte

func newID() (id clientID) {
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// text is the id as clients see it, in a form that need not be allocated.
func (id *clientID) text() (t [36]byte) {
	hex.Encode(t[:8], id[:4])
	hex.Encode(t[9:13], id[4:6])
	hex.Encode(t[14:18], id[6:8])
	hex.Encode(t[19:23], id[8:10])
	hex.Encode(t[24:], id[10:])
	t[8], t[13], t[18], t[23] = '-', '-', '-', '-'
	return t
}

// String is the id as clients see it. Ids sort as their texts do.
func (id clientID) String() string {
	t := id.text()
	return string(t[:])
}

// MarshalText is String, for the log.
func (id clientID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// is tells whether this is the id's text.
func (id *clientID) is(text string) bool {
	t := id.text()
	return string(t[:]) == text
}
