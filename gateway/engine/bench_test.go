package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/internal/testdeps"
)

// sink is a receiver that costs nothing.
type sink struct{}

func (sink) Publication(string, *protocol.Publication, string) int { return 1 }
func (sink) Join(string, *protocol.ClientInfo)                     {}
func (sink) Leave(string, *protocol.ClientInfo)                    {}
func (sink) Lost([]string)                                         {}
func (sink) Survey(string, []byte) []byte                          { return nil }
func (sink) Self() Node                                            { return Node{UID: "bench"} }

func BenchmarkPublish(b *testing.B) {
	engines := map[string]func(b *testing.B) Engine{
		"memory": func(*testing.B) Engine { return NewMemory() },
		"redis": func(b *testing.B) Engine {
			return NewRedis(RedisOptions{Client: openRedis(b, testdeps.Redis(b)), Prefix: "bench"})
		},
	}
	for _, name := range []string{"memory", "redis"} {
		for kind, o := range map[string]PublishOptions{
			"live":    {},
			"history": {HistorySize: 100, HistoryTTL: time.Minute},
		} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				e := engines[name](b)
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan struct{})
				go func() { defer close(done); _ = e.Run(ctx, sink{}) }()
				defer func() { stop(); <-done }()
				benchmarkPublish(b, e, o)
			})
		}
	}
}

// benchmarkPublish has 1024 publishers for each processor: that many requests
// are what makes batches.
func benchmarkPublish(b *testing.B, e Engine, o PublishOptions) {
	if err := e.Subscribe(b.Context(), "room 0"); err != nil {
		b.Fatal(err)
	}
	channels := strings.Split(strings.Repeat("room ,", 64), ",")
	for i := range channels {
		channels[i] += string(rune('0' + i))
	}
	data := protocol.Raw(strings.Repeat("x", 128))
	b.ReportAllocs()
	b.SetParallelism(1024)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := e.Publish(b.Context(), channels[i%len(channels)], &protocol.Publication{Data: data}, o); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "publishes/s")
}
