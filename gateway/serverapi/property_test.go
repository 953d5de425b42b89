package serverapi

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

// operation is a random command, and the answer it must give.
type operation struct {
	method, body string
}

// oracle knows what publications have to answer and what has to arrive.
type oracle struct {
	rnd    *rand.Rand
	serial int
	books  map[string]*book
}

// book is what has to be true of a channel with history.
type book struct {
	socket *socket
	epoch  string
	offset int
	keys   map[string]int // offset by idempotency key
	data   []int          // in the order of delivery
}

func (o *oracle) open(w *world, channels []string) {
	o.books = map[string]*book{}
	for _, ch := range channels {
		s := w.connect("u"+ch[5:], `{"id":2,"subscribe":{"channel":"`+ch+`"}}`)
		o.books[ch] = &book{socket: s, epoch: w.epochOf(ch), keys: map[string]int{}}
	}
}

// publish makes one publication, often a repeat, and the result it has to get.
func (o *oracle) publish(ch string) (body, result string) {
	b := o.books[ch]
	o.serial++
	body = fmt.Sprintf(`"data":%d`, o.serial)
	at := b.offset + 1
	if o.rnd.IntN(3) > 0 {
		key := fmt.Sprintf("k%d", o.rnd.IntN(20))
		body += `,"idempotency_key":"` + key + `"`
		if first, repeat := b.keys[key]; repeat {
			return body, fmt.Sprintf(`{"offset":%d,"epoch":"%s"}`, first, b.epoch)
		}
		b.keys[key] = at
	}
	b.offset = at
	b.data = append(b.data, o.serial)
	return body, fmt.Sprintf(`{"offset":%d,"epoch":"%s"}`, at, b.epoch)
}

// command makes one command about a channel, and the result it has to get.
func (o *oracle) command(ch string) (operation, string) {
	kind := o.rnd.IntN(6)
	if kind == 0 {
		return operation{"publish", `{"channel":"nope:x","data":1}`}, `error {"code":102,"message":"unknown channel"}`
	}
	body, result := o.publish(ch)
	if kind == 1 {
		return operation{"broadcast", `{"channels":["` + ch + `","nope:x"],` + body + `}`},
			`{"responses":[{"result":` + result + `},{"error":{"code":102,"message":"unknown channel"}}]}`
	}
	return operation{"publish", `{"channel":"` + ch + `",` + body + `}`}, result
}

// TestRandomBatches makes random publications, many of them repeats, alone, in
// batches and in the older form, in order and in parallel: each answers as it
// would alone, in order, and is delivered once.
func TestRandomBatches(t *testing.T) {
	rounds := 60
	if testdeps.Long() {
		rounds = 3000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorld(t)
	o := &oracle{rnd: rand.New(rand.NewPCG(seed, 1))}
	channels := []string{"room:a", "room:b", "room:c"}
	o.open(w, channels)
	for range rounds {
		// In parallel only what goes to different channels has a known order.
		parallel, n := o.rnd.IntN(2) == 0, 1+o.rnd.IntN(6)
		if parallel {
			o.rnd.Shuffle(len(channels), func(i, j int) { channels[i], channels[j] = channels[j], channels[i] })
			n = 1 + o.rnd.IntN(len(channels))
		}
		commands, results := make([]operation, n), make([]string, n)
		for i := range n {
			commands[i], results[i] = o.command(channels[i%len(channels)])
		}
		w.runAll(commands, results, parallel, o.rnd.IntN(3))
	}
	for ch, b := range o.books {
		w.must("publish", `{"channel":"`+ch+`","data":0}`)
		for _, want := range append(b.data, 0) {
			if got := b.socket.nextPub(); got != strconv.Itoa(want) {
				t.Fatalf("%s was delivered %s, want %d of %v", ch, got, want, b.data)
			}
		}
	}
}

// runAll sends commands in one of three ways and compares the answers.
func (w *world) runAll(commands []operation, results []string, parallel bool, way int) {
	w.t.Helper()
	var want []string
	field := func(i int) string {
		if e, failed := strings.CutPrefix(results[i], "error "); failed {
			return `"error":` + e
		}
		if way == 1 {
			return `"` + commands[i].method + `":` + results[i]
		}
		return `"result":` + results[i]
	}
	switch way {
	case 0:
		for i, c := range commands {
			if _, answer := w.post(c.method, c.body); answer != `{`+field(i)+`}` {
				w.t.Fatalf("%s %s: %s, want %s", c.method, c.body, answer, field(i))
			}
		}
	case 1:
		var parts []string
		for i, c := range commands {
			parts = append(parts, `{"`+c.method+`":`+c.body+`}`)
			want = append(want, `{`+field(i)+`}`)
		}
		body := fmt.Sprintf(`{"commands":[%s],"parallel":%v}`, strings.Join(parts, ","), parallel)
		if _, answer := w.post("batch", body); answer != `{"replies":[`+strings.Join(want, ",")+`]}` {
			w.t.Fatalf("%s: %s, want %s", body, answer, want)
		}
	case 2:
		var lines []string
		for i, c := range commands {
			lines = append(lines, fmt.Sprintf(`{"id":%d,"method":"%s","params":%s}`, i+1, c.method, c.body))
			want = append(want, fmt.Sprintf(`{"id":%d,%s}`, i+1, field(i)))
		}
		if _, answer := w.postCommands(strings.Join(lines, "\n")); answer != strings.Join(want, "\n") {
			w.t.Fatalf("%s:\n%s\nwant\n%s", lines, answer, strings.Join(want, "\n"))
		}
	}
}
