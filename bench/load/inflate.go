//go:build linux

package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
)

// inflater opens what was compressed with permessage-deflate without context
// takeover (RFC 7692). A broadcast is the same for all and is opened once: what
// that costs is not the server's. It belongs to a loop.
type inflater struct {
	reader io.ReadCloser
	known  map[string][]byte
}

// maxKnown is how many messages are remembered.
const maxKnown = 256

// ending is the empty block that senders leave out, and one that ends the
// stream.
var ending = []byte("\x00\x00\xff\xff\x01\x00\x00\xff\xff")

func (l *loop) inflate(b []byte) ([]byte, error) {
	i := &l.inflater
	if plain, found := i.known[string(b)]; found {
		return plain, nil
	}
	in := io.MultiReader(bytes.NewReader(b), bytes.NewReader(ending))
	if i.reader == nil {
		i.reader = flate.NewReader(in)
	} else if err := i.reader.(flate.Resetter).Reset(in, nil); err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(i.reader)
	if err != nil {
		return nil, fmt.Errorf("inflating a message: %w", err)
	}
	if len(i.known) >= maxKnown || i.known == nil {
		i.known = make(map[string][]byte)
	}
	i.known[string(b)] = plain
	return plain, nil
}
