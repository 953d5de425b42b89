package consumer

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

// TypeRedisStream is the one type of consumer there is.
const TypeRedisStream = "redis_stream"

// maxStreams bounds the streams of all consumers together: each has a
// connection that waits for news.
const maxStreams = 32

// Consumer is one source of calls. The names are Centrifugo's where the
// meaning is the same.
type Consumer struct {
	Name    string         `yaml:"name" doc:"What the consumer is called in logs and metrics: letters, digits and - _ . only."`
	Enabled bool           `yaml:"enabled" default:"true" doc:"Whether it runs."`
	Type    string         `yaml:"type" default:"redis_stream" doc:"Where calls come from: redis_stream, streams of the Redis in redis."`
	Stream  StreamSettings `yaml:"redis_stream" doc:"The streams."`
}

// StreamSettings are those of a consumer of Redis Streams.
type StreamSettings struct {
	Streams       []string `yaml:"streams" doc:"Keys of the streams, as your backend names them in XADD: the prefix in redis is not added. Each is consumed by one node at a time; several spread over the nodes. At most 32 in all."`
	ConsumerGroup string   `yaml:"consumer_group" default:"minigate" doc:"The consumer group, which is made where it is missing and then begins with the oldest entry of the stream."`

	NumWorkers        int           `yaml:"num_workers" default:"16" doc:"How many entries of a stream are processed at a time; 1 to 256. Those with the same key never are."`
	VisibilityTimeout time.Duration `yaml:"visibility_timeout" default:"10s" doc:"After how long without a sign of life the stream of a node goes to another one; also what another consumer of the group leaves pending for so long is taken over. Between 2s and 10m."`

	MaxEntry    settings.Size `yaml:"max_entry" default:"1MiB" doc:"Largest entry, all fields together; larger ones are set aside without them. 1KiB to 16MiB."`
	GiveUpAfter time.Duration `yaml:"give_up_after" default:"24h" doc:"How long an entry that fails for now is tried again, with those of its key behind it, before it is set aside; between 1m and 720h."`

	DeadMaxLen int  `yaml:"dead_max_len" default:"1000" doc:"About how many entries that were set aside are kept in the stream NAME.dead; 0 to 1000000, where 0 keeps none."`
	Trim       bool `yaml:"trim" default:"true" doc:"Whether entries that all consumer groups of the stream have acknowledged are removed from it."`
}

var (
	nameFormat = regexp.MustCompile(`^[-a-zA-Z0-9_.]{1,64}$`)
	// One hash tag at most: in a cluster the lease has to be in the slot of
	// its stream.
	streamFormat = regexp.MustCompile(`^[-a-zA-Z0-9_.:]*(\{[-a-zA-Z0-9_.:]+\})?[-a-zA-Z0-9_.:]*$`)
)

// Check reports mistakes in consumers, as a list at path; redis tells whether
// there is one.
func Check(list []Consumer, redis bool, report func(path, problem string)) {
	names, streams, total := map[string]bool{}, map[string]bool{}, 0
	for i := range list {
		c, at := &list[i], fmt.Sprintf("consumers[%d].", i)
		switch {
		case !nameFormat.MatchString(c.Name):
			report(at+"name", "must have 1 to 64 letters, digits, dashes, underscores or dots")
		case names[c.Name]:
			report(at+"name", "is the same as another consumer's")
		}
		names[c.Name] = true
		if c.Type != TypeRedisStream {
			report(at+"type", "must be redis_stream")
			continue
		}
		if c.Enabled && !redis {
			report(at+"enabled", "needs redis.addresses")
		}
		at += "redis_stream."
		if len(c.Stream.Streams) == 0 {
			report(at+"streams", "must name at least one stream")
		}
		for j, name := range c.Stream.Streams {
			where := fmt.Sprintf("%sstreams[%d]", at, j)
			switch group := name + " " + c.Stream.ConsumerGroup; {
			case name == "" || len(name) > 200 || !streamFormat.MatchString(name):
				report(where, "must have 1 to 200 letters, digits and - _ . : and at most one {part in braces}")
			case streams[group]:
				report(where, "is consumed by this group already")
			default:
				streams[group] = true
			}
		}
		if total += len(c.Stream.Streams); total > maxStreams {
			report(at+"streams", fmt.Sprintf("there are more than %d streams in all", maxStreams))
		}
		c.Stream.check(func(path, problem string) { report(at+path, problem) })
	}
}

func (s *StreamSettings) check(report func(path, problem string)) {
	if !nameFormat.MatchString(s.ConsumerGroup) {
		report("consumer_group", "must have 1 to 64 letters, digits, dashes, underscores or dots")
	}
	if s.NumWorkers < 1 || s.NumWorkers > 256 {
		report("num_workers", "must be between 1 and 256")
	}
	if s.VisibilityTimeout < 2*time.Second || s.VisibilityTimeout > 10*time.Minute {
		report("visibility_timeout", "must be between 2s and 10m")
	}
	if s.MaxEntry < 1<<10 || s.MaxEntry > 16<<20 {
		report("max_entry", "must be between 1KiB and 16MiB")
	}
	if s.GiveUpAfter < time.Minute || s.GiveUpAfter > 720*time.Hour {
		report("give_up_after", "must be between 1m and 720h")
	}
	if s.DeadMaxLen < 0 || s.DeadMaxLen > 1_000_000 {
		report("dead_max_len", "must be between 0 and 1000000")
	}
}

// Blocked is how many connections to Redis consumers keep waiting.
func Blocked(list []Consumer) (n int) {
	for _, c := range list {
		if c.Enabled {
			n += len(c.Stream.Streams)
		}
	}
	return n
}

// wanted is what the key of a lease ends with under which others ask for it.
const wanted = ":wanted"

// leaseKey is the name of the lease on a stream, in its slot.
func leaseKey(prefix, stream, group string) string {
	if !strings.Contains(stream, "{") {
		stream = "{" + stream + "}"
	}
	return prefix + ":consumer:" + stream + ":" + group
}
