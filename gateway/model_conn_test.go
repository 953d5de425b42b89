package gateway

import (
	"bytes"
	"errors"
	"sync"
)

// modelConn is one connection: the socket as the hub sees it.
type modelConn struct {
	owner   *modelClient
	hub     *Hub
	inbox   *queue[[]byte]
	mu      sync.Mutex
	room    sync.Cond
	lean    bool    // never waits, as sockets under epoll; read only
	client  *client // of lean ones; set before anything is written
	stalled bool
	kept    []byte // what lean ones had no room for
	closed  bool
}

func (s *modelConn) waits() bool { return !s.lean }

func (s *modelConn) write(frames []byte, _ bool) (left int, err error) {
	s.mu.Lock()
	if s.lean && s.stalled && !s.closed {
		s.kept = bytes.Clone(frames)
		s.mu.Unlock()
		return len(frames), nil
	}
	for s.stalled && !s.closed {
		s.room.Wait()
	}
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, errors.New("closed")
	}
	s.hear(frames)
	return 0, nil
}

func (s *modelConn) hear(frames []byte) {
	for _, f := range framesIn(frames) {
		s.owner.hear(s, []byte(f.payload))
	}
}

// stall stops the reading, or lets it go on.
func (s *modelConn) stall(on bool) {
	s.mu.Lock()
	s.stalled = on
	s.room.Broadcast()
	var kept []byte
	if !on {
		kept, s.kept = s.kept, nil
	}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case kept == nil:
	case closed:
		s.client.resume(errors.New("closed"))
	default:
		s.hear(kept)
		s.client.resume(nil)
	}
}

func (s *modelConn) close(uint32, string) { s.abort() }

func (s *modelConn) abort() {
	s.mu.Lock()
	s.closed = true
	s.room.Broadcast()
	s.mu.Unlock()
	s.inbox.close()
}

func (s *modelConn) serve() {
	c := s.owner
	defer c.pipe.Done()
	h := s.hub
	if h.clients.admit(0) == nil {
		client := newClient(h, s)
		client.binary, s.client = c.binary, client
		h.enroll(client)
		for {
			msg, ok := s.inbox.pop()
			if !ok {
				break
			}
			client.receive(msg)
		}
		client.gone(cause{})
		h.clients.leave()
	}
	c.lost(s)
}
