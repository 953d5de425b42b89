//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func (t *trial) storm() error { return t.connect() }

// idle looks at memory once the burst is over, and at CPU while only pings go.
func (t *trial) idle() error {
	empty := t.server.usage()
	if err := t.connect(); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	before := t.server.usage()
	t.result.RSSPerSocket = (before.rss - empty.rss) / int64(t.n)
	pings := t.stats.pings.Load()
	time.Sleep(t.hold)
	after := t.server.usage()
	t.result.Pings = t.stats.pings.Load() - pings
	if t.result.Pings > 0 {
		t.result.PingCPU = micros(after.cpu-before.cpu) / float64(t.result.Pings)
	}
	t.note()
	return nil
}

// fanout publishes back to back.
func (t *trial) fanout() error {
	if err := t.connect(); err != nil {
		return err
	}
	return t.measure(func() error {
		for range t.count {
			if err := t.publishAt(time.Now(), t.channel); err != nil {
				return err
			}
			t.result.Published++
		}
		return nil
	}, int64(t.count)*int64(t.n))
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
	}, total*int64(t.n))
}

// unicast publishes to personal channels, one after the other, for as long as
// asked.
func (t *trial) unicast() error {
	if len(t.logins) == 0 || t.logins[0].user == "" {
		return errors.New("unicast has to know users: log in, or write them behind the tokens in the file")
	}
	if err := t.connect(); err != nil {
		return err
	}
	end := time.Now().Add(t.length)
	return t.measure(func() error {
		return t.together(func(next func() int64) error {
			for time.Now().Before(end) {
				to := t.logins[next()%int64(len(t.logins))].user
				if err := t.publishAt(time.Now(), "#"+to); err != nil {
					return err
				}
				atomic.AddInt64(&t.result.Published, 1)
			}
			return nil
		})
	}, -1)
}

// command has every connection send a command and, when its reply came, the
// next.
func (t *trial) command() error {
	presence := text(commands(map[string]any{"id": 3, "history": map[string]any{"channel": t.channel}}))
	var stop atomic.Bool
	for _, l := range t.loops {
		l.onReply = func(c *conn) {
			if !stop.Load() {
				_ = write(c.fd, presence)
			}
		}
	}
	if err := t.connect(); err != nil {
		return err
	}
	return t.measure(func() error {
		for _, l := range t.loops {
			l.mu.Lock()
			for _, c := range l.conns {
				_ = write(c.fd, presence)
			}
			l.mu.Unlock()
		}
		time.Sleep(t.length)
		stop.Store(true)
		return nil
	}, -1)
}

// stall has some connections stop reading, and looks at what the kernel holds.
func (t *trial) stall() error {
	if err := t.connect(); err != nil {
		return err
	}
	left := t.stalled
	for _, l := range t.loops {
		l.mu.Lock()
		for _, c := range l.conns {
			if left > 0 {
				c.stall = true
				left--
			}
		}
		l.mu.Unlock()
	}
	before := kernelTCP()
	err := t.measure(func() error {
		for range t.count {
			if err := t.publishAt(time.Now(), t.channel); err != nil {
				return err
			}
			t.result.Published++
		}
		return nil
	}, int64(t.count)*int64(t.n-t.stalled))
	t.result.KernelMemory = kernelTCP() - before
	return err
}

// kernelTCP is what all TCP sockets of this machine hold, in bytes (proc(5),
// sockstat).
func kernelTCP() int64 {
	data, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0
	}
	_, mem, _ := strings.Cut(string(data), " mem ")
	line, _, _ := strings.Cut(mem, "\n")
	pages, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return pages * int64(os.Getpagesize())
}

// measure does work and waits until want deliveries have arrived, or, where
// want is -1, nothing arrives any more.
func (t *trial) measure(work func() error, want int64) error {
	had, before, began := t.stats.pushes.Load(), t.server.usage(), time.Now()
	if err := work(); err != nil {
		return err
	}
	last, at := int64(-1), time.Now()
	for {
		got := t.stats.pushes.Load() - had
		if got != last {
			last, at = got, time.Now()
		}
		if got == want || time.Since(at) > 3*time.Second || want < 0 && time.Since(at) > 200*time.Millisecond {
			break
		}
		time.Sleep(time.Millisecond)
	}
	after := t.server.usage()
	r := &t.result
	r.Deliveries = last
	r.PerSecond = float64(last) / at.Sub(began).Seconds()
	r.CPU = micros(after.cpu-before.cpu) / float64(max(last, 1))
	r.P50, r.P99 = millis(t.stats.latency.quantile(.5)), millis(t.stats.latency.quantile(.99))
	r.Max = millis(time.Duration(t.stats.latency.max.Load()))
	r.PublishP99 = millis(t.took.quantile(.99))
	t.note()
	return nil
}

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
	data := map[string]any{"t": due.UnixNano(), "p": string(bytes.Repeat([]byte{'x'}, max(t.size-32, 1)))}
	var answer struct {
		Error *struct{ Message string }
	}
	began := time.Now()
	err := post(t.http, t.publish, t.key, map[string]any{"channel": channel, "data": data}, &answer)
	t.took.add(time.Since(began), 1)
	if err == nil && answer.Error != nil {
		err = fmt.Errorf("publish: %s", answer.Error.Message)
	}
	return err
}
