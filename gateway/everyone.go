package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/centrifugal/protocol"
	"golang.org/x/sync/semaphore"
)

// maxAnnouncements is how many messages for everybody may wait until they have
// gone out. Each of them holds a list of those it is for.
const maxAnnouncements = 16

// flushTime is how long a node that shuts down waits for them.
const flushTime = 2 * time.Second

// announcements are messages for everybody. One at a time goes out, so that
// each client gets them in the order in which they came.
type announcements struct {
	room *semaphore.Weighted // for maxAnnouncements

	mu      sync.Mutex
	waiting []*announcement // the first is going out
}

// announcement is one message and those who have yet to get it.
type announcement struct {
	json, protobuf []byte // nil where it cannot be had in that
	left           []*client
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
	as.room.Release(1)
	as.waiting[0] = nil
	if as.waiting = as.waiting[1:]; len(as.waiting) == 0 {
		as.waiting = nil
		return nil
	}
	return as.waiting[0]
}

// none tells whether nothing is on its way.
func (as *announcements) none() bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	return len(as.waiting) == 0
}

// flush waits a little while for all that came before to go out. life is that of
// the hub: after it nothing does.
func (as *announcements) flush(ctx, life context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	if as.room.Acquire(ctx, maxAnnouncements) == nil {
		as.room.Release(maxAnnouncements)
	}
}

// announceToAll sends a message, which comes encoded in JSON, to every
// connected client, and returns how many these are. It leaves the sending to
// those who fan out, and waits only while too many wait for them already.
func (h *Hub) announceToAll(msg []byte) (sockets int) {
	a := &announcement{json: msg}
	if r, err := protocol.NewJSONReplyDecoder(msg).Decode(); err == nil {
		a.protobuf, _ = encodeMessage(r, asProtobuf)
	}
	if h.announcements.room.Acquire(h.life, 1) != nil {
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
