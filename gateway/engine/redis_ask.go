package engine

import (
	"context"
	"sync"
	"time"
)

// inquiries are questions this node has put to others and waits for.
type inquiries struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*inquiry
}

// inquiry collects the answers to one question.
type inquiry struct {
	id      uint64
	mu      sync.Mutex
	answers [][]byte
	sockets int
	came    int
	counted map[string]struct{} // nodes whose count came
	wake    chan struct{}
}

func newInquiries() *inquiries { return &inquiries{open: make(map[uint64]*inquiry)} }

// start opens an inquiry; the caller ends it.
func (s *inquiries) start() *inquiry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	q := &inquiry{id: s.last, wake: make(chan struct{}, 1)}
	s.open[q.id] = q
	return q
}

func (s *inquiries) end(q *inquiry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, q.id)
}

// answer files what came for an inquiry; late answers are ignored, and so is a
// second count of a node.
func (s *inquiries) answer(id uint64, node string, sockets int, body []byte) {
	s.mu.Lock()
	q := s.open[id]
	s.mu.Unlock()
	if q == nil {
		return
	}
	q.mu.Lock()
	if body == nil {
		if _, twice := q.counted[node]; twice {
			q.mu.Unlock()
			return
		}
		if q.counted == nil {
			q.counted = make(map[string]struct{})
		}
		q.counted[node] = struct{}{}
	}
	q.came++
	q.sockets += sockets
	if body != nil {
		q.answers = append(q.answers, body)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// await returns when want answers came, ctx has ended or limit has passed:
// whoever does not answer is left out.
func (q *inquiry) await(ctx context.Context, want int, limit time.Duration) (answers [][]byte, sockets int) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		q.mu.Lock()
		answers, sockets = q.answers, q.sockets
		enough := q.came >= want
		q.mu.Unlock()
		if enough {
			return answers, sockets
		}
		select {
		case <-q.wake:
		case <-timer.C:
			return answers, sockets
		case <-ctx.Done():
			return answers, sockets
		}
	}
}
