package engine

import "strconv"

// keys names everything the engine keeps in Redis. The braces make Redis
// Cluster place all keys of a channel together; the dot after the opening one
// keeps the tag from being empty, which would undo that, whatever the channel
// is called.
type keys struct{ prefix string }

func (k keys) stream(channel string) string   { return k.prefix + ":stream:{." + channel + "}" }
func (k keys) meta(channel string) string     { return k.prefix + ":meta:{." + channel + "}" }
func (k keys) presence(channel string) string { return k.prefix + ":presence:{." + channel + "}" }

// result says how long the channel's name is: names and idempotency keys may
// hold any bytes and must not run into each other.
func (k keys) result(channel, key string) string {
	return k.prefix + ":result:" + strconv.Itoa(len(channel)) + ":{." + channel + "}:" + key
}

// live is the pub/sub channel of a channel; channelOf is its inverse.
func (k keys) live(channel string) string { return k.prefix + ":live:{." + channel + "}" }

func (k keys) channelOf(live string) (string, bool) {
	from := len(k.prefix) + len(":live:{.")
	if len(live) <= from || live[:from] != k.live("")[:from] {
		return "", false
	}
	return live[from : len(live)-1], true
}

// inbox is the pub/sub channel of one node.
func (k keys) inbox(uid string) string { return k.prefix + ":inbox:" + uid }

// leases scores each node's lease with the time it was renewed; nodes
// describes the same leases.
func (k keys) leases() string { return k.prefix + ":{nodes}:leases" }
func (k keys) nodes() string  { return k.prefix + ":{nodes}:info" }
