package engine

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// surveyLimit is how long a survey waits for nodes that do not answer;
// countLimit is the same for the number of sockets of a publication.
const (
	surveyLimit = 2 * time.Second
	countLimit  = time.Second
)

// keep renews the node's lease until ctx ends, then gives it up.
func (e *Redis) keep(ctx context.Context) {
	beat := time.NewTicker(e.timing.beat)
	defer beat.Stop()
	touch := time.NewTicker(e.timing.touch)
	defer touch.Stop()
	k := keeper{e: e, first: true}
	empty := time.NewTicker(e.timing.empty / 4)
	defer empty.Stop()
	for {
		k.renew(ctx)
		e.servers.renew(ctx)
		e.acquainted.Store(true)
		select {
		case <-beat.C:
		case <-e.presence.wake:
		case <-touch.C:
			if err := e.presence.touch(ctx, k.beatIfDue(ctx)); err != nil {
				e.presence.stale.Store(true)
			}
		case <-empty.C:
			if err := e.keepEmpty(ctx, k.beatIfDue(ctx)); err != nil && ctx.Err() == nil {
				slog.Warn("positions of empty channels not prolonged", "err", err)
			}
		case <-ctx.Done():
			k.farewell()
			return
		}
	}
}

// keeper is the state of keep between two beats.
type keeper struct {
	e       *Redis
	first   bool // no lease was taken yet
	away    bool // the last beat failed
	retired []any
	last    time.Time // of the latest beat
	partial bool      // clients and users are being entered again
}

// renew prolongs the lease, or takes a new one where the old one cannot be
// trusted; see presence.
func (k *keeper) renew(ctx context.Context) {
	err := k.tryRenew(ctx)
	if err != nil && ctx.Err() == nil {
		k.e.presence.stale.Store(true)
		if !k.away {
			slog.Warn("node lease not renewed", "err", err)
		}
	}
	k.away = err != nil
	k.e.presence.away.Store(k.away)
}

func (k *keeper) tryRenew(ctx context.Context) error {
	p := k.e.presence
	stale := p.stale.Swap(false)
	held, err := k.beat(ctx, p.current())
	if err != nil {
		return err
	}
	first := k.first
	k.first = false
	// Before the first beat others may have taken what was entered for dead.
	if !stale && (held || first && p.untouched()) {
		return nil
	}
	p.mu.Lock()
	old, next := p.lease(p.generation), p.lease(p.generation+1)
	p.mu.Unlock()
	k.partial = true
	if _, err := k.beat(ctx, next); err != nil {
		return err
	}
	k.retired = append(k.retired, old)
	if err := p.restore(ctx, k.beatIfDue(ctx)); err != nil {
		return err
	}
	k.partial = false
	if _, err := k.beat(ctx, p.current()); err != nil {
		return err
	}
	return k.retire(ctx)
}

// registration is what a lease says about its node. The node holds users that
// cannot be found through the index while it is partial.
type registration struct {
	Node
	Partial bool `json:"partial,omitempty"`
}

// beatIfDue keeps the lease during long work.
func (k *keeper) beatIfDue(ctx context.Context) func() error {
	return func() error {
		if time.Since(k.last) < k.e.timing.beat {
			return nil
		}
		_, err := k.beat(ctx, k.e.presence.current())
		return err
	}
}

// beat renews one lease, and tells whether it had held until now.
func (k *keeper) beat(ctx context.Context, lease string) (held bool, err error) {
	e := k.e
	info, err := json.Marshal(registration{e.receiver.Self(), k.partial})
	if err != nil {
		return false, err
	}
	c, cmd := renewScript.eval([]string{e.keys.leases(), e.keys.nodes()},
		lease, e.timing.lease.Milliseconds(), info, e.keys.inbox(e.presence.uid), "1b")
	if err := e.control(ctx, c); err != nil {
		return false, err
	}
	k.last = time.Now()
	n, err := cmd.Int()
	return n == 1, err
}

// retire gives up the leases that were replaced.
func (k *keeper) retire(ctx context.Context) error {
	leases, nodes := k.e.keys.leases(), k.e.keys.nodes()
	zrem := append([]any{"zrem", leases}, k.retired...)
	hdel := append([]any{"hdel", nodes}, k.retired...)
	err := k.e.control(ctx, plain(leases, redis.NewIntCmd(ctx, zrem...)), plain(nodes, redis.NewIntCmd(ctx, hdel...)))
	if err == nil {
		k.retired = nil
	}
	return err
}

// farewell makes the node and its clients disappear at once.
func (k *keeper) farewell() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	k.retired = append(k.retired, k.e.presence.current())
	if err := k.retire(ctx); err != nil && !k.away {
		slog.Warn("node lease not given up, it will lapse", "err", err)
	}
}

// control carries out what concerns the nodes.
func (e *Redis) control(ctx context.Context, cmds ...command) error {
	return e.lanes.of(e.keys.leases()).do(ctx, cmds...)
}

func (p *presence) leasesCmd(ttl time.Duration) (command, *redis.Cmd) {
	return leasesScript.eval([]string{p.keys.leases(), p.keys.nodes()}, ttl.Milliseconds())
}

// pairs walks a reply of alternating keys and values.
func pairs(cmd *redis.Cmd) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		flat, err := cmd.StringSlice()
		if err != nil {
			return
		}
		for i := 0; i+1 < len(flat); i += 2 {
			if !yield(flat[i], flat[i+1]) {
				return
			}
		}
	}
}

// Nodes implements Engine.
func (e *Redis) Nodes(ctx context.Context) ([]Node, error) {
	r, err := e.wait(ctx)
	if err != nil {
		return nil, err
	}
	c, cmd := e.presence.leasesCmd(e.timing.lease)
	if err := e.control(ctx, c); err != nil {
		return nil, err
	}
	nodes := make(map[string]Node) // by UID: a node may hold two leases for a moment
	for _, info := range pairs(cmd) {
		var n Node
		if json.Unmarshal([]byte(info), &n) == nil && n.UID != "" {
			nodes[n.UID] = n
		}
	}
	self := r.Self()
	nodes[self.UID] = self
	return slices.SortedFunc(maps.Values(nodes), func(a, b Node) int { return strings.Compare(a.UID, b.UID) }), nil
}

// uids lists the nodes whose leases hold, each with whether it is partial.
func (e *Redis) uids(ctx context.Context) (map[string]bool, error) {
	c, cmd := e.presence.leasesCmd(e.timing.lease)
	if err := e.control(ctx, c); err != nil {
		return nil, err
	}
	return nodesOf(cmd), nil
}

func nodesOf(leases *redis.Cmd) map[string]bool {
	uids := make(map[string]bool)
	for lease, info := range pairs(leases) {
		uid, _, _ := strings.Cut(lease, "~")
		var r registration
		_ = json.Unmarshal([]byte(info), &r) // a damaged one is not partial
		uids[uid] = uids[uid] || r.Partial
	}
	return uids
}

// Survey implements Engine.
func (e *Redis) Survey(ctx context.Context, op string, payload []byte) ([][]byte, error) {
	r, err := e.wait(ctx)
	if err != nil {
		return nil, err
	}
	uids, err := e.uids(ctx)
	if err != nil {
		return nil, err
	}
	return e.ask(ctx, r, slices.Collect(maps.Keys(uids)), op, payload)
}

// ask puts a question to nodes, and to this one in any case.
func (e *Redis) ask(ctx context.Context, r Receiver, uids []string, op string, payload []byte) ([][]byte, error) {
	q := e.inquiries.start()
	defer e.inquiries.end(q)
	question := "1q" + strconv.FormatUint(q.id, 10) + ":" + e.presence.uid + ":" + op + "\n" + string(payload)
	asked := make([]command, 0, len(uids))
	for _, uid := range uids {
		if inbox := e.keys.inbox(uid); uid != e.presence.uid {
			asked = append(asked, plain(inbox, redis.NewIntCmd(ctx, "publish", inbox, question)))
		}
	}
	if len(asked) > 0 {
		if err := e.control(ctx, asked...); err != nil {
			return nil, err
		}
	}
	want := 0
	for _, c := range asked {
		if e.servers.cluster != nil {
			want++ // there the number says nothing, see askWhoHears
		} else {
			want += int(c.cmd.(*redis.IntCmd).Val()) // 0 for a node that is gone
		}
	}
	own := r.Survey(op, payload)
	answers, _ := q.await(ctx, want, surveyLimit)
	return append([][]byte{own}, answers...), nil
}

// answerSurveys lets the hub answer, one question after the other: that may
// take long, and must not hold up publications.
func (e *Redis) answerSurveys(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-e.questions:
			answer := e.receiver.Survey(q.op, []byte(q.body))
			e.tell(q.asker, "1a"+strconv.FormatUint(q.request, 10)+"\n"+string(answer))
		}
	}
}

// tell sends a message to a node. Nobody waits for it here; the one who does
// waits only so long.
func (e *Redis) tell(uid, message string) {
	inbox := e.keys.inbox(uid)
	cmd := redis.NewIntCmd(context.Background(), "publish", inbox, message)
	_ = e.lanes.of(inbox).put(&op{cmds: []command{plain(inbox, cmd)}})
}

// readInbox takes in what other nodes sent to this one.
func (e *Redis) readInbox(payload string) {
	m, err := parseEnvelope(payload)
	if err != nil {
		slog.Warn("message from another node ignored", "err", err)
		return
	}
	switch m.kind {
	case kindCount:
		e.inquiries.answer(m.request, m.asker, m.sockets, nil)
	case kindHearing:
		if !e.hearing().wants(e.keys.live(m.body)) {
			e.tellCount(m, 0)
		}
	case kindAnswer:
		e.inquiries.answer(m.request, "", 0, []byte(m.body))
	case kindQuestion:
		select {
		case e.questions <- m:
		default: // the asker will do without us
		}
	}
}
