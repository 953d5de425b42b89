package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// follower keeps a socket to one of several nodes as an SDK does: it comes
// back, and recovers from where it stood. Publications of its channels are
// numbered 1, 2, 3 … by who publishes.
type follower struct {
	t        testing.TB
	nodes    func() []*program
	code     func() string // what wx.login gives
	channels []string

	mu    sync.Mutex
	token string // "" before a login
	live  bool   // connected, and all subscribes answered
	id    string
	rooms map[string]*room
	final string // why it was sent away for good
}

// room is what a follower knows of one channel.
type room struct {
	offset uint64
	epoch  string
	known  bool
	got    []int // numbers, in the order in which they came
	told   []int // how many of them had come when it was told recovered:false
	subbed bool
}

// follow starts a follower that ends with the test.
func follow(t testing.TB, nodes func() []*program, code func() string, channels ...string) *follower {
	f := &follower{t: t, nodes: nodes, code: code, channels: channels, rooms: map[string]*room{}}
	for _, ch := range channels {
		f.rooms[ch] = &room{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && !f.finished() {
			nodes := nodes()
			if base := nodes[rand.IntN(len(nodes))].Public; f.login(ctx, base) {
				f.session(ctx, base)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(20+rand.IntN(80)) * time.Millisecond): // as SDKs spread their returns
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *follower) finished() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.final != ""
}

// login gets a token, unless there is one.
func (f *follower) login(ctx context.Context, base string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.token != "" {
		return true
	}
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/auth/login", strings.NewReader(fmt.Sprintf(`{"code":%q}`, f.code())))
	if err != nil {
		return false
	}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	var a loginAnswer
	if json.NewDecoder(res.Body).Decode(&a) == nil {
		f.token = a.Token
	}
	return f.token != ""
}

// session is one connection, from dial to its end.
func (f *follower) session(ctx context.Context, base string) {
	dialing, cancel := context.WithTimeout(ctx, 5*time.Second)
	conn, _, err := websocket.Dial(dialing, "ws"+strings.TrimPrefix(base, "http")+"/connection/websocket", nil)
	cancel()
	if err != nil {
		return
	}
	conn.SetReadLimit(1 << 22)
	defer func() { _ = conn.CloseNow() }()
	if conn.Write(ctx, websocket.MessageText, f.hello()) != nil {
		return
	}
	defer f.drop()
	for {
		reading, cancel := context.WithTimeout(ctx, time.Minute)
		_, data, err := conn.Read(reading)
		cancel()
		if err != nil {
			return
		}
		for line := range strings.Lines(string(data)) {
			reply, again := f.hear(line)
			if reply != "" && conn.Write(ctx, websocket.MessageText, []byte(reply)) != nil || again {
				return
			}
		}
	}
}

func (f *follower) hello() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := []string{fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, f.token)}
	for i, ch := range f.channels {
		lines = append(lines, f.subscribe(i, ch))
	}
	return []byte(strings.Join(lines, "\n"))
}

func (f *follower) subscribe(i int, ch string) string {
	r, from := f.rooms[ch], ""
	if r.known {
		from = fmt.Sprintf(`,"recover":true,"offset":%d,"epoch":%q`, r.offset, r.epoch)
	}
	return fmt.Sprintf(`{"id":%d,"subscribe":{"channel":%q%s}}`, i+2, ch, from)
}

func (f *follower) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live = false
	for _, r := range f.rooms {
		r.subbed = false
	}
}

type publication struct {
	Data   json.RawMessage
	Offset uint64
	Epoch  string
}

// hear takes one line; again asks for a new connection.
func (f *follower) hear(line string) (reply string, again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var m struct {
		ID      int
		Error   *struct{ Code int }
		Connect *struct{ Client string }

		Subscribe *struct {
			Offset        uint64
			Epoch         string
			Recovered     bool
			WasRecovering bool `json:"was_recovering"`
			Publications  []publication
		}
		Push *struct {
			Channel     string
			Pub         *publication
			Unsubscribe *struct{ Code int }
			Disconnect  *struct {
				Code   int
				Reason string
			}
		}
	}
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		f.t.Errorf("not a reply: %s", line)
		return "", true
	}
	switch {
	case m.Error != nil:
		if m.Error.Code == 109 {
			f.token = "" // the login is gone
		}
		return "", true // else something is away: come again
	case m.Connect != nil:
		f.id = m.Connect.Client
	case m.Subscribe != nil:
		r := f.rooms[f.channels[m.ID-2]]
		if m.Subscribe.WasRecovering && !m.Subscribe.Recovered {
			r.told = append(r.told, len(r.got))
		}
		r.offset, r.epoch, r.known, r.subbed = m.Subscribe.Offset, m.Subscribe.Epoch, true, true
		for _, p := range m.Subscribe.Publications {
			f.take(r, p)
		}
		f.live = true
		for _, r := range f.rooms {
			f.live = f.live && r.subbed
		}
	case m.Push == nil:
		return "{}", false
	case m.Push.Pub != nil:
		if r := f.rooms[m.Push.Channel]; r != nil {
			f.take(r, *m.Push.Pub)
		}
	case m.Push.Unsubscribe != nil:
		for i, ch := range f.channels {
			if ch == m.Push.Channel {
				return f.subscribe(i, ch), false
			}
		}
	case m.Push.Disconnect != nil:
		if c := m.Push.Disconnect.Code; c >= 3500 && c < 4000 {
			f.final = m.Push.Disconnect.Reason
			f.t.Errorf("a follower was sent away: %d %s", c, f.final)
		}
	}
	return "", false
}

func (f *follower) take(r *room, p publication) {
	n, err := strconv.Atoi(string(p.Data))
	if err != nil {
		f.t.Errorf("somebody else published %s", p.Data)
	}
	if p.Offset != r.offset+1 {
		f.t.Errorf("offset %d follows %d", p.Offset, r.offset)
	}
	r.offset = p.Offset
	if p.Epoch != "" {
		r.epoch = p.Epoch
	}
	r.got = append(r.got, n)
}

// caughtUp tells whether the follower is connected and its last publication of
// each channel is the newest.
func (f *follower) caughtUp(newest map[string]int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch, r := range f.rooms {
		if !f.live || len(r.got) == 0 || r.got[len(r.got)-1] != newest[ch] {
			return false
		}
	}
	return true
}

func (f *follower) describe() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := fmt.Sprintf("live %v", f.live)
	for ch, r := range f.rooms {
		text += fmt.Sprintf(", %s at %d of %q, %d came, told at %v", ch, r.offset, r.epoch, len(r.got), r.told)
		if n := len(r.got); n > 0 {
			text += fmt.Sprintf(", last %d", r.got[n-1])
		}
	}
	return text
}

// verify checks what came: every number follows the one before, but where the
// follower was told that it was not recovered, and there it never goes back.
// It returns how often it was told.
func (f *follower) verify(strict bool) (told int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch, r := range f.rooms {
		gaps := map[int]bool{}
		for _, at := range r.told {
			gaps[at] = true
		}
		told += len(r.told)
		if strict && len(r.told) > 0 {
			f.t.Errorf("%s: told recovered:false %d times, although nothing was lost", ch, len(r.told))
		}
		for i := 1; i < len(r.got); i++ {
			if d := r.got[i] - r.got[i-1]; d != 1 && !(gaps[i] && d > 1) {
				f.t.Errorf("%s: %d follows %d, told: %v", ch, r.got[i], r.got[i-1], gaps[i])
			}
		}
	}
	return told
}

// publisher numbers the publications of some channels. It repeats one, with the
// same idempotency key and on any node, until it is acknowledged.
type publisher struct {
	t      testing.TB
	nodes  func() []*program
	run    string
	newest map[string]int
}

func (p *publisher) publish(channel string) {
	p.t.Helper()
	n := p.newest[channel] + 1
	body := fmt.Sprintf(`{"channel":%q,"data":%d,"idempotency_key":"%s-%d"}`, channel, n, p.run, n)
	for deadline := time.Now().Add(60 * time.Second); ; {
		nodes := p.nodes()
		err := post(nodes[rand.IntN(len(nodes))].Ops+"/api/publish", body)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s was never acknowledged: %v", body, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.newest[channel] = n
}

// post publishes once. The node may die meanwhile.
func post(url, body string) error {
	req, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", testAPIKey)
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct {
		Result struct{ Offset uint64 }
		Error  *struct{ Message string }
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != nil || answer.Result.Offset == 0 {
		return fmt.Errorf("answered %+v", answer)
	}
	return nil
}
