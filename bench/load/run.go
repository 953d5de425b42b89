//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// result is what is printed; durations in seconds, or as their names say.
type result struct {
	Mode        string  `json:"mode"`
	Connections int     `json:"connections"`
	Failed      int64   `json:"failed"`
	FirstError  string  `json:"first_error,omitempty"`
	ConnectTime float64 `json:"connect_seconds"`
	ConnectCPU  float64 `json:"connect_cpu_us"` // of the server, for each connection

	RSSPerSocket int64   `json:"rss_per_socket,omitempty"`
	Pings        int64   `json:"pings,omitempty"`
	PingCPU      float64 `json:"ping_cpu_us,omitempty"`

	Published  int64   `json:"published,omitempty"`
	Deliveries int64   `json:"deliveries,omitempty"`
	PerSecond  float64 `json:"deliveries_per_second,omitempty"`
	CPU        float64 `json:"cpu_us_each,omitempty"` // of the server, for each delivery or command
	P50        float64 `json:"p50_ms,omitempty"`
	P99        float64 `json:"p99_ms,omitempty"`
	Max        float64 `json:"max_ms,omitempty"`
	PublishP99 float64 `json:"publish_p99_ms,omitempty"`

	KernelMemory int64 `json:"kernel_tcp_bytes,omitempty"`
}

// login is one user.
type login struct{ token, user string }

// trial is one run.
type trial struct {
	options
	server server
	loops  []*loop
	stats  stats
	logins []login
	result result
	http   *http.Client
	took   histogram // publish calls
}

func newRun(o options) (*trial, error) {
	t := &trial{options: o, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64}, Timeout: time.Minute}}
	t.result.Mode, t.result.Connections = o.mode, o.n
	to, path, err := target(o.socket)
	if err != nil {
		return nil, err
	}
	if t.server, err = parsePIDs(o.pids); err != nil {
		return nil, err
	}
	if t.logins, err = o.readLogins(t.http); err != nil {
		return nil, err
	}
	for range max(o.loops, 1) {
		l, err := newLoop(to, path, &t.stats)
		if err != nil {
			return nil, err
		}
		l.deflate, l.hello, l.joined = o.deflate, t.hello, `"id":1`
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

// hello connects and subscribes in one message.
func (t *trial) hello(c *conn) []byte {
	connect := map[string]any{}
	if t.logins != nil {
		connect["token"] = t.logins[int(c.index)%len(t.logins)].token
	}
	first := map[string]any{"id": 1, "connect": connect}
	if t.channel == "" {
		return commands(first)
	}
	return commands(first, map[string]any{"id": 2, "subscribe": map[string]any{"channel": t.channel}})
}

// readLogins takes them from the file, or logs in as often as there are
// connections.
func (o *options) readLogins(client *http.Client) ([]login, error) {
	switch o.tokens {
	case "-":
		return nil, nil
	case "":
		return logIn(client, o.login, o.n)
	}
	f, err := os.Open(o.tokens)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var list []login
	for s := bufio.NewScanner(f); s.Scan() && len(list) < o.n; {
		token, user, _ := strings.Cut(s.Text(), " ")
		list = append(list, login{token, user})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no tokens", o.tokens)
	}
	return list, nil
}

func logIn(client *http.Client, at string, n int) ([]login, error) {
	logins := make([]login, n)
	errs := make(chan error, 1)
	var group sync.WaitGroup
	next := make(chan int)
	for range 16 {
		group.Go(func() {
			for i := range next {
				var answer struct {
					Token string
					User  struct{ OpenID string }
				}
				if err := post(client, at, "", map[string]any{"code": fmt.Sprintf("sim:load%d", i)}, &answer); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
				logins[i] = login{answer.Token, answer.User.OpenID}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	select {
	case err := <-errs:
		return nil, fmt.Errorf("login: %w", err)
	default:
		return logins, nil
	}
}

func post(client *http.Client, at, key string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, at, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %.100s", res.StatusCode, text)
	}
	return json.Unmarshal(text, answer)
}

// connect opens all connections and waits until they are subscribed.
func (t *trial) connect() error {
	before, began := t.server.usage(), time.Now()
	for i := range t.n {
		if t.perSecond > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(t.perSecond))))
		}
		from := netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i%max(t.sources, 1))})
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
	took := time.Since(began)
	after := t.server.usage()
	t.result.ConnectTime = took.Seconds()
	t.result.ConnectCPU = micros(after.cpu-before.cpu) / float64(t.n)
	t.note()
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
