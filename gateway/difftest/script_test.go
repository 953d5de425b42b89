package difftest

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A script is a list of lines:
//
//	a: alice            connect as a, anew where that ended, with a token of alice
//	a> {…} | {…}        send commands in one frame, dialing first where needed
//	a! text             send a frame as it is
//	a mute              answer no more pings
//	a close             go away without a word
//	publish CH JSON     by the backend; also: publish skip=1 key=K tag=k=v CH JSON
//	forget CH           remove its history
//	kick USER [CODE]    disconnect by the backend
//	remove USER CH      unsubscribe by the backend
//	all JSON            a message to everybody
//	members CH          presence stats asked by the backend
//	sleep 30s           of a clock that costs nothing
//
// In what is sent <pad:N> are N letters, <jwt:CLAIMS> is a token, @+60 a Unix
// time in 60 seconds, <epoch:CH> the epoch of a stream as seen last,
// <offset:CH-2> two less than the highest offset seen, and <client:a> the id of
// a. After each line everything that can happen happens before the next one.
type script struct {
	name  string
	lines string
	// differs names the entry of differences that says why the answers differ.
	differs string
}

func (s script) steps() []string {
	var steps []string
	for line := range strings.Lines(s.lines) {
		if line = strings.TrimSpace(line); line != "" {
			steps = append(steps, line)
		}
	}
	return steps
}

// player runs one script against one server.
type player struct {
	srv   *server
	conns map[string]*conn
	names names
	out   []string
}

// stage is where one script plays: what it sets up ends with it.
type stage struct {
	testing.TB
	ends []func()
}

// Cleanup hides that of the test, which comes too late.
func (s *stage) Cleanup(f func()) { s.ends = append(s.ends, f) }

func (s *stage) clear() {
	for _, end := range slices.Backward(s.ends) {
		end()
	}
}

// play returns what a server answered, line by line, in a form in which the
// answers of two servers can be compared. It is called in a bubble.
func play(t testing.TB, start func(testing.TB) *server, steps []string) []string {
	st := &stage{TB: t}
	defer st.clear()
	p := &player{srv: start(st), conns: map[string]*conn{}, names: newNames()}
	st.Cleanup(func() {
		for _, c := range p.conns {
			c.close()
		}
		synctest.Wait()
	})
	for _, step := range steps {
		p.out = append(p.out, "# "+step)
		p.do(t, step)
		synctest.Wait()
		p.collect()
	}
	return p.out
}

func (p *player) do(t testing.TB, step string) {
	verb, rest, _ := strings.Cut(step, " ")
	switch {
	case len(verb) == 2 && verb[1] == ':':
		if c := p.conns[verb[:1]]; c != nil && c.ended() {
			delete(p.conns, verb[:1])
		}
		p.conn(t, verb[:1]).send(p.expand(`{"id":1,"connect":{"token":"<jwt:{"sub":"` + rest + `"}>"}}`))
	case len(verb) == 2 && verb[1] == '>':
		p.conn(t, verb[:1]).send(p.expand(strings.ReplaceAll(rest, " | ", "\n")))
	case len(verb) == 2 && verb[1] == '!':
		p.conn(t, verb[:1]).send(p.expand(rest))
	case rest == "mute":
		p.conn(t, verb).mute.Store(true)
	case rest == "close":
		p.conn(t, verb).close()
	default:
		p.backend(t, verb, strings.Fields(rest))
	}
}

func (p *player) backend(t testing.TB, verb string, args []string) {
	switch verb {
	case "publish":
		var o publishOptions
		for strings.Contains(args[0], "=") {
			switch name, value, _ := strings.Cut(args[0], "="); name {
			case "skip":
				o.skip = true
			case "key":
				o.key = value
			case "tag":
				k, v, _ := strings.Cut(value, "=")
				o.tags = map[string]string{k: v}
			}
			args = args[1:]
		}
		p.out = append(p.out, p.srv.publish(args[0], strings.Join(args[1:], " "), o))
	case "forget":
		p.srv.forget(args[0])
	case "kick":
		var code int
		if len(args) > 1 {
			code, _ = strconv.Atoi(args[1])
		}
		p.srv.kick(args[0], uint32(code))
	case "remove":
		p.srv.remove(args[0], args[1])
	case "all":
		p.srv.all(args[0])
	case "members":
		p.out = append(p.out, p.srv.members(args[0]))
	case "sleep":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(d)
	default:
		t.Fatalf("no such step: %s %q", verb, args)
	}
}

func (p *player) conn(t testing.TB, name string) *conn {
	if p.conns[name] == nil {
		p.conns[name] = dial(t, p.srv.net)
	}
	return p.conns[name]
}

var (
	inSeconds   = regexp.MustCompile(`@([+-]\d+)`)
	jwtMacro    = regexp.MustCompile(`<jwt:(.*?)>`)
	padMacro    = regexp.MustCompile(`<pad:(\d+)>`)
	offsetMacro = regexp.MustCompile(`<offset:([^>]*?)-(\d+)>`)
	epochMacro  = regexp.MustCompile(`<epoch:(.*?)>`)
	nameMacro   = regexp.MustCompile(`<client:(.*?)>`)
)

func (p *player) expand(s string) string {
	s = inSeconds.ReplaceAllStringFunc(s, func(m string) string {
		n, _ := strconv.Atoi(m[1:])
		return strconv.FormatInt(time.Now().Unix()+int64(n), 10)
	})
	s = padMacro.ReplaceAllStringFunc(s, func(m string) string {
		n, _ := strconv.Atoi(padMacro.FindStringSubmatch(m)[1])
		return strings.Repeat("x", n)
	})
	s = offsetMacro.ReplaceAllStringFunc(s, func(m string) string {
		parts := offsetMacro.FindStringSubmatch(m)
		less, _ := strconv.ParseUint(parts[2], 10, 64)
		top := p.names.top[parts[1]]
		return strconv.FormatUint(top-min(less, top), 10)
	})
	s = epochMacro.ReplaceAllStringFunc(s, func(m string) string { return p.names.lastEpoch[epochMacro.FindStringSubmatch(m)[1]] })
	s = nameMacro.ReplaceAllStringFunc(s, func(m string) string { return p.conns[nameMacro.FindStringSubmatch(m)[1]].id })
	return jwtMacro.ReplaceAllStringFunc(s, func(m string) string { return jwt(jwtMacro.FindStringSubmatch(m)[1]) })
}

// collect adds what the connections received since it was called last.
func (p *player) collect() {
	order := make([]string, 0, len(p.conns))
	received := map[string][]message{}
	for name, c := range p.conns {
		order = append(order, name)
		received[name] = c.take()
		for _, m := range received[name] {
			p.names.learn(name, c, m)
		}
	}
	slices.Sort(order)
	for _, name := range order {
		for _, line := range p.names.normal(p.conns[name], received[name]) {
			p.out = append(p.out, name+" "+line)
		}
	}
}

// bubble runs f under synctest. What the library leaves behind must not get
// into the next one: goroutines that outlive their node end in a minute of the
// bubble's own time, and two collections empty a pool of timers.
func bubble(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		f(t)
		time.Sleep(time.Minute)
	})
	runtime.GC()
	runtime.GC()
}

// diff describes the first difference of two transcripts, or is empty.
func diff(ours, theirs []string) string {
	i := 0
	for i < len(ours) && i < len(theirs) && ours[i] == theirs[i] {
		i++
	}
	if i == len(ours) && i == len(theirs) {
		return ""
	}
	from := max(i-8, 0)
	rest := func(list []string) string {
		end := i
		for end < len(list) && (end == i || !strings.HasPrefix(list[end], "#")) {
			end++
		}
		return strings.Join(list[i:end], "\n    ")
	}
	return fmt.Sprintf("after\n    %s\nours\n    %s\ntheirs\n    %s", strings.Join(ours[from:i], "\n    "), rest(ours), rest(theirs))
}
