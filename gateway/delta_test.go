package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/centrifugal/fdelta"
	"github.com/centrifugal/protocol"
)

// texts makes versions of a document, each a little different from the one
// before, in words of several alphabets.
func texts(r *rand.Rand, n int) []string {
	words := []string{"价格", "数量", "alpha", "é", "🙂", "订单", "beta"}
	for c := range 64 {
		words = append(words, string(rune(0x4e00+c))) // they begin with the same byte
	}
	doc := make([]string, 60)
	for i := range doc {
		doc[i] = words[r.IntN(len(words))]
	}
	list := make([]string, n)
	for i := range list {
		for range 1 + r.IntN(3) {
			doc[r.IntN(len(doc))] = words[r.IntN(len(words))]
		}
		if r.IntN(10) == 0 { // something else altogether: no delta is shorter
			r.Shuffle(len(doc), func(a, b int) { doc[a], doc[b] = doc[b], doc[a] })
		}
		b, _ := json.Marshal(map[string]any{"n": i, "text": strings.Join(doc, "")})
		list[i] = string(b)
	}
	return list
}

// deltaReader is what an SDK does with publications of a subscription.
type deltaReader struct {
	t      *testing.T
	binary bool
	base   []byte
	deltas int
}

func (d *deltaReader) read(p *protocol.Publication) string {
	d.t.Helper()
	data := []byte(p.Data)
	if !d.binary {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			d.t.Fatalf("data is no string: %s", data)
		}
		data = []byte(s)
	}
	if p.Delta {
		d.deltas++
		whole, err := fdelta.Apply(d.base, data)
		if err != nil {
			d.t.Fatalf("delta %q of %q: %v", data, d.base, err)
		}
		data = whole
	}
	d.base = slices.Clone(data)
	return string(data)
}

// Deltas add up to what was published, live, for those who were slow, and
// after a reconnect, whatever the encoding.
func TestDeltas(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, channel := range []string{"delta:a", "ticker:a"} {
		for _, o := range []dialOptions{{decoded: true}, {decoded: true, protobuf: true}} {
			t.Run(fmt.Sprintf("%s protobuf %v", channel, o.protobuf), func(t *testing.T) {
				h := startHub(t, nil)
				w := h.dial(o)
				w.send(`{"id":1,"connect":{"token":"alice"}}`, `{"id":2,"subscribe":{"channel":"`+channel+`","delta":"fossil","flag":1}}`)
				<-w.replies
				if r := (<-w.replies).Subscribe; !r.Delta {
					t.Fatalf("%v", r)
				}
				d := &deltaReader{t: t, binary: o.protobuf}
				list := texts(rand.New(rand.NewPCG(seed, 1)), 300)
				for i, data := range list {
					if _, err := h.Publish(t.Context(), channel, json.RawMessage(data), PublishOptions{Delta: true}); err != nil {
						t.Fatal(err)
					}
					p := (<-w.replies).Push.Pub
					if got := d.read(p); got != data {
						t.Fatalf("publication %d is %s, want %s", i, got, data)
					}
					if i == 0 && p.Delta {
						t.Error("the first is a delta")
					}
				}
				if d.deltas < 200 {
					t.Errorf("%d of 300 are deltas", d.deltas)
				}
			})
		}
	}
}

// Without the publisher's wish nothing is a delta, but the next one may be.
func TestDeltaWished(t *testing.T) {
	h := startHub(t, nil)
	w := h.dial(dialOptions{decoded: true})
	w.send(`{"id":1,"connect":{"token":"alice"}}`, `{"id":2,"subscribe":{"channel":"ticker:a","delta":"fossil"}}`)
	<-w.replies
	<-w.replies
	d := &deltaReader{t: t}
	for i, wish := range []bool{true, false, true, true, false} {
		data := fmt.Sprintf(`{"n":%d,"x":"%s"}`, i, strings.Repeat("abc", 30))
		if _, err := h.Publish(t.Context(), "ticker:a", json.RawMessage(data), PublishOptions{Delta: wish}); err != nil {
			t.Fatal(err)
		}
		p := (<-w.replies).Push.Pub
		if p.Delta != (wish && i > 0) {
			t.Errorf("publication %d: delta %v", i, p.Delta)
		}
		if got := d.read(p); got != data {
			t.Errorf("got %s", got)
		}
	}
}

// A subscriber that missed publications gets the next ones in full, or from
// history; deltas begin anew from there.
func TestDeltaRepairAndRecovery(t *testing.T) {
	for _, binary := range []bool{false, true} {
		t.Run(fmt.Sprintf("protobuf %v", binary), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHub(t, func(s *Settings) {
					s.Client.ChannelBacklog = 2
					for i := range s.Channel.Namespaces {
						if n := &s.Channel.Namespaces[i]; n.Name == "delta" {
							n.HistorySize = 100
						}
					}
				})
				o := dialOptions{deaf: true, decoded: true, protobuf: binary}
				w := h.dial(o)
				w.send(`{"id":1,"connect":{"token":"alice"}}`, `{"id":2,"subscribe":{"channel":"delta:a","delta":"fossil"}}`)
				synctest.Wait() // its writer hangs in the first frame
				list := texts(rand.New(rand.NewPCG(1, 2)), 30)
				for _, data := range list[:20] {
					h.publish("delta:a", data)
				}
				go w.pump()
				<-w.replies
				epoch := (<-w.replies).Subscribe.Epoch
				d := &deltaReader{t: t, binary: binary}
				expect := func(pubs []*protocol.Publication, from int) {
					t.Helper()
					for i, p := range pubs {
						if got := d.read(p); got != list[from+i] || p.Offset != uint64(from+i+1) {
							t.Fatalf("publication %d is %s, want %s", p.Offset, got, list[from+i])
						}
					}
				}
				for i := range 20 {
					expect([]*protocol.Publication{(<-w.replies).Push.Pub}, i)
				}
				h.publish("delta:a", list[20])
				if p := (<-w.replies).Push.Pub; !p.Delta {
					t.Error("no delta after the repair")
				} else {
					expect([]*protocol.Publication{p}, 20)
				}
				w.send(`{"id":3,"unsubscribe":{"channel":"delta:a"}}`)
				<-w.replies
				for _, data := range list[21:25] {
					h.publish("delta:a", data)
				}
				w.send(`{"id":4,"subscribe":{"channel":"delta:a","delta":"fossil","recover":true,"offset":21,"epoch":"` + epoch + `"}}`)
				r := (<-w.replies).Subscribe
				if !r.Recovered || !r.Delta || len(r.Publications) != 4 || r.Publications[0].Delta || !slices.ContainsFunc(r.Publications, func(p *protocol.Publication) bool { return p.Delta }) {
					t.Fatalf("%v", r)
				}
				d.base = nil
				expect(r.Publications, 21)
				for i := 25; i < 30; i++ {
					h.publish("delta:a", list[i])
					expect([]*protocol.Publication{(<-w.replies).Push.Pub}, i)
				}
				w.send(`{"id":5,"history":{"channel":"delta:a","limit":-1}}`)
				for i, p := range (<-w.replies).History.Publications {
					if string(p.Data) != list[i] || p.Delta {
						t.Errorf("history %d is %s, delta %v", i, p.Data, p.Delta)
					}
				}
			})
		})
	}
}

// Subscribers of one channel that speak differently and began at different
// times all read the same.
func TestDeltaMixed(t *testing.T) {
	h := startHub(t, nil)
	list := texts(rand.New(rand.NewPCG(3, 4)), 60)
	type reader struct {
		*wire
		*deltaReader
	}
	var readers []reader
	for i, data := range list {
		if i%10 == 0 {
			o := dialOptions{decoded: true, protobuf: i%20 == 0}
			w := h.dial(o)
			w.send(`{"id":1,"connect":{"token":"u`+itoa(i)+`"}}`, `{"id":2,"subscribe":{"channel":"delta:a","delta":"fossil","flag":`+itoa(i/20%2)+`}}`)
			<-w.replies
			<-w.replies
			readers = append(readers, reader{w, &deltaReader{t: t, binary: o.protobuf}})
		}
		h.publish("delta:a", data)
		for _, r := range readers {
			if got := r.read((<-r.replies).Push.Pub); got != data {
				t.Fatalf("publication %d is %s", i, got)
			}
		}
	}
}

func TestAlignDelta(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	aligned := 0
	list := texts(r, 2000)
	for i := 1; i < len(list); i++ {
		base, data := []byte(list[i-1]), []byte(list[i])
		delta := fdelta.Create(base, data)
		if !utf8.Valid(delta) {
			aligned++
		}
		checkAligned(t, base, data, alignDelta(delta, data))
	}
	if aligned < 100 {
		t.Errorf("only %d deltas had to be aligned", aligned)
	}
}

func checkAligned(t *testing.T, base, data, delta []byte) {
	t.Helper()
	if delta == nil || !utf8.Valid(delta) {
		t.Fatalf("delta from %q to %q became %q", base, data, delta)
	}
	if got, err := fdelta.Apply(base, delta); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%q applied to %q is %q: %v", delta, base, got, err)
	}
}

func FuzzAlignDelta(f *testing.F) {
	f.Add([]byte("价格价格价格价格abc数量"), []byte("价格价格价柼价格abc数量"), []byte("0\n0;"))
	f.Add([]byte(strings.Repeat("订单", 20)), []byte(strings.Repeat("订单", 9)+"订卖"+strings.Repeat("订单", 10)), []byte("3@0,"))
	f.Fuzz(func(t *testing.T, base, data, junk []byte) {
		alignDelta(junk, data) // must not panic
		if utf8.Valid(base) && utf8.Valid(data) {
			checkAligned(t, base, data, alignDelta(fdelta.Create(base, data), data))
		}
	})
}

// What is shorter in full is sent in full.
func TestDeltaOnlyIfShorter(t *testing.T) {
	for _, o := range []dialOptions{{decoded: true}, {decoded: true, protobuf: true}} {
		h := startHub(t, nil)
		w := h.dial(o)
		w.send(`{"id":1,"connect":{"token":"alice"}}`, `{"id":2,"subscribe":{"channel":"delta:a","delta":"fossil"}}`)
		<-w.replies
		<-w.replies
		for _, data := range []string{"1", "22", `"x"`} {
			h.publish("delta:a", data)
			want := data
			if !o.protobuf {
				want = string(quote([]byte(data)))
			}
			if p := (<-w.replies).Push.Pub; p.Delta || string(p.Data) != want {
				t.Errorf("%s was sent as %q, delta %v", data, p.Data, p.Delta)
			}
		}
	}
}
