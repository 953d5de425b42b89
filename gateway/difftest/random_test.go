package difftest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// TestRandomScripts plays scripts that nobody wrote. A failure prints a script
// as short as it can be made, and the seed that makes it again: DIFFTEST_SEED.
func TestRandomScripts(t *testing.T) {
	count, steps := 40, 40
	if testdeps.Long() {
		count, steps = 3000, 60
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DIFFTEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("DIFFTEST_SEED: %v", err)
		}
	}
	t.Logf("DIFFTEST_SEED=%d: %d scripts of %d steps", seed, count, steps)
	bubble(t, func(t *testing.T) {
		for i := range count {
			script := newWriter(seed + uint64(i)).write(steps)
			if d := compare(t, script); d != "" {
				script = shorten(t, script)
				t.Errorf("DIFFTEST_SEED=%d, script\n%s\n%s", seed+uint64(i), strings.Join(script, "\n"), compare(t, script))
				return
			}
		}
	})
}

func compare(t testing.TB, steps []string) string {
	return diff(play(t, ours, steps), play(t, theirs, steps))
}

// shorten leaves out what a script needs not to differ.
func shorten(t testing.TB, steps []string) []string {
	for size := len(steps) / 2; size > 0; size /= 2 {
		for i := 0; i+size <= len(steps); {
			without := slices.Concat(steps[:i], steps[i+size:])
			if compare(t, without) != "" {
				steps = without
			} else {
				i += size
			}
		}
	}
	return steps
}

// writer makes up scripts. What it writes stays out of the reach of
// differences.
type writer struct {
	*rand.Rand
	id     int
	n      int // of publications
	asleep int // seconds
}

func newWriter(seed uint64) *writer { return &writer{Rand: rand.New(rand.NewPCG(seed, 0)), id: 100} }

func (w *writer) pick(from ...string) string { return from[w.IntN(len(from))] }

func (w *writer) write(steps int) []string {
	script := []string{`publish delta:x {"i":0}`, "a: alice", "b: bob"}
	for len(script) < steps {
		script = append(script, w.step())
	}
	return script
}

// rooms are the channels of random scripts: few, so that much happens in each.
func (w *writer) room() string {
	return w.pick("room:x", "room:x", "small:x", "small:x", "rec:x", "asked:x", "pos:x", "plain:x", "member:x", "locked:x",
		"delta:x", "filter:x", "cache:x", "dialog:1#alice,bob", "nowhere:x", "$room:x", "room:ü")
}

// plain is a room that is not closed to some, see differences.
func (w *writer) plain() string {
	for {
		if channel := w.room(); !strings.ContainsAny(channel, "$#") {
			return channel
		}
	}
}

// open is a room that the backend can publish to.
func (w *writer) open() string {
	return w.pick("room:x", "small:x", "small:x", "rec:x", "asked:x", "pos:x", "plain:x", "member:x", "delta:x", "filter:x", "cache:x", "#alice", "dialog:1#alice,bob")
}

func (w *writer) step() string {
	who := w.pick("a", "b", "c")
	user := map[string]string{"a": "alice", "b": "bob", "c": "carol"}[who]
	switch n := w.IntN(100); {
	case n < 8:
		return who + ": " + user
	case n < 12:
		return who + " close"
	case n < 15:
		return w.sleep()
	case n < 30:
		w.n++
		channel, option := w.open(), w.pick("", "", "", "", "skip=1 ", "tag=a=b ", "tag=a=c ", "key=k ")
		if channel == "delta:x" && option == "skip=1 " {
			option = ""
		}
		return fmt.Sprintf(`publish %s%s {"text":"the same text over and over","i":%d}`, option, channel, w.n)
	case n < 32:
		return "forget " + w.pick("room:x", "small:x", "rec:x")
	case n < 33:
		return "kick " + user + w.pick("", " 3011", " 4500")
	case n < 36:
		return "remove " + user + " " + w.open()
	case n < 38:
		return `all {"to":"all"}`
	case n < 40:
		return "members " + w.pick("room:x", "member:x")
	case n < 45: // several that only read
		list := []string{w.read(), w.read(), w.read()}
		return who + "> " + strings.Join(list[:1+w.IntN(3)], " | ")
	case n < 55:
		return who + "> " + w.read()
	case n < 65:
		w.n++
		return who + "> " + w.command("publish", w.plain(), fmt.Sprintf(`,"data":{"i":%d}`, w.n))
	case n < 77:
		return who + "> " + w.command("unsubscribe", w.room(), "")
	}
	return who + "> " + w.subscribe(user)
}

// sleep lets histories expire, but no epoch of nothing.
func (w *writer) sleep() string {
	s := []int{1, 1, 10, 21}[w.IntN(4)]
	if w.asleep+s > 55 {
		s = 0
	}
	w.asleep += s
	return fmt.Sprintf("sleep %ds", s)
}

func (w *writer) command(kind, channel, more string) string {
	w.id++
	return fmt.Sprintf(`{"id":%d,"%s":{"channel":"%s"%s}}`, w.id, kind, channel, more)
}

func (w *writer) subscribe(user string) string {
	channel := w.room()
	var more strings.Builder
	for _, option := range []string{"recoverable", "positioned", "join_leave"} {
		if w.IntN(3) == 0 {
			more.WriteString(`,"` + option + `":true`)
		}
	}
	if w.IntN(2) == 0 {
		more.WriteString(`,"recover":true`)
		if w.IntN(8) > 0 {
			fmt.Fprintf(&more, `,"offset":<offset:%s-%d>`, channel, w.IntN(5))
		}
		if w.IntN(4) > 0 {
			more.WriteString(`,"epoch":"` + w.pick("<epoch:"+channel+">", "<epoch:"+channel+">", "<epoch:"+channel+">", "other") + `"`)
		}
	}
	if flag := w.IntN(4); flag > 0 {
		fmt.Fprintf(&more, `,"flag":%d`, flag)
	}
	if w.IntN(4) == 0 {
		more.WriteString(`,"delta":"fossil"`)
	}
	if channel == "filter:x" && w.IntN(2) == 0 {
		more.WriteString(`,"tf":{"key":"a","cmp":"` + w.pick("eq", "neq") + `","val":"b"}`)
	}
	if strings.HasPrefix(channel, "$") && w.IntN(4) > 0 || w.IntN(10) == 0 {
		more.WriteString(`,"token":"<jwt:{"sub":"` + user + `","channel":"` + channel + `"` +
			w.pick("", "", `,"exp":@+36000`, `,"exp":@-1`, `,"info":{"seat":1}`) + `}>` + w.pick("", "", "", "", "x") + `"`)
	}
	return w.command("subscribe", channel, more.String())
}

func (w *writer) read() string {
	channel := w.plain()
	switch w.IntN(4) {
	case 0:
		return w.command("presence", channel, "")
	case 1:
		return w.command("presence_stats", channel, "")
	}
	more := fmt.Sprintf(`,"limit":%d`, w.IntN(6)-1)
	if w.IntN(2) == 0 {
		more += fmt.Sprintf(`,"since":{"offset":<offset:%s-%d>`, channel, w.IntN(5))
		if w.IntN(3) > 0 {
			more += `,"epoch":"` + w.pick("<epoch:"+channel+">", "<epoch:"+channel+">", "other") + `"`
		}
		more += "}"
	}
	if w.IntN(3) == 0 {
		more += `,"reverse":true`
	}
	return w.command("history", channel, more)
}
