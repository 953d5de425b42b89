package gateway

import (
	"bytes"
	"unicode/utf8"

	"github.com/centrifugal/fdelta"
	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"
)

// fossil is the one kind of delta there is: that of the Fossil version control
// system (https://fossil-scm.org/home/doc/tip/www/delta_format.wiki).
const fossil = "fossil"

func createDelta(base, data []byte) []byte { return fdelta.Create(base, data) }

// usableDelta returns delta so that encoding e can carry it, or nil if the
// whole data has to be sent: the delta is no shorter, or JSON cannot say it.
func usableDelta(delta, base, data []byte, e encoding) []byte {
	if e&asProtobuf == 0 {
		if !cfjson.Valid(base) || !cfjson.Valid(data) {
			return nil
		}
		if !utf8.Valid(delta) {
			delta = alignDelta(delta, data)
		}
	}
	if len(delta) >= len(data) {
		return nil
	}
	return delta
}

// quote puts data into a JSON string.
func quote(data []byte) protocol.Raw { return cfjson.AppendString(nil, string(data)) }

// alignDelta makes of a delta one that is text: it copies and inserts whole
// characters only. Deltas are made of bytes, so one between two texts may begin
// or end a copy within a character, which no JSON string can carry. Copies are
// cut down to whole characters of the target, and what lies between them is
// inserted. It returns nil for what is not a delta that makes target.
func alignDelta(delta, target []byte) []byte {
	size, rest, ok := deltaInt(delta, '\n')
	if !ok || size != uint64(len(target)) {
		return nil
	}
	out := append(make([]byte, 0, len(delta)+16), delta[:len(delta)-len(rest)]...)
	at, inserted := 0, 0 // how far the old delta leads in target, and the new one
	for {
		i := bytes.IndexAny(rest, "@:;")
		if i < 0 {
			return nil
		}
		op := rest[i]
		n, after, ok := deltaInt(rest, op)
		if !ok {
			return nil
		}
		if op == ';' {
			if at != len(target) {
				return nil
			}
			out = appendInsert(out, target[inserted:])
			return append(out, rest[:i+1]...) // the checksum is of target, and the same
		}
		if n > uint64(len(target)-at) {
			return nil
		}
		end := at + int(n)
		rest = after
		if op == ':' {
			if int(n) > len(rest) {
				return nil
			}
			rest = rest[n:]
			at = end
			continue
		}
		offset, after, ok := deltaInt(rest, ',')
		if !ok {
			return nil
		}
		rest = after
		from, to := wholeRunes(target, at, end)
		if from < to {
			out = appendInsert(out, target[inserted:from])
			out = append(appendDeltaInt(out, uint64(to-from)), '@')
			out = append(appendDeltaInt(out, offset+uint64(from-at)), ',')
			inserted = to
		}
		at = end
	}
}

// wholeRunes cuts text[from:to] down to whole characters.
func wholeRunes(text []byte, from, to int) (int, int) {
	for from < to && !utf8.RuneStart(text[from]) {
		from++
	}
	for to > from && to < len(text) && !utf8.RuneStart(text[to]) {
		to--
	}
	return from, to
}

func appendInsert(out, text []byte) []byte {
	if len(text) == 0 {
		return out
	}
	out = append(appendDeltaInt(out, uint64(len(text))), ':')
	return append(out, text...)
}

// deltaDigits are the digits of numbers in a delta, to the base of 64.
const deltaDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"

// deltaInt reads a number and the byte that ends it.
func deltaInt(b []byte, end byte) (n uint64, rest []byte, ok bool) {
	for i, c := range b {
		if c == end {
			return n, b[i+1:], i > 0
		}
		d := bytes.IndexByte([]byte(deltaDigits), c)
		if d < 0 || n>>32 != 0 {
			return 0, nil, false
		}
		n = n<<6 | uint64(d)
	}
	return 0, nil, false
}

func appendDeltaInt(b []byte, n uint64) []byte {
	var digits [11]byte
	i := len(digits)
	for {
		i--
		digits[i] = deltaDigits[n&63]
		if n >>= 6; n == 0 {
			return append(b, digits[i:]...)
		}
	}
}

// readable makes publications of history ready for a client: without the
// publisher's wish for deltas, and without what a client that speaks JSON
// cannot be sent.
func (c *client) readable(pubs []*protocol.Publication) []*protocol.Publication {
	out := make([]*protocol.Publication, 0, len(pubs))
	for _, p := range pubs {
		if !c.binary && !cfjson.Valid(p.Data) {
			c.hub.metrics.undeliverable.Inc()
			continue
		}
		if p.Delta {
			whole := &protocol.Publication{}
			copyPublication(whole, p, "")
			p = whole
		}
		out = append(out, p)
	}
	return out
}

// missed makes the publications that a subscriber missed ready for it: without
// those that its filter holds back, and where it takes deltas the first in
// full and of each of the others what changed since the one before.
func (s *subscription) missed(pubs []*protocol.Publication, epoch string) []*protocol.Publication {
	if special := s.special(); special != nil && special.filter != nil {
		pubs = special.filter.choose(pubs)
	}
	pubs = s.client.readable(pubs)
	if s.encoding&forDelta == 0 || len(pubs) == 0 {
		return pubs
	}
	var base []byte
	for i, p := range pubs {
		d := &protocol.Publication{}
		copyPublication(d, p, "")
		if i > 0 {
			if delta := usableDelta(createDelta(base, p.Data), base, p.Data, s.encoding); delta != nil {
				d.Data, d.Delta = delta, true
			}
		}
		if s.encoding&asProtobuf == 0 {
			d.Data = quote(d.Data)
		}
		base, pubs[i] = p.Data, d
	}
	*s.special().sent = publicationID{epoch: epoch, offset: pubs[len(pubs)-1].Offset}
	return pubs
}
