package engine

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
	dto "github.com/prometheus/client_model/go"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// BenchmarkAgainstRedisBenchmark publishes with history through the engine and
// runs the same script with redis-benchmark, in turn, on one Redis: same keys
// and arguments, same commands per round trip, same number of connections.
// What counts is the ratio: both share the machine with Redis.
func BenchmarkAgainstRedisBenchmark(b *testing.B) {
	const rounds, length = 5, 2 * time.Second
	program, err := exec.LookPath("redis-benchmark")
	if err != nil {
		b.Fatal(err)
	}
	addr := testdeps.Redis(b)
	client := openRedis(b, addr)
	e := NewRedis(RedisOptions{Client: client, Prefix: "bench"})
	n := start(b, e, "bench")
	n.publish("room", "x", kept(100)) // the server has its script
	i := e.servers.single.loaded.Load()
	pub := &protocol.Publication{Data: protocol.Raw(strings.Repeat("x", 128))}
	payload, err := pub.MarshalCF()
	if err != nil {
		b.Fatal(err)
	}
	k := e.keys
	args := []string{
		"evalsha", i.texts[publishScript].hash, "3", k.meta("room"), k.stream("room"), k.meta("room"),
		"ABCDEFGH", string(payload), "100", "60000", strconv.FormatInt(DefaultMetaTTL.Milliseconds(), 10),
		k.live("room"), ":", "0", "0", "", "0",
	}
	for b.Loop() {
		var ours, theirs float64
		for range rounds {
			rate, depth := publishFor(n, length)
			ours += rate / rounds
			theirs += redisBenchmark(b, program, addr, depth, args) / rounds
		}
		b.ReportMetric(ours, "publishes/s")
		b.ReportMetric(theirs, "redis-benchmark/s")
		b.ReportMetric(100*ours/theirs, "%")
	}
}

// publishFor publishes to one channel with a thousand publishers, and returns
// how many a second and how many in one round trip.
func publishFor(n *node, length time.Duration) (rate float64, depth int) {
	data := protocol.Raw(strings.Repeat("x", 128))
	var count atomic.Int64
	before := batches(n)
	ctx, stop := context.WithTimeout(context.Background(), length)
	defer stop()
	var wg sync.WaitGroup
	began := time.Now()
	for range 1024 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := n.Publish(context.Background(), "room", &protocol.Publication{Data: data}, kept(100)); err != nil {
					n.t.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began).Seconds()
	return float64(count.Load()) / took, max(1, int(float64(count.Load())/(batches(n)-before)))
}

// batches is how many round trips there were.
func batches(n *node) float64 {
	var m dto.Metric
	if err := n.Engine.(*Redis).metrics.batch.Write(&m); err != nil {
		n.t.Fatal(err)
	}
	return float64(m.GetHistogram().GetSampleCount())
}

func redisBenchmark(b *testing.B, program, addr string, depth int, args []string) float64 {
	b.Helper()
	_, port, _ := strings.Cut(addr, ":")
	flags := []string{"-h", "127.0.0.1", "-p", port, "-n", "100000", "-c", strconv.Itoa(laneCount), "-P", strconv.Itoa(depth), "--csv"}
	out, err := exec.Command(program, append(flags, args...)...).Output()
	if err != nil {
		b.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Split(lines[len(lines)-1], `","`) // "test","rps",…
	rate, err := strconv.ParseFloat(fields[1], 64)
	if err != nil {
		b.Fatalf("%v in %q", err, out)
	}
	return rate
}

// BenchmarkDeliver measures the way from Redis to the hub: another connection
// publishes in batches, this node hears them.
func BenchmarkDeliver(b *testing.B) {
	for _, channels := range []int{1, 1000} {
		b.Run(fmt.Sprint("channels=", channels), func(b *testing.B) {
			addr := testdeps.Redis(b)
			client := redisclient.Open(redisclient.Settings{Addresses: []string{addr}})
			defer func() { _ = client.Close() }()
			e := NewRedis(RedisOptions{Client: client, Prefix: "bench"})
			heard := &counter{}
			heard.all.L = &heard.mu
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); _ = e.Run(ctx, heard) }()
			defer func() { stop(); <-done }()
			live := make([]string, channels)
			for i := range live {
				name := fmt.Sprint("room", i)
				live[i] = e.keys.live(name)
				if err := e.Subscribe(ctx, name); err != nil {
					b.Fatal(err)
				}
			}
			payload, err := (&protocol.Publication{Data: protocol.Raw(strings.Repeat("x", 128))}).MarshalCF()
			if err != nil {
				b.Fatal(err)
			}
			message := "1p0:::\n" + string(payload)
			b.ReportAllocs()
			b.ResetTimer()
			const depth, ahead = 512, 16 << 10
			for sent := 0; sent < b.N; {
				pipe := client.Pipeline()
				for range min(depth, b.N-sent) {
					pipe.Publish(ctx, live[sent%channels], message)
					sent++
				}
				if _, err := pipe.Exec(ctx); err != nil {
					b.Fatal(err)
				}
				heard.await(sent - ahead) // far from the limit of a worker's queue
			}
			heard.await(b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}

// counter is a receiver that counts.
type counter struct {
	sink
	mu    sync.Mutex
	all   sync.Cond
	count int
}

func (c *counter) Publication(string, *protocol.Publication, string) int {
	c.mu.Lock()
	c.count++
	c.mu.Unlock()
	c.all.Signal()
	return 1
}

func (c *counter) await(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.count < n {
		c.all.Wait()
	}
}
