//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

func (t *trial) storm() error { return t.connect() }

// idle looks at memory once the burst is over, and at CPU while only pings go.
func (t *trial) idle() error {
	empty := t.server.memory()
	if err := t.connect(); err != nil {
		return err
	}
	time.Sleep(t.pause)
	t.result.Memory = (t.server.memory() - empty) / int64(t.n)
	before := t.server.cpu()
	pings := t.stats.pings.Load()
	time.Sleep(t.hold)
	after := t.server.cpu()
	t.result.MemoryLater = (t.server.memory() - empty) / int64(t.n)
	t.result.Pings = t.stats.pings.Load() - pings
	if t.result.Pings > 0 {
		t.result.PingCPU = micros(after-before) / float64(t.result.Pings)
	}
	t.note()
	return nil
}

// handshake connects all, lets all go, and connects all once more. The first
// time the server looks logins up and grows; the second time both are done.
func (t *trial) handshake() error {
	if err := t.connect(); err != nil {
		return err
	}
	for _, l := range t.loops {
		l.each(func(c *conn) {
			c.leaving.Store(true)
			_ = write(c.fd, frame(opClose, []byte{0x03, 0xe8})) // 1000; that it failed is seen below
		})
	}
	for left := int64(1); left > 0; time.Sleep(time.Millisecond) {
		left = 0
		for _, l := range t.loops {
			l.each(func(*conn) { left++ })
		}
	}
	t.settle()
	before := t.server.cpu()
	if err := t.open(1); err != nil {
		return err
	}
	t.result.AgainCPU = micros(t.server.cpu()-before) / float64(t.n)
	t.note()
	return nil
}

// settle waits until the server has nothing left to do.
func (t *trial) settle() {
	for last := time.Duration(-1); ; {
		now := t.server.cpu()
		if now == last {
			return
		}
		last = now
		time.Sleep(200 * time.Millisecond)
	}
}

// fanout publishes back to back.
func (t *trial) fanout() error {
	if err := t.connect(); err != nil {
		return err
	}
	return t.measure(t.backToBack, fixed(int64(t.count)*int64(t.n)))
}

func (t *trial) backToBack() error {
	for range t.count {
		if err := t.publishAt(time.Now(), t.channel); err != nil {
			return err
		}
		t.result.Published++
	}
	return nil
}

// rate publishes at a fixed rate. Several publishers take turns, so that one
// that is kept waiting does not slow the clock down.
func (t *trial) rate() error {
	if err := t.connect(); err != nil {
		return err
	}
	total := int64(t.options.rate * t.length.Seconds())
	return t.measure(func() error {
		began := time.Now()
		return t.together(func(next func() int64) error {
			for {
				i := next()
				if i >= total {
					return nil
				}
				due := began.Add(time.Duration(float64(i) / t.options.rate * float64(time.Second)))
				time.Sleep(time.Until(due))
				if err := t.publishAt(due, t.channel); err != nil {
					return err
				}
				atomic.AddInt64(&t.result.Published, 1)
			}
		})
	}, fixed(total*int64(t.n)))
}

// unicast publishes to personal channels, one after the other, for as long as
// asked.
func (t *trial) unicast() error {
	if len(t.logins) == 0 || t.logins[0].User == "" {
		return errors.New("unicast has to know users: log in, or write them behind the tokens in the file")
	}
	if err := t.connect(); err != nil {
		return err
	}
	end := time.Now().Add(t.length)
	return t.measure(func() error {
		return t.together(func(next func() int64) error {
			for time.Now().Before(end) {
				to := t.logins[next()%int64(len(t.logins))].User
				if err := t.publishAt(time.Now(), "#"+to); err != nil {
					return err
				}
				atomic.AddInt64(&t.result.Published, 1)
			}
			return nil
		})
	}, func() int64 { return t.result.Published })
}

// command has every connection send a command and, when its reply came, the
// next: it asks where its channel's history ends. With -bare it sends a message
// and waits for another one.
func (t *trial) command() error {
	history := text(commands(map[string]any{"id": 3, "history": map[string]any{"channel": t.channel}}))
	var stop atomic.Bool
	for _, l := range t.loops {
		l.onReply = func(c *conn) {
			if !stop.Load() {
				_ = write(c.fd, history)
			}
		}
	}
	if err := t.connect(); err != nil {
		return err
	}
	return t.measure(func() error {
		for _, l := range t.loops {
			l.each(func(c *conn) { _ = write(c.fd, history) }) // what is lost shows as a failure
		}
		time.Sleep(t.length)
		stop.Store(true)
		return nil
	}, nil)
}

// stall has some connections stop reading, and looks at what the kernel holds.
func (t *trial) stall() error {
	if err := t.connect(); err != nil {
		return err
	}
	left := t.stalled
	for _, l := range t.loops {
		l.each(func(c *conn) {
			c.stall.Store(left > 0)
			left--
		})
	}
	before, err := harness.KernelTCP()
	if err != nil {
		return err
	}
	memory := t.server.memory()
	if err := t.measure(t.backToBack, fixed(int64(t.count)*int64(t.n-t.stalled))); err != nil {
		return err
	}
	t.result.MemoryGrown = t.server.memory() - memory
	after, err := harness.KernelTCP()
	t.result.Kernel = after - before
	return err
}

// measure does work and waits until as many deliveries have arrived as are then
// wanted, or, where want is nil, nothing arrives any more.
func (t *trial) measure(work func() error, want func() int64) error {
	had, bytes, before, began := t.stats.pushes.Load(), t.stats.bytes.Load(), t.server.cpu(), time.Now()
	if err := work(); err != nil {
		return err
	}
	wanted, patience := int64(0), 200*time.Millisecond
	if want != nil {
		wanted, patience = want(), 5*time.Second
	}
	last, at := int64(-1), time.Now()
	for {
		got := t.stats.pushes.Load() - had
		if got != last {
			last, at = got, time.Now()
		}
		if want != nil && got >= wanted || time.Since(at) > patience {
			break
		}
		time.Sleep(time.Millisecond)
	}
	after := t.server.cpu()
	r := &t.result
	r.Deliveries, r.Wanted = last, wanted
	r.PerSecond = float64(last) / at.Sub(began).Seconds()
	r.Bytes = float64(t.stats.bytes.Load()-bytes) / float64(max(last, 1))
	r.CPU = micros(after-before) / float64(max(last, 1))
	r.PublishP99 = millis(t.took.quantile(.99))
	t.latencies()
	t.note()
	return nil
}

func (t *trial) latencies() {
	l := &t.stats.latency
	t.result.P50, t.result.P99, t.result.Max = millis(l.quantile(.5)), millis(l.quantile(.99)), millis(time.Duration(l.max.Load()))
}

func fixed(n int64) func() int64 { return func() int64 { return n } }

// together runs publishers until they are done; next hands out numbers.
func (t *trial) together(work func(next func() int64) error) error {
	var number atomic.Int64
	next := func() int64 { return number.Add(1) - 1 }
	errs := make([]error, max(t.publishers, 1))
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { errs[i] = work(next) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// publishAt publishes data that says when it was due.
func (t *trial) publishAt(due time.Time, channel string) error {
	data := map[string]any{"t": due.UnixNano(), "p": filler(t.size - 32)}
	began := time.Now()
	defer func() { t.took.add(time.Since(began), 1) }()
	if t.bare {
		at := strings.ReplaceAll(t.publish, "{channel}", url.QueryEscape(channel))
		_, err := harness.PostBytes(context.Background(), t.http, at, t.key, commands(data))
		return err
	}
	var answer struct {
		Error *struct{ Message string }
	}
	err := harness.Post(context.Background(), t.http, t.publish, t.key, map[string]any{"channel": channel, "data": data}, &answer)
	if err == nil && answer.Error != nil {
		err = fmt.Errorf("publish: %s", answer.Error.Message)
	}
	return err
}

// filler is text that compresses about as well as JSON of chats and prices
// does, and is the same each time.
func filler(n int) string {
	words := strings.Fields("order price name text from to 12 7 1999 true null user item room message status open closed sold 2026 red large")
	rnd := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < max(n, 1) {
		b.WriteString(words[rnd.IntN(len(words))] + "-" + strconv.Itoa(rnd.IntN(1000)) + " ")
	}
	return b.String()[:max(n, 1)]
}
