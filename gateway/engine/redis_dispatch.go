package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// workerBytes is what may wait for one worker. A hub that falls so far behind
// loses messages, and is told so.
const workerBytes = 16 << 20

// message is what came for one channel, or the news that some may be missing.
type message struct {
	key     string // the pub/sub channel it came through
	channel string
	payload string
	lost    bool
}

// worker hands the messages of its channels to the hub, one after the other.
// Its queue never blocks the reader of the connection: a slow channel delays
// only those that share its worker.
type worker struct {
	handle func(message)
	lose   func(channels []string)
	drop   func()

	mu    sync.Mutex
	queue []message
	bytes int
	lost  map[string]struct{} // dropped since the queue was last taken
	wake  chan struct{}
}

func newWorker(handle func(message), lose func([]string), drop func()) *worker {
	return &worker{handle: handle, lose: lose, drop: drop, lost: make(map[string]struct{}), wake: make(chan struct{}, 1)}
}

// put queues m. Once one message of a channel was dropped, the next ones are
// dropped too until the hub has been told.
func (w *worker) put(m message) {
	size := len(m.channel) + len(m.payload) + 64
	w.mu.Lock()
	_, lost := w.lost[m.channel]
	if lost || w.bytes+size > workerBytes {
		w.lost[m.channel] = struct{}{}
		w.drop()
	} else {
		w.queue = append(w.queue, m)
		w.bytes += size
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context) {
	var batch []message
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		var lost []string
		batch, lost = w.take(batch)
		for _, m := range batch {
			if ctx.Err() != nil {
				return
			}
			w.handle(m)
		}
		if len(lost) > 0 {
			w.lose(lost)
		}
	}
}

// take swaps the queue for the emptied last batch.
func (w *worker) take(last []message) (batch []message, lost []string) {
	const keep = 4096 // do not hold on to what one burst needed
	clear(last)
	if cap(last) > keep {
		last = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, w.queue, w.bytes = w.queue, last[:0], 0
	if len(w.lost) > 0 {
		lost = slices.Collect(maps.Keys(w.lost))
		clear(w.lost)
	}
	return batch, lost
}
