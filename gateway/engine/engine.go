// Package engine keeps what the live side must agree on: who hears a channel,
// its history and position, who is present, and which nodes there are.
//
// Two implementations ship: Memory (one node, nothing else needed) and Redis
// (a cluster). One contract test runs over both.
//
// What an engine promises, per channel:
//   - order: receivers see publications in the order of their offsets;
//   - live delivery at most once: a publication may be missed (a lost
//     connection to Redis), never repeated or reordered;
//   - recovery exactly as stored: what History returns is the stream itself,
//     and offsets in one epoch have no gaps other than those cut off by size
//     or age at the old end.
package engine

import (
	"context"
	"time"

	"github.com/centrifugal/protocol"
)

// What zero durations in options stand for.
const (
	DefaultMetaTTL        = 7 * 24 * time.Hour
	DefaultIdempotencyTTL = 300 * time.Second
)

// Position is a place in a channel's stream. The zero value stands for a
// channel without history.
type Position struct {
	Offset uint64
	Epoch  string
}

// Under is what p is called under the epoch of top, if that epoch took over
// from before, see HistoryQuery. Any other p stays as it is.
func (p Position) Under(top, before Position) Position {
	if before.Epoch != "" && p.Epoch == before.Epoch && p.Offset <= before.Offset {
		p.Epoch = top.Epoch
	}
	return p
}

// PublishOptions say how one publication is kept and counted.
type PublishOptions struct {
	HistorySize    int           // publications kept; 0 keeps no history
	HistoryTTL     time.Duration // since the last publication; 0 keeps no history
	MetaTTL        time.Duration // how long epoch and offset are kept after their last use; 0 takes DefaultMetaTTL
	IdempotencyKey string        // a repeat within IdempotencyTTL answers the first result and is not delivered
	IdempotencyTTL time.Duration // 0 takes DefaultIdempotencyTTL
	Version        uint64        // of what is published, with history only; one that is not above the stream's is suppressed; 0 has none
	VersionEpoch   string        // versions of another epoch are not compared; "" compares with any
	Count          bool          // ask for PublishResult.Sockets
}

// PublishResult answers for one publication.
type PublishResult struct {
	Position   Position
	Sockets    int  // sockets subscribed at that moment on all nodes, where asked for
	Repeated   bool // the idempotency key was seen before
	Suppressed bool // the version is not above that of the stream; Position is the stream's top
}

// HistoryQuery selects part of a stream.
//
// A stream goes on under another epoch after its server was replaced or
// restarted, since it may have lost its end. Positions up to where the old
// epoch ended still name the same publications, see Position.Under: History
// writes the present epoch into such a Since, and that end into Before.
type HistoryQuery struct {
	Since   *Position     // exclusive; nil starts at the end that Reverse says. Only the offset selects, comparing epochs is up to the caller
	Limit   int           // -1 all, 0 the position only
	Reverse bool          // newest first
	Before  *Position     // where set: gets the last position of the epoch before, or none
	Keep    time.Duration // somebody may come back with the position that is read, also where nothing was published yet, and this long, see History
	MetaTTL time.Duration // as in PublishOptions: reading creates the epoch of an empty channel
}

// Node describes one running node.
type Node struct {
	UID         string    `json:"uid"` // new at every start: letters, digits, "-", "_" and ".", at most 64
	Name        string    `json:"name"`
	Version     string    `json:"version"`
	Started     time.Time `json:"started"`
	Clients     int       `json:"clients"`
	Users       int       `json:"users"`
	Channels    int       `json:"channels"`
	Subscribers int       `json:"subscribers"`
	CPU         float64   `json:"cpu,omitempty"` // processors busy with it over the last seconds: 1 is one core; 0 where the system does not tell
	RSS         int64     `json:"rss,omitempty"` // bytes of resident memory; 0 where the system does not tell
}

// Receiver is what an engine delivers to: the hub of this node. Calls for one
// channel come one after the other, in stream order. They must not block and
// must not call the engine: it may hold a lock of the channel. What they are
// given is shared and read-only.
type Receiver interface {
	// Publication delivers to local subscribers and returns how many there are.
	Publication(channel string, pub *protocol.Publication, epoch string) (sockets int)
	Join(channel string, info *protocol.ClientInfo)
	Leave(channel string, info *protocol.ClientInfo)
	// Lost says that publications of these channels may have been missed, for
	// example after a reconnect to Redis; nil means all channels.
	Lost(channels []string)
	// Survey answers another node's (or our own) question; see Engine.Survey.
	Survey(op string, payload []byte) []byte
	// Self describes this node for the registry: its UID and its load.
	Self() Node
}

// Engine is the contract; see the package comment for its promises. Every
// method may return a *fault.Error of kind Unavailable: while Redis is away, or
// after Run has ended. With a ctx that has ended they return its error and do
// nothing, except Unsubscribe, RemovePresence and AddUser: those always take effect.
type Engine interface {
	// Run delivers to r until ctx ends, and returns after its last delivery. It
	// reconnects by itself and returns an error only if it can never work. The
	// other methods wait for Run to have started. It runs once.
	Run(ctx context.Context, r Receiver) error
	// Ping tells whether the engine works now.
	Ping(ctx context.Context) error

	// Publish is one atomic step: idempotency, version, offset, history,
	// fan-out. It sets pub.Offset. Where it is configured to wait for replicas
	// and they do not confirm in time, it returns the result together with the
	// error: the publication happened and was delivered, but a failover could
	// lose it; a repeat with the same idempotency key waits again. It never
	// waits for fan-out, unless Count is asked for on more than one node. The
	// engine keeps pub: it must not change afterwards.
	Publish(ctx context.Context, channel string, pub *protocol.Publication, o PublishOptions) (PublishResult, error)
	PublishJoin(ctx context.Context, channel string, info *protocol.ClientInfo) error
	PublishLeave(ctx context.Context, channel string, info *protocol.ClientInfo) error

	// Subscribe makes this node hear the channel: what is published after it
	// returned is delivered, what was published just before may be. Unsubscribe
	// ends that. The hub calls each once per channel, for its first and last
	// local subscriber.
	Subscribe(ctx context.Context, channel string) error
	Unsubscribe(ctx context.Context, channel string) error

	// History returns publications and the top position, read atomically. The
	// publications are shared: read-only. A channel that was never published to
	// gets its epoch here, and keeps it for as long as this node hears it. Then
	// it lives for Keep, at most MetaTTL, where that was asked for: whoever left before the
	// first publication is to recover it. Else for some minutes at most: names
	// that are merely tried cost little.
	History(ctx context.Context, channel string, q HistoryQuery) ([]*protocol.Publication, Position, error)
	// RemoveHistory empties a stream; epoch and top stay. What was removed is
	// what stands up to the top that it returns.
	RemoveHistory(ctx context.Context, channel string) (Position, error)

	// AddPresence enters a client into a channel's presence for as long as this
	// node lives, or until RemovePresence: no refresh by the caller is needed.
	AddPresence(ctx context.Context, channel, client string, info *protocol.ClientInfo) error
	RemovePresence(ctx context.Context, channel, client string) error
	// Presence returns who is there by client id, exact as of now.
	Presence(ctx context.Context, channel string) (map[string]*protocol.ClientInfo, error)

	// PresenceStats returns how many clients are there and how many users they
	// have, exact as of now. It costs much less than Presence.
	PresenceStats(ctx context.Context, channel string) (clients, users int, err error)

	// AddUser says that this node has one more connection of user, RemoveUser
	// that it has one less; the order in which the calls of several connections
	// come does not matter. AddUser returns once other nodes' SurveyUser finds
	// the user here. It counts even where it returns an error, which needs no
	// answer: SurveyUser then asks this node whatever the user, as soon as Redis
	// can be told. RemoveUser does not wait.
	AddUser(ctx context.Context, user string) error
	RemoveUser(user string)
	// SurveyUser is Survey of the nodes that have connections of user, and of
	// this node.
	SurveyUser(ctx context.Context, user, op string, payload []byte) ([][]byte, error)

	// Survey asks op of every live node, this one included, and returns the
	// answers that came before ctx ended, at most two seconds.
	Survey(ctx context.Context, op string, payload []byte) ([][]byte, error)
	// Nodes lists the live nodes, this one included.
	Nodes(ctx context.Context) ([]Node, error)
}

var (
	_ Engine = (*Memory)(nil)
	_ Engine = (*Redis)(nil)
)
