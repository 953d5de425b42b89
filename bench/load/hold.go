//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

// wait holds connections while others publish, and tells when all of them have
// got count messages. It ends with its input.
func (t *trial) wait() error {
	if err := t.connect(); err != nil {
		return err
	}
	if err := t.tell("ready"); err != nil {
		return err
	}
	ended := t.inputEnds()
	want := int64(t.n) * int64(t.count)
	if !until(ended, func() bool { return t.stats.pushes.Load() >= want }) {
		if err := t.tell("delivered"); err != nil {
			return err
		}
		<-ended
	}
	t.result.Wanted = want
	t.result.Deliveries = t.stats.pushes.Load()
	t.result.Pings = t.stats.pings.Load()
	t.latencies()
	t.note()
	return nil
}

// until waits until done says so, and reports whether it ended before. It looks
// ten times a second: very many processes that look more often are what a
// machine with very many idle connections would be busy with.
func until(ended <-chan struct{}, done func() bool) (over bool) {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-ended:
			return true
		case <-look.C:
		}
	}
	return false
}

func (t *trial) tell(event string) error {
	return json.NewEncoder(t.output).Encode(harness.Event{Event: event})
}

func (t *trial) inputEnds() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, t.input) // until it ends, whatever for
		close(ended)
	}()
	return ended
}

// follow watches connections that come back, and what they missed.
type follow struct {
	loop  *loop
	to    netip.AddrPort
	delay func(tries int) time.Duration
	away  histogram

	attempts, refused, recovered, unrecovered, gaps, back atomic.Int64

	mu          sync.Mutex
	first, last time.Time // of the first loss, of the last return
}

// lose has c come back after a while. wasReady tells a connection from an
// attempt, of which why is kept.
func (f *follow) lose(c *conn, wasReady bool, why error) {
	next := &conn{index: c.index, epoch: c.epoch, lost: c.lost, tries: c.tries + 1}
	next.offset.Store(c.offset.Load())
	if wasReady {
		next.lost, next.tries = time.Now(), 0
		f.mu.Lock()
		if f.first.IsZero() {
			f.first = next.lost
		}
		f.mu.Unlock()
	} else {
		f.refused.Add(1)
		f.loop.first.CompareAndSwap(nil, &why)
	}
	time.AfterFunc(f.delay(int(next.tries)), func() { f.retry(next) })
}

// retry opens c. It runs on a timer's goroutine, and hands c to the loop.
func (f *follow) retry(c *conn) {
	f.attempts.Add(1)
	from := netip.AddrFrom4([4]byte{127, 0, 1, 2 + byte(c.index%4)})
	if err := f.loop.begin(c, f.to, from); err != nil {
		f.lose(c, false, err)
	}
}

func (f *follow) returned(c *conn) {
	now := time.Now()
	f.away.add(now.Sub(c.lost), 1)
	c.lost = time.Time{}
	f.mu.Lock()
	f.last = now
	f.mu.Unlock()
	f.back.Add(1)
}

// subscribed reads the position from the reply in b, and what came in it. The
// rest is what came behind it in the same message.
func (f *follow) subscribed(c *conn, b []byte) (rest []byte, err error) {
	for len(b) > 0 {
		line, behind, _ := bytes.Cut(b, []byte("\n"))
		if b = behind; !bytes.Contains(line, []byte(`"id":2`)) {
			continue
		}
		var reply struct{ Subscribe followed }
		if err := json.Unmarshal(line, &reply); err != nil {
			return nil, fmt.Errorf("reply to subscribe: %w", err)
		}
		f.goOn(c, reply.Subscribe)
		return behind, nil
	}
	return nil, errors.New("no reply to subscribe")
}

// followed is the answer to subscribe, as far as it says where a client stands.
type followed struct {
	Epoch        string
	Offset       uint64
	Recovered    bool
	Publications []struct{ Offset uint64 }
}

func (f *follow) goOn(c *conn, s followed) {
	switch {
	case c.epoch == "":
		c.epoch = s.Epoch
		c.offset.Store(s.Offset)
	case !s.Recovered:
		f.unrecovered.Add(1)
		c.epoch = s.Epoch
		c.offset.Store(s.Offset)
	default:
		for _, p := range s.Publications {
			f.next(c, p.Offset)
			f.recovered.Add(1)
		}
	}
}

// published follows pushes. Nothing else in them is called offset.
func (f *follow) published(c *conn, b []byte) {
	for line := range bytes.Lines(b) {
		_, after, found := bytes.Cut(line, []byte(`"offset":`))
		if !found {
			continue
		}
		end := bytes.IndexFunc(after, func(r rune) bool { return r < '0' || r > '9' })
		offset, err := strconv.ParseUint(string(after[:max(end, 0)]), 10, 64)
		if err == nil {
			f.next(c, offset)
		}
	}
}

func (f *follow) next(c *conn, offset uint64) {
	if offset != c.offset.Load()+1 {
		f.gaps.Add(1)
	}
	c.offset.Store(offset)
}

// Delays of the SDKs before they connect again.
const (
	minDelay = 500 * time.Millisecond
	maxDelay = 20 * time.Second
)

// sdkDelay is what the SDKs wait: full jitter over a bound that doubles.
func sdkDelay(tries int) time.Duration {
	bound := min(maxDelay, minDelay<<min(tries, 10))
	return min(maxDelay, minDelay+rand.N(bound))
}

// failover waits until the server of all connections is gone and they are
// subscribed at another one, and ends with its input.
func (t *trial) failover() error {
	to, _, err := target(t.then)
	if err != nil {
		return err
	}
	delay := sdkDelay
	switch t.backoff {
	case "sdk":
	case "none":
		delay = func(tries int) time.Duration {
			if tries == 0 {
				return 0
			}
			return sdkDelay(tries)
		}
	default:
		return fmt.Errorf("-backoff: %q is neither sdk nor none", t.backoff)
	}
	for _, l := range t.loops {
		l.follow = &follow{loop: l, to: to, delay: delay}
	}
	if err := t.connect(); err != nil {
		return err
	}
	if err := t.tell("ready"); err != nil {
		return err
	}
	ended := t.inputEnds()
	if !until(ended, func() bool { return t.sum(func(f *follow) *atomic.Int64 { return &f.back }) >= int64(t.n) }) {
		if err := t.tell("back"); err != nil {
			return err
		}
		<-ended
	}
	t.result.Failover = t.returns()
	t.result.Deliveries = t.stats.pushes.Load()
	t.note()
	return nil
}

func (t *trial) sum(of func(*follow) *atomic.Int64) (n int64) {
	for _, l := range t.loops {
		n += of(l.follow).Load()
	}
	return n
}

// returns sums up, once count publications have come to each connection, or what
// was published last has had time to arrive.
func (t *trial) returns() *harness.Failover {
	r := &harness.Failover{Behind: t.behind()}
	missing := func() bool {
		came := t.stats.pushes.Load() + t.sum(func(f *follow) *atomic.Int64 { return &f.recovered })
		return r.Behind > 0 || came < int64(t.n)*int64(t.count)
	}
	for end := time.Now().Add(10 * time.Second); missing() && time.Now().Before(end); r.Behind = t.behind() {
		time.Sleep(10 * time.Millisecond)
	}
	r.Attempts = t.sum(func(f *follow) *atomic.Int64 { return &f.attempts })
	r.Refused = t.sum(func(f *follow) *atomic.Int64 { return &f.refused })
	r.Recovered = t.sum(func(f *follow) *atomic.Int64 { return &f.recovered })
	r.Unrecovered = t.sum(func(f *follow) *atomic.Int64 { return &f.unrecovered })
	r.Gaps = t.sum(func(f *follow) *atomic.Int64 { return &f.gaps })
	for _, l := range t.loops {
		f := l.follow
		f.mu.Lock()
		r.LastBack = max(r.LastBack, f.last.Sub(f.first).Seconds())
		f.mu.Unlock()
		r.AwayP50 = max(r.AwayP50, millis(f.away.quantile(.5)))
		r.AwayP99 = max(r.AwayP99, millis(f.away.quantile(.99)))
	}
	return r
}

// behind counts connections that have not got the newest publication that any
// has.
func (t *trial) behind() (n int64) {
	var newest uint64
	for _, l := range t.loops {
		l.each(func(c *conn) { newest = max(newest, c.offset.Load()) })
	}
	for _, l := range t.loops {
		l.each(func(c *conn) {
			if c.offset.Load() < newest {
				n++
			}
		})
	}
	return n
}
