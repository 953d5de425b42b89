package gateway

import "sync"

// queue hands work to a few workers. It never blocks who pushes.
type queue[T any] struct {
	mu     sync.Mutex
	news   sync.Cond
	room   []T // where items begins whenever it was empty: one that comes alone takes no memory
	items  []T // nil: none
	closed bool
	in     uint64 // items that were ever pushed
}

func newQueue[T any]() *queue[T] {
	q := &queue[T]{room: make([]T, 0, 16)}
	q.news.L = &q.mu
	return q
}

func (q *queue[T]) push(item T) {
	q.mu.Lock()
	if !q.closed {
		if q.items == nil {
			q.items = q.room
		}
		old := q.items
		if q.items = append(old, item); len(old) == cap(old) {
			clear(old) // it may be room, which stays
		}
		q.in++
	}
	q.mu.Unlock()
	q.news.Signal()
}

// progress counts the items that were ever pushed and popped.
func (q *queue[T]) progress() (in, out uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.in, q.in - uint64(len(q.items))
}

// pop waits for an item; false says that the queue was closed.
func (q *queue[T]) pop() (item T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.news.Wait()
	}
	if q.closed {
		return item, false
	}
	item = q.items[0]
	var zero T
	q.items[0] = zero
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	return item, true
}

// close ends all waiting; what is queued is dropped.
func (q *queue[T]) close() {
	q.mu.Lock()
	q.closed, q.items = true, nil
	q.mu.Unlock()
	q.news.Broadcast()
}
