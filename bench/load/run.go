//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

// trial is one run.
type trial struct {
	options
	server server
	loops  []*loop
	stats  stats
	logins []harness.Login
	result harness.Result
	http   *http.Client
	took   histogram // publish calls
	path   string    // of the URL of sockets
	input  io.Reader // ends when hold and failover shall
	output io.Writer
}

func newRun(o options) (*trial, error) {
	t := &trial{
		options: o, input: os.Stdin, output: os.Stdout,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64}, Timeout: 5 * time.Minute},
	}
	t.result.Mode, t.result.Connections = o.mode, o.n
	to, path, err := target(o.socket)
	if err != nil {
		return nil, err
	}
	t.path = path
	if t.server, err = parsePIDs(o.pids); err != nil {
		return nil, err
	}
	if t.logins, err = o.readLogins(); err != nil {
		return nil, err
	}
	for range max(o.loops, 1) {
		l, err := newLoop(to, &t.stats)
		if err != nil {
			return nil, err
		}
		l.deflate, l.bare, l.path, l.hello, l.joined = o.deflate, o.bare, t.pathOf, t.hello, `"id":1`
		if o.mode == "stall" {
			l.receive = 4 << 10
		}
		if o.channel != "" {
			l.joined = `"id":2`
		}
		t.loops = append(t.loops, l)
		go l.run()
	}
	return t, nil
}

// login is the one of a connection.
func (t *trial) login(c *conn) (l harness.Login) {
	if len(t.logins) > 0 {
		l = t.logins[int(c.index)%len(t.logins)]
	}
	return l
}

func (t *trial) pathOf(c *conn) string {
	return strings.ReplaceAll(t.path, "{user}", t.login(c).User)
}

// hello connects and subscribes in one message.
func (t *trial) hello(c *conn) []byte {
	connect := map[string]any{}
	if t.logins != nil {
		connect["token"] = t.login(c).Token
	}
	first := map[string]any{"id": 1, "connect": connect}
	if t.channel == "" {
		return commands(first)
	}
	subscribe := map[string]any{"channel": t.channel}
	if c.epoch != "" {
		subscribe["recover"], subscribe["epoch"], subscribe["offset"] = true, c.epoch, c.offset.Load()
	}
	return commands(first, map[string]any{"id": 2, "subscribe": subscribe})
}

// readLogins takes them from the file, or logs in as often as there are
// connections.
func (o *options) readLogins() ([]harness.Login, error) {
	switch o.tokens {
	case "-":
		return nil, nil
	case "":
		return harness.LogIn(context.Background(), strings.TrimSuffix(o.login, "/auth/login"), "load", o.n, 16)
	}
	f, err := os.Open(o.tokens)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var list []harness.Login
	for s := bufio.NewScanner(f); s.Scan() && len(list) < o.n; {
		token, user, _ := strings.Cut(s.Text(), " ")
		list = append(list, harness.Login{Token: token, User: user})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no tokens", o.tokens)
	}
	return list, nil
}

// connect opens all connections and waits until they are subscribed.
func (t *trial) connect() error {
	before, began := t.server.cpu(), time.Now()
	if err := t.open(0); err != nil {
		return err
	}
	t.result.ConnectTime = time.Since(began).Seconds()
	t.result.ConnectCPU = micros(t.server.cpu()-before) / float64(t.n)
	for _, l := range t.loops {
		t.result.Deflated = t.result.Deflated || l.deflated.Load()
	}
	t.note()
	return nil
}

// open does it from local addresses of a set of its own.
func (t *trial) open(set int) error {
	began := time.Now()
	for i := range t.n {
		if t.perSecond > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(t.perSecond))))
		}
		sources := max(t.sources, 1)
		from := netip.AddrFrom4([4]byte{127, 0, byte(set), byte(2 + i%sources)})
		l := t.loops[i%len(t.loops)]
		for t.under(l) > 512 { // the listener's queue is finite
			time.Sleep(time.Millisecond)
		}
		if err := l.open(from, i); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	for t.waiting() > 0 {
		if time.Since(began) > 5*time.Minute {
			return errors.New("not all connections were subscribed in time")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (t *trial) under(l *loop) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.conns)) - l.numReady.Load()
}

func (t *trial) waiting() (n int64) {
	for _, l := range t.loops {
		n += t.under(l)
	}
	return n
}

// note keeps what went wrong.
func (t *trial) note() {
	t.result.Failed = 0
	for _, l := range t.loops {
		t.result.Failed += l.failed.Load()
		if err := l.first.Load(); err != nil && t.result.FirstError == "" {
			t.result.FirstError = strings.ToValidUTF8((*err).Error(), "?")
		}
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
