package gateway

import (
	"context"
	"encoding/json"
	mathrand "math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
)

func TestTail(t *testing.T) {
	pub := func(offset uint64, size int) *protocol.Publication {
		return &protocol.Publication{Offset: offset, Data: make(protocol.Raw, size)}
	}
	var tl tail
	want := func(what string, bytes int, offsets ...uint64) {
		t.Helper()
		var got []uint64
		for _, p := range tl.pubs {
			got = append(got, p.Offset)
		}
		if !slices.Equal(got, offsets) || tl.bytes != bytes {
			t.Errorf("%s: %v with %d bytes, want %v with %d", what, got, tl.bytes, offsets, bytes)
		}
	}
	for o := range uint64(5) {
		tl.push(pub(o+11, 10), time.Second, 3, 100)
	}
	want("by count", 30, 13, 14, 15)
	tl.push(pub(16, 85), time.Second, 3, 100)
	want("by bytes", 95, 15, 16)
	tl.push(pub(17, 500), time.Second, 3, 100)
	want("the newest stays", 500, 17)
	tl.prepend([]*protocol.Publication{pub(15, 1), pub(16, 1), pub(17, 500)}, 17, 2*time.Second, 3, 502)
	want("read", 502, 15, 16, 17)
	tl.prepend([]*protocol.Publication{pub(12, 1), pub(13, 1)}, 17, time.Second, 10, 1000)
	want("not joining", 502, 15, 16, 17)
	tl.prepend([]*protocol.Publication{pub(13, 1), pub(14, 1)}, 17, time.Second, 4, 1000)
	want("read, by count", 503, 14, 15, 16, 17)
	if ps, ok := tl.last(2, time.Second); !ok || len(ps) != 2 || ps[0].Offset != 16 {
		t.Error("last 2:", ps, ok)
	}
	if _, ok := tl.last(5, time.Second); ok {
		t.Error("5 of 4")
	}
	if _, ok := tl.last(1, 2*time.Second); ok {
		t.Error("after its time")
	}
	if tl.at(14).Offset != 14 || tl.at(13) != nil || tl.at(18) != nil {
		t.Error("at")
	}
	tl.reset()
	tl.prepend([]*protocol.Publication{pub(4, 1), pub(5, 1)}, 5, time.Second, 10, 1000)
	want("read into an empty one", 2, 4, 5)
	tl.reset()
	tl.prepend([]*protocol.Publication{pub(4, 1)}, 5, time.Second, 10, 1000)
	want("read before the top moved", 0)
}

// Clients subscribe, unsubscribe, publish and go, in every order; at the end
// everything agrees and nothing is left.
func TestChurn(t *testing.T) {
	const workers, lives, steps = 8, 20, 30
	h := startHub(t, func(s *Settings) {
		quietStorm(s)
		s.Client.ChannelLinger = time.Millisecond // channels end in the middle of it all
		s.Client.CommandRateLimit = 0
		s.Client.PositionCheckDelay = time.Millisecond
	})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	first := h.attend("first")
	first.goAway()
	awaitRun()
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	stop := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		var buf []*channel
		for shard := 0; ; shard++ {
			select {
			case <-stop:
				return
			default:
				buf = h.sweep(shard%len(h.channels.shards), buf)
			}
			if shard%500 == 0 {
				h.Lost(nil)
			}
		}
	})
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			rnd := mathrand.New(mathrand.NewPCG(seed, uint64(n)))
			for range lives {
				a := h.attend("user" + itoa(rnd.IntN(5)))
				for range steps {
					channel := []string{"room:a", "room:b", "feed:a", "live:a"}[rnd.IntN(4)]
					switch rnd.IntN(6) {
					case 0, 1:
						a.receive([]byte(`{"id":2,"subscribe":{"channel":"` + channel + `","recover":true}}`))
					case 2:
						a.receive([]byte(`{"id":3,"unsubscribe":{"channel":"` + channel + `"}}`))
					case 3:
						_ = h.Unsubscribe(context.Background(), a.user(), channel, Selection{})
					default:
						_, _ = h.Publish(context.Background(), channel, json.RawMessage(`"x"`), PublishOptions{})
					}
				}
				a.goAway()
			}
		})
	}
	wg.Wait()
	close(stop)
	sweeper.Wait()
	for len(h.keptNames()) > 0 { // what lingers is swept away
		runtime.Gosched()
	}
	if err := h.Check(); err != nil {
		t.Error(err)
	}
	if clients, users := h.clients.counts(); clients != 0 || users != 0 || h.budget.used.Load() != 0 {
		t.Errorf("%d clients, %d users, %d bytes are left", clients, users, h.budget.used.Load())
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if grown := heapInUse() - heap; grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// runWaits is how Run stands in a list of goroutines once it has started all of
// its own.
var runWaits = regexp.MustCompile(`\[select[^\]]*\]:\n\S+/gateway\.\(\*Hub\)\.Run\(`)

func awaitRun() {
	all := make([]byte, 1<<20)
	for !runWaits.Match(all[:runtime.Stack(all, true)]) {
		runtime.Gosched()
	}
}

func (th *testHub) keptNames() (names []string) {
	th.channels.each(func(ch *channel) { names = append(names, ch.name) })
	return names
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkReconnect recovers ten publications from memory.
func BenchmarkReconnect(b *testing.B) {
	h := startHub(b, func(s *Settings) { quietStorm(s); s.Client.CommandRateLimit = 0 })
	a := h.attend("alice")
	b.Cleanup(a.goAway)
	for range 10 {
		h.publish("feed:a", `"`+strings.Repeat("x", 100)+`"`)
	}
	command := []byte("{\"id\":2,\"subscribe\":{\"channel\":\"feed:a\",\"recover\":true}}\n{\"id\":3,\"unsubscribe\":{\"channel\":\"feed:a\"}}")
	a.receive(command)
	before := h.engine.reads.Load()
	b.ReportAllocs()
	for b.Loop() {
		a.receive(command)
		a.sock.mu.Lock()
		a.sock.frames = a.sock.frames[:0]
		a.sock.mu.Unlock()
	}
	b.ReportMetric(float64(h.engine.reads.Load()-before)/float64(b.N), "reads/op")
}

// BenchmarkSweep looks after 100,000 idle channels.
func BenchmarkSweep(b *testing.B) {
	h := startHub(b, quietStorm)
	r := h.rules.unnamed
	for i := range 100_000 {
		h.channels.make(h.Hub, "c"+itoa(i), r).idle = ticksUp(time.Hour)
	}
	var buf []*channel
	shard := 0
	for b.Loop() {
		buf = h.sweep(shard, buf)
		shard = (shard + 1) % len(h.channels.shards)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(100_000/64), "ns/channel")
}
