package gateway

import (
	"context"
	"sync"

	"github.com/centrifugal/protocol"
	"golang.org/x/sync/semaphore"
)

// announcements are messages for everybody. One at a time goes out, so that
// each client gets them in the order in which they came.
type announcements struct {
	room  *semaphore.Weighted // bytes of messages that have not gone out
	limit int64               // of room

	mu      sync.Mutex
	waiting []*announcement // the first is going out
}

// announcement is one message and those who have yet to get it.
type announcement struct {
	json, protobuf []byte // nil where it cannot be had in that
	size           int64  // bytes of room that it takes
	left           []*client
}

func newAnnouncements(limit int64) announcements {
	return announcements{room: semaphore.NewWeighted(limit), limit: limit}
}

// in is the message as a client speaks.
func (a *announcement) in(e encoding) []byte {
	if e&asProtobuf != 0 {
		return a.protobuf
	}
	return a.json
}

// add reports whether the message is the only one, and so has to be sent now.
func (as *announcements) add(a *announcement) (only bool) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.waiting = append(as.waiting, a)
	return len(as.waiting) == 1
}

// next ends the message that went out and returns the one to send now, nil
// where there is none.
func (as *announcements) next() *announcement {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.room.Release(as.waiting[0].size)
	as.waiting[0] = nil
	if as.waiting = as.waiting[1:]; len(as.waiting) == 0 {
		as.waiting = nil
		return nil
	}
	return as.waiting[0]
}

// flush waits until all that came before has gone out, or ctx ends.
func (as *announcements) flush(ctx context.Context) {
	if as.room.Acquire(ctx, as.limit) == nil {
		as.room.Release(as.limit)
	}
}

// announceToAll sends a message, which comes encoded in JSON, to every
// connected client, and returns how many these are. It leaves the sending to
// those who fan out, and waits only while too much waits for them already.
func (h *Hub) announceToAll(msg []byte) (sockets int) {
	a := &announcement{json: msg, size: min(int64(len(msg)), h.announcements.limit)}
	if r, err := protocol.NewJSONReplyDecoder(msg).Decode(); err == nil {
		a.protobuf, _ = encodeMessage(r, asProtobuf)
	}
	if h.announcements.room.Acquire(h.life, a.size) != nil {
		return 0 // all connections are being cut
	}
	a.left = h.clients.connected()
	sockets = len(a.left)
	if h.announcements.add(a) {
		h.news.push(pass{all: a})
	}
	return sockets
}

// tell sends a message for everybody to the next few, and queues what is left
// of it, or the message behind it.
func (h *Hub) tell(a *announcement) {
	n := min(len(a.left), passPart)
	sent := 0
	for _, c := range a.left[:n] {
		if msg := a.in(c.encoding()); msg != nil && c.send(msg) {
			sent++
		}
	}
	h.metrics.deliveries.Add(float64(sent))
	clear(a.left[:n])
	if a.left = a.left[n:]; len(a.left) == 0 {
		a = h.announcements.next()
	}
	if a != nil {
		h.news.push(pass{all: a})
	}
}
