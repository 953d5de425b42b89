package gateway

import (
	"sync"
	"testing"

	"github.com/minigate/minigate/gateway/engine"
)

// oracle knows every stream as it was acknowledged.
type oracle struct {
	mu       sync.Mutex
	streams  map[string]map[string]map[uint64]string // channel, epoch, offset: data
	tops     map[string]engine.Position              // of the newest acknowledged publication
	attempts map[string]map[string]bool              // channel, data: published, acknowledged or not
	removed  map[string]map[string]uint64            // channel, epoch: history up to there may be gone
}

func newOracle() *oracle {
	return &oracle{
		streams:  map[string]map[string]map[uint64]string{},
		tops:     map[string]engine.Position{},
		attempts: map[string]map[string]bool{},
		removed:  map[string]map[string]uint64{},
	}
}

func (o *oracle) attempt(channel, data string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.attempts[channel] == nil {
		o.attempts[channel] = map[string]bool{}
		o.streams[channel] = map[string]map[uint64]string{}
		o.removed[channel] = map[string]uint64{}
	}
	o.attempts[channel][data] = true
}

func (o *oracle) acknowledge(t *testing.T, channel string, at engine.Position, data string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stream(channel, at.Epoch)
	if old, twice := s[at.Offset]; twice && old != data {
		t.Errorf("%s: %s got offset %d of %q, which %s has", channel, data, at.Offset, at.Epoch, old)
	}
	if top := o.tops[channel]; top.Epoch == at.Epoch && at.Offset <= top.Offset {
		t.Errorf("%s: offset %d of %q was given after %d", channel, at.Offset, at.Epoch, top.Offset)
	}
	s[at.Offset] = data
	o.tops[channel] = at
}

func (o *oracle) stream(channel, epoch string) map[uint64]string {
	s := o.streams[channel][epoch]
	if s == nil {
		s = map[uint64]string{}
		o.streams[channel][epoch] = s
	}
	return s
}

func (o *oracle) remove(channel string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if top := o.tops[channel]; top.Epoch != "" {
		// Publications of unknown fate may stand behind the top.
		o.removed[channel][top.Epoch] = top.Offset + uint64(len(o.attempts[channel]))
	}
}

func (o *oracle) top(channel string) engine.Position {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tops[channel]
}

// has tells whether data stands at a place of a stream. A publication that was
// not acknowledged may stand anywhere, but then for everybody there.
func (o *oracle) has(channel string, at engine.Position, data string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stream(channel, at.Epoch)
	if known, ok := s[at.Offset]; ok {
		return known == data
	}
	if o.attempts[channel][data] {
		s[at.Offset] = data
		return true
	}
	return false
}

// attempted tells whether data was ever published to a channel.
func (o *oracle) attempted(channel, data string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.attempts[channel][data]
}

// recoverable tells whether the stream must still have all that follows from,
// given where its top was.
func (o *oracle) recoverable(channel string, from, top engine.Position) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return from.Epoch == top.Epoch && from.Offset <= top.Offset &&
		top.Offset-from.Offset <= kept(channel) && from.Offset >= o.removed[channel][top.Epoch]
}

// evenBetween returns an even publication between two places, "" if none is
// known there.
func (o *oracle) evenBetween(channel string, from engine.Position, to uint64) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stream(channel, from.Epoch)
	for at := from.Offset + 1; at < to; at++ {
		if data, known := s[at]; known && !isOdd(data) {
			return data
		}
	}
	return ""
}
