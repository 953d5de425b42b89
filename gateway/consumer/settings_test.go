package consumer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

func TestCheck(t *testing.T) {
	const at = "consumers[0]."
	for _, tt := range []struct {
		name   string
		change func(*Consumer)
		want   []string
	}{
		{"defaults", func(*Consumer) {}, nil},
		{"hash tag", func(c *Consumer) { c.Stream.Streams = []string{"a{b}c", "{a:b}", "x"} }, nil},
		{"no name", func(c *Consumer) { c.Name = "" }, []string{at + "name"}},
		{"odd name", func(c *Consumer) { c.Name = "a b" }, []string{at + "name"}},
		{"other type", func(c *Consumer) { c.Type = "kafka" }, []string{at + "type"}},
		{"no stream", func(c *Consumer) { c.Stream.Streams = nil }, []string{at + "redis_stream.streams"}},
		{"odd streams", func(c *Consumer) {
			c.Stream.Streams = []string{"", "a b", "{}", "{a}{b}", "a{b", "a}b", strings.Repeat("a", 201)}
		}, slices.Collect(func(yield func(string) bool) {
			for i := range 7 {
				yield(at + "redis_stream.streams[" + string(rune('0'+i)) + "]")
			}
		})},
		{"twice", func(c *Consumer) { c.Stream.Streams = []string{"a", "a"} }, []string{at + "redis_stream.streams[1]"}},
		{"many", func(c *Consumer) {
			c.Stream.Streams = nil
			for i := range maxStreams + 1 {
				c.Stream.Streams = append(c.Stream.Streams, strings.Repeat("a", i+1))
			}
		}, []string{at + "redis_stream.streams"}},
		{"group", func(c *Consumer) { c.Stream.ConsumerGroup = "" }, []string{at + "redis_stream.consumer_group"}},
		{"workers", func(c *Consumer) { c.Stream.NumWorkers = 0 }, []string{at + "redis_stream.num_workers"}},
		{"timeout", func(c *Consumer) { c.Stream.VisibilityTimeout = time.Second }, []string{at + "redis_stream.visibility_timeout"}},
		{"entry", func(c *Consumer) { c.Stream.MaxEntry = 32 << 20 }, []string{at + "redis_stream.max_entry"}},
		{"give up", func(c *Consumer) { c.Stream.GiveUpAfter = 0 }, []string{at + "redis_stream.give_up_after"}},
		{"dead", func(c *Consumer) { c.Stream.DeadMaxLen = -1 }, []string{at + "redis_stream.dead_max_len"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c Consumer
			settings.Defaults(&c)
			c.Name, c.Stream.Streams = "c", []string{"s"}
			tt.change(&c)
			var got []string
			Check([]Consumer{c}, true, func(path, _ string) { got = append(got, path) })
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	var c Consumer
	settings.Defaults(&c)
	c.Name, c.Stream.Streams = "c", []string{"s", "t"}
	var got []string
	Check([]Consumer{c, c}, false, func(path, _ string) { got = append(got, path) })
	want := []string{
		"consumers[0].enabled", "consumers[1].name", "consumers[1].enabled",
		"consumers[1].redis_stream.streams[0]", "consumers[1].redis_stream.streams[1]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("twice the same without Redis: got %q, want %q", got, want)
	}
	if c.Enabled = false; Blocked([]Consumer{c, {Enabled: true, Stream: c.Stream}}) != 2 {
		t.Error("connections are counted wrongly")
	}
}

func TestLeaseKey(t *testing.T) {
	for stream, want := range map[string]string{
		"orders": "p:consumer:{orders}:g", "a{b}c": "p:consumer:a{b}c:g", "{a:b}": "p:consumer:{a:b}:g",
	} {
		if got := leaseKey("p", stream, "g"); got != want {
			t.Errorf("%s has the lease %s, want %s", stream, got, want)
		}
	}
}
