package epoll

import (
	"bytes"
	"encoding/binary"
)

// check is what must hold of every life, when it is over.
func (l *life) check() {
	if n := l.goings.Load(); n != 1 {
		l.t.Errorf("Gone was called %d times", n)
	}
	if _, err := l.conn.Write([]byte("late"), false); err == nil {
		l.t.Error("a write succeeded after the end")
	}
	l.conn.Abort()
	l.checkHeard()
	l.checkReceived()
}

func (l *life) checkHeard() {
	for i, text := range l.heard[:min(len(l.heard), l.trusted)] {
		if m := l.made[i]; m.text != text {
			l.t.Errorf("message %d was heard as %.20q of %d bytes", i, text, len(text))
		} else if m.late {
			l.t.Errorf("message %d was heard after the end", i)
		}
	}
	if len(l.heard) > l.trusted && !l.garbled {
		l.t.Errorf("%d messages were heard, %d were to be", len(l.heard), l.trusted)
	}
	if !l.legal || l.closed || l.failed || len(l.pings) > 0 { // all these may end it early
		return
	}
	for i, m := range l.made {
		if m.end <= l.sent && i >= len(l.heard) {
			l.t.Errorf("message %d of %d was not heard", i, len(l.made))
		}
	}
}

// checkReceived takes apart what the client was sent.
func (l *life) checkReceived() {
	data, pongs := 0, 0
	for b := l.received; len(b) > 0; {
		op, payload, rest, ok := serverFrame(b)
		if !ok {
			if !l.failed && !l.closed && l.eof && l.legal && len(l.pings) == 0 {
				l.t.Errorf("ends within a frame: %.20x of %d bytes", b, len(b))
			}
			payload = b[min(len(b), headerSize(b)):]
		}
		switch {
		case op == Close && len(rest) > 0:
			l.t.Errorf("%d bytes after the close frame: %.20x", len(rest), rest)
		case op == Close:
		case op == Binary && data < len(l.tries) && bytes.HasPrefix(l.tries[data], payload) && (!ok || len(payload) == len(l.tries[data])):
			data++
		case op == Pong && l.answers(&pongs, payload):
		case op == Pong && l.garbled && pongs >= l.answered:
		default:
			l.t.Errorf("frame of kind %d that nobody sent, after %d messages and %d pongs: %.20x of %d bytes", op, data, pongs, payload, len(payload))
		}
		b = rest
	}
	if l.eof && data < l.whole {
		l.t.Errorf("%d messages were received, %d written", data, l.whole)
	}
}

// answers tells whether there was a ping for a pong, after those that were
// answered. Not each has to be.
func (l *life) answers(pongs *int, payload []byte) bool {
	for *pongs < len(l.pings) {
		*pongs++
		if bytes.HasPrefix(l.pings[*pongs-1], payload) {
			return true
		}
	}
	return false
}

// headerSize is that of the frame that b begins with.
func headerSize(b []byte) int {
	switch {
	case len(b) < 2:
		return 2
	case b[1] == len16:
		return 4
	case b[1] == len64:
		return 10
	}
	return 2
}

// serverFrame takes the first frame off b; ok is false where it is not whole.
func serverFrame(b []byte) (op Opcode, payload, rest []byte, ok bool) {
	op = Opcode(b[0] & opcodeBit)
	n := headerSize(b)
	if len(b) < n {
		return op, nil, nil, false
	}
	size := int(b[1])
	switch n {
	case 4:
		size = int(binary.BigEndian.Uint16(b[2:]))
	case 10:
		size = int(binary.BigEndian.Uint64(b[2:]))
	}
	if len(b)-n < size {
		return op, nil, nil, false
	}
	return op, b[n : n+size], b[n+size:], true
}
