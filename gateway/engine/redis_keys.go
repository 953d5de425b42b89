package engine

import (
	"strconv"
	"strings"
)

// keys names everything the engine keeps in Redis. The braces make Redis
// Cluster place what belongs together in one slot; see place.
type keys struct {
	prefix string
	tags   []string // of the partitions of sharded pub/sub; none: it is off
}

// place is the end of the keys that publishing to a channel touches. Without
// partitions each channel has its own slot; the dot keeps the tag from being
// empty, which would undo that, whatever the channel is called. With
// partitions it is the one of the channel's partition.
func (k keys) place(channel string) string {
	if len(k.tags) == 0 {
		return "{." + channel + "}"
	}
	return "{" + k.tags[k.partition(channel)] + "}" + channel
}

// partition is the same on every node, and must stay so over versions.
func (k keys) partition(channel string) int {
	h := uint32(2166136261) // FNV-1a
	for i := range len(channel) {
		h = (h ^ uint32(channel[i])) * 16777619
	}
	return int(h % uint32(len(k.tags)))
}

func (k keys) stream(channel string) string { return k.prefix + ":stream:" + k.place(channel) }
func (k keys) meta(channel string) string   { return k.prefix + ":meta:" + k.place(channel) }

// presence and user are always spread as widely as they can be.
func (k keys) presence(channel string) string { return k.prefix + ":presence:{." + channel + "}" }
func (k keys) user(user string) string        { return k.prefix + ":user:{." + user + "}" }

// isUser tells the key of a user from that of a channel's presence.
func (k keys) isUser(key string) bool { return strings.HasPrefix(key, k.prefix+":user:") }

// result says how long the channel's name is: names and idempotency keys may
// hold any bytes and must not run into each other.
func (k keys) result(channel, key string) string {
	return k.prefix + ":result:" + strconv.Itoa(len(channel)) + ":" + k.place(channel) + ":" + key
}

const liveMark = ":live:{"

// live is the pub/sub channel of a channel; channelOf is its inverse.
func (k keys) live(channel string) string { return k.prefix + ":live:" + k.place(channel) }

func (k keys) channelOf(live string) (string, bool) {
	if !strings.HasPrefix(live, k.prefix) || !strings.HasPrefix(live[len(k.prefix):], liveMark) {
		return "", false
	}
	rest := live[len(k.prefix)+len(liveMark):]
	if len(k.tags) > 0 {
		_, channel, ok := strings.Cut(rest, "}")
		return channel, ok
	}
	if len(rest) < 2 {
		return "", false
	}
	return rest[1 : len(rest)-1], true
}

// probe is a pub/sub channel in a partition that only one node hears.
func (k keys) probe(partition int, uid string) string {
	return k.prefix + ":probe:{" + k.tags[partition] + "}" + uid
}

// partitionOf is the partition of a live or probe key.
func (k keys) partitionOf(key string) int {
	if channel, ok := k.channelOf(key); ok {
		return k.partition(channel)
	}
	_, rest, _ := strings.Cut(key, "{")
	tag, _, _ := strings.Cut(rest, "}")
	for i, t := range k.tags {
		if t == tag {
			return i
		}
	}
	return 0
}

// inbox is the pub/sub channel of one node.
func (k keys) inbox(uid string) string { return k.prefix + ":inbox:" + uid }

// leases scores each node's lease with the time it was renewed; nodes
// describes the same leases.
func (k keys) leases() string { return k.prefix + ":{nodes}:leases" }
func (k keys) nodes() string  { return k.prefix + ":{nodes}:info" }
