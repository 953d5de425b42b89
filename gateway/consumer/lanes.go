package consumer

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// What one stream may hold in memory. Beyond the first two nothing is read
// until there is room; the third counts also what waits behind a failure, of
// which only ids are kept.
const (
	maxLoaded      = 1024     // entries with their content
	maxLoadedBytes = 16 << 20 // of them together
	maxKnown       = 100_000  // ids
)

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 30 * time.Second
)

// item is an entry on its way.
type item struct {
	id     string
	entry  *entry // nil: to be fetched when its turn comes
	reason error  // why it can never be carried out; nil: it may
}

// lane is the queue of one key: only its head is worked on.
type lane struct {
	key      string
	items    []item
	attempts int       // of the head, that failed for now
	since    time.Time // of the first of them
	due      time.Time // when to try again
}

// failing tells whether the head waits to be tried again, or is being. What
// comes behind it is kept as ids.
func (l *lane) failing() bool { return l.attempts > 0 }

// lanes brings the entries of a stream into order by key.
type lanes struct {
	mu      sync.Mutex
	due     sync.Cond // something is ready, or closed
	smaller sync.Cond // something has made room, or closed
	closed  bool
	byKey   map[string]*lane
	ready   []*lane       // whose heads are due and nobody's
	waiting dueLanes      // whose heads are not due yet
	sooner  chan struct{} // capacity 1; waiting has grown

	loaded, loadedBytes, known int
}

func newLanes() *lanes {
	l := &lanes{byKey: make(map[string]*lane), sooner: make(chan struct{}, 1)}
	l.due.L, l.smaller.L = &l.mu, &l.mu
	return l
}

// close wakes all who wait; nothing more is handed out.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.due.Broadcast()
	l.smaller.Broadcast()
}

// room waits until more may be read, and tells how many entries and bytes;
// none when closed.
func (l *lanes) room() (entries, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		entries = min(maxLoaded-l.loaded, maxKnown-l.known)
		bytes = maxLoadedBytes - l.loadedBytes
		if entries > 0 && bytes > 0 {
			return entries, bytes
		}
		l.smaller.Wait()
	}
	return 0, 0
}

// add appends an item to the lane of its key; those without a key get a lane
// each.
func (l *lanes) add(it item) {
	key := "id " + it.id
	if it.entry != nil && it.entry.key != "" {
		key = "key " + it.entry.key
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.byKey[key]
	if ln == nil {
		ln = &lane{key: key}
		l.byKey[key] = ln
		l.ready = append(l.ready, ln)
		l.due.Signal()
	}
	if ln.failing() {
		it.entry, it.reason = nil, nil
	}
	l.load(it.entry)
	l.known++
	ln.items = append(ln.items, it)
}

func (l *lanes) load(e *entry) {
	if e != nil {
		l.loaded++
		l.loadedBytes += e.size
	}
}

func (l *lanes) unload(e *entry) {
	if e != nil {
		l.loaded--
		l.loadedBytes -= e.size
	}
}

// next waits for a lane whose head is due. It is the caller's until done or
// failed; nil when closed.
func (l *lanes) next() *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.ready) == 0 && !l.closed {
		l.due.Wait()
	}
	if l.closed {
		return nil
	}
	ln := l.ready[0]
	l.ready = l.ready[1:]
	return ln
}

// head is what the holder of a lane has to work on.
func (l *lanes) head(ln *lane) item {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ln.items[0]
}

// done takes the head away.
func (l *lanes) done(ln *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unload(ln.items[0].entry)
	l.known--
	ln.items[0] = item{}
	ln.items, ln.attempts = ln.items[1:], 0
	if len(ln.items) == 0 {
		delete(l.byKey, ln.key)
	} else {
		l.ready = append(l.ready, ln)
		l.due.Signal()
	}
	l.smaller.Signal()
}

// failed has the head tried again later, and tells since when it fails. What
// the lane holds makes room meanwhile.
func (l *lanes) failed(ln *lane, now time.Time) (since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range ln.items {
		l.unload(ln.items[i].entry)
		ln.items[i].entry, ln.items[i].reason = nil, nil
	}
	if ln.attempts++; ln.attempts == 1 {
		ln.since = now
	}
	ln.due = now.Add(pause(ln.attempts))
	heap.Push(&l.waiting, ln)
	select {
	case l.sooner <- struct{}{}:
	default: // the clock has been told
	}
	l.smaller.Signal()
	return ln.since
}

// clock makes lanes ready when they are due, until ctx ends.
func (l *lanes) clock(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.sooner:
		case <-timer.C:
		}
		timer.Reset(l.wake(time.Now()))
	}
}

// wake makes ready what is due and tells how long until the next is.
func (l *lanes) wake(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 {
		if in := l.waiting[0].due.Sub(now); in > 0 {
			return in
		}
		l.ready = append(l.ready, heap.Pop(&l.waiting).(*lane))
		l.due.Signal()
	}
	return time.Hour // somebody will say sooner
}

// pause is how long to wait after a number of failed attempts: twice as long
// each time, and up to half of it less, so that what failed together does not
// come back together.
func pause(attempts int) time.Duration {
	longest := min(firstPause<<min(attempts-1, 16), longestPause)
	return longest - rand.N(longest/2)
}

// dueLanes is a heap.
type dueLanes []*lane

func (d dueLanes) Len() int           { return len(d) }
func (d dueLanes) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d dueLanes) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push implements heap.Interface.
func (d *dueLanes) Push(x any) { *d = append(*d, x.(*lane)) }

// Pop implements heap.Interface.
func (d *dueLanes) Pop() any {
	last := (*d)[len(*d)-1]
	(*d)[len(*d)-1] = nil
	*d = (*d)[:len(*d)-1]
	return last
}
