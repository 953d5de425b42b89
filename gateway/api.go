package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"
	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/fault"
)

// parallel is how many publications of one request are under way at a time:
// enough to fill the pipeline of a remote engine.
const parallel = 64

var (
	errBadData    = fault.New(fault.Invalid, ErrBadRequest.Code, "data must be one JSON value in UTF-8, of the form that the channel takes.")
	errBadCode    = fault.New(fault.Invalid, ErrBadRequest.Code, "A disconnect code must be between 3000 and 4999.")
	errNoUser     = fault.New(fault.Invalid, ErrBadRequest.Code, "user is required.")
	errNoTarget   = fault.New(fault.Invalid, ErrBadRequest.Code, "Name users, unionids or channels, or set all.")
	errAllOnce    = fault.New(fault.Invalid, ErrBadRequest.Code, "idempotency_key does not work with all, of which nothing is kept; name users, unionids or channels.")
	errNoPersonal = fault.New(fault.Invalid, ErrNotAvailable.Code, "Channels of this kind are switched off.")
)

// PublishOptions say how a publication of the server is kept and counted. Keys,
// version epochs, and names and values of tags have at most 256 bytes; there are
// at most 32 tags.
type PublishOptions struct {
	SkipHistory    bool              // deliver to those online now, without an offset
	Tags           map[string]string // travel with the publication
	Delta          bool              // subscribers that take deltas may be sent what changed since the last one
	IdempotencyKey string            // a repeat answers the first result and is not delivered
	Version        uint64            // with history, one that is not above the last one is not published; 0 has none
	VersionEpoch   string            // versions of another epoch are not compared; "" compares with any
	Count          bool              // ask for PublishResult.Sockets
}

// What a publication may carry beside its data: engines keep it, and tags are sent
// to everybody.
const (
	maxKey  = 256 // bytes of an idempotency key, a version epoch, a tag's name or its value
	maxTags = 32
)

// check tells what is too much.
func (o *PublishOptions) check() error {
	for _, part := range []struct{ name, value string }{{"idempotency_key", o.IdempotencyKey}, {"version_epoch", o.VersionEpoch}} {
		if len(part.value) > maxKey {
			return fault.Newf(fault.Invalid, ErrBadRequest.Code, "%s may have %d bytes at most.", part.name, maxKey)
		}
	}
	if len(o.Tags) > maxTags {
		return fault.Newf(fault.Invalid, ErrBadRequest.Code, "A publication may have %d tags at most.", maxTags)
	}
	for name, value := range o.Tags {
		if len(name) > maxKey || len(value) > maxKey {
			return fault.Newf(fault.Invalid, ErrBadRequest.Code, "Names and values of tags may have %d bytes at most.", maxKey)
		}
	}
	return nil
}

// BroadcastResult answers for one channel of a broadcast: Err or Result.
type BroadcastResult struct {
	Result engine.PublishResult
	Err    error
}

// DisconnectOptions narrow down which connections of a user are closed.
// The zero value closes all of them with code 3503.
type DisconnectOptions struct {
	Client    string   // only this connection
	Session   string   // only connections of this session, as in ConnectionInfo.Session
	Code      uint32   // 3000 to 4999; 0 takes 3503
	Reason    string   // plain words, at most 123 bytes are sent; "" takes "force disconnect"
	Whitelist []string // client ids to leave alone
}

// PushRequest names whom a push is for. At least one target is needed.
type PushRequest struct {
	Users    []string // openids
	UnionIDs []string
	Channels []string
	All      bool // every socket, as a message that belongs to no channel
	Data     json.RawMessage

	// With it a repeat is not delivered to a target again and answers where the
	// first one is stored, for as long as idempotent_result_ttl. It works for
	// each target, and not with All, of which nothing is kept.
	IdempotencyKey string
}

// PushResult answers for how many sockets a push was meant when it was made.
// They are no receipts. A socket that is reached in two ways counts twice.
type PushResult struct {
	Sockets  int
	Users    map[string]PushTarget
	UnionIDs map[string]PushTarget
	Channels map[string]PushTarget
	All      int
	Errors   []PushError // targets that could not be pushed to
}

// PushTarget is what became of a push to one target.
type PushTarget struct {
	Sockets  int
	Position engine.Position // where it is stored for those who come later; offset 0: nowhere
	Repeated bool            // it was delivered earlier, under the same idempotency key
}

// PushError is one target that failed.
type PushError struct {
	Kind   string // "user", "unionid", "channel" or "all"
	Target string
	Err    error
}

// Publish publishes to a channel on all nodes. Errors are bad_request,
// unknown_channel, or those of the engine; see CodeOf.
func (h *Hub) Publish(ctx context.Context, channel string, data json.RawMessage, o PublishOptions) (engine.PublishResult, error) {
	if len(data) > 0 && !cfjson.Valid(data) { // it looks at UTF-8, too, in a tenth of validData's time
		return engine.PublishResult{}, errBadData
	}
	if err := o.check(); err != nil {
		return engine.PublishResult{}, err
	}
	r, err := h.rules.find(channel)
	switch {
	case err != nil:
		return engine.PublishResult{}, err
	case !r.takes(data):
		return engine.PublishResult{}, errBadData
	}
	return h.publishBy(ctx, nil, channel, r, data, o)
}

// publishBy publishes what was found to be good; by is the client that does it,
// nil for the server.
func (h *Hub) publishBy(ctx context.Context, by *protocol.ClientInfo, channel string, r *rules, data []byte, o PublishOptions) (engine.PublishResult, error) {
	eo := r.publishOptions(o.SkipHistory)
	eo.Count, eo.Version, eo.VersionEpoch = o.Count, o.Version, o.VersionEpoch
	if o.IdempotencyKey != "" {
		eo.IdempotencyKey, eo.IdempotencyTTL = o.IdempotencyKey, h.settings.Client.IdempotentResultTTL
	}
	pub := &protocol.Publication{Data: protocol.Raw(data), Info: by, Tags: o.Tags, Delta: (o.Delta || r.DeltaPublish) && r.allowsDelta()}
	res, err := h.engine.Publish(ctx, channel, pub, eo)
	if err == nil && !res.Repeated && !res.Suppressed {
		h.metrics.publications.Inc()
	}
	return res, err
}

func validData(data json.RawMessage) bool {
	return len(data) > 0 && json.Valid(data) && utf8.Valid(data)
}

// Broadcast publishes the same to many channels. Results come in the order of
// channels.
func (h *Hub) Broadcast(ctx context.Context, channels []string, data json.RawMessage, o PublishOptions) []BroadcastResult {
	results := make([]BroadcastResult, len(channels))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, ch := range channels {
		g.Go(func() error {
			res, err := h.Publish(ctx, ch, data, o)
			results[i] = BroadcastResult{res, err}
			return nil
		})
	}
	_ = g.Wait() // errors are in the results
	return results
}

// Push sends data to users, people, channels or everybody. It fails as a whole
// only where nothing could be right: bad data, or no target.
func (h *Hub) Push(ctx context.Context, req PushRequest) (PushResult, error) {
	var res PushResult
	if !validData(req.Data) {
		return res, errBadData
	}
	if len(req.Users)+len(req.UnionIDs)+len(req.Channels) == 0 && !req.All {
		return res, errNoTarget
	}
	if req.All && req.IdempotencyKey != "" {
		return res, errAllOnce
	}
	if err := (&PublishOptions{IdempotencyKey: req.IdempotencyKey}).check(); err != nil {
		return res, err
	}
	same := func(name string) string { return name }
	res.Users = h.pushTo(ctx, &res, "user", req.Users, h.rules.personalChannel, req)
	res.UnionIDs = h.pushTo(ctx, &res, "unionid", req.UnionIDs, h.rules.unionChannel, req)
	res.Channels = h.pushTo(ctx, &res, "channel", req.Channels, same, req)
	if req.All {
		n, err := h.messageAll(ctx, req.Data)
		if err != nil {
			res.Errors = append(res.Errors, PushError{"all", "", err})
		}
		res.All = n
		res.Sockets += n
	}
	return res, nil
}

// pushTo pushes to targets of one kind, each once, and adds what came of it to
// res.
func (h *Hub) pushTo(ctx context.Context, res *PushResult, kind string, targets []string, channelOf func(string) string, req PushRequest) map[string]PushTarget {
	if len(targets) == 0 {
		return nil
	}
	done := make(map[string]PushTarget, len(targets))
	var unique, channels []string
	for _, t := range targets {
		if _, twice := done[t]; twice {
			continue
		}
		done[t] = PushTarget{}
		ch := channelOf(t)
		switch {
		case t == "" || ch != "" && kind != "channel" && strings.ContainsAny(t, "#,:"):
			res.Errors = append(res.Errors, PushError{kind, t, ErrBadRequest})
		case ch == "":
			res.Errors = append(res.Errors, PushError{kind, t, errNoPersonal})
		default:
			unique, channels = append(unique, t), append(channels, ch)
		}
	}
	for i, b := range h.Broadcast(ctx, channels, req.Data, PublishOptions{Count: true, IdempotencyKey: req.IdempotencyKey}) {
		if b.Err != nil {
			res.Errors = append(res.Errors, PushError{kind, unique[i], b.Err})
			continue
		}
		done[unique[i]] = PushTarget{b.Result.Sockets, b.Result.Position, b.Result.Repeated}
		res.Sockets += b.Result.Sockets
	}
	return done
}

func (h *Hub) messageAll(ctx context.Context, data json.RawMessage) (sockets int, err error) {
	msg := encodePush(&protocol.Push{Message: &protocol.Message{Data: protocol.Raw(data)}}, 0)
	if msg == nil {
		return 0, errBadData
	}
	return h.survey(ctx, opMessage, msg)
}

// survey asks all nodes and adds up their answers.
func (h *Hub) survey(ctx context.Context, op string, payload []byte) (sum int, err error) {
	answers, err := h.engine.Survey(ctx, op, payload)
	return addUp(answers), err
}

func addUp(answers [][]byte) (sum int) {
	for _, a := range answers {
		var n int
		if json.Unmarshal(a, &n) == nil { // nil from a node that does not know op
			sum += n
		}
	}
	return sum
}

// surveyUser asks the nodes that hold a user, and adds up their answers.
func (h *Hub) surveyUser(ctx context.Context, op string, req *userRequest) (sum int, err error) {
	answers, err := h.askUser(ctx, op, req)
	return addUp(answers), err
}

func (h *Hub) askUser(ctx context.Context, op string, req *userRequest) (answers [][]byte, err error) {
	if req.User == "" && req.Client == "" {
		return nil, errNoUser
	}
	payload, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	if req.User == "" { // the index knows nothing of connections without a user
		return h.engine.Survey(ctx, op, payload)
	}
	return h.engine.SurveyUser(ctx, req.User, op, payload)
}

// Disconnect closes connections of a user on all nodes. That there are none is
// no error.
func (h *Hub) Disconnect(ctx context.Context, user string, o DisconnectOptions) error {
	_, err := h.disconnectUser(ctx, user, o)
	return err
}

func (h *Hub) disconnectUser(ctx context.Context, user string, o DisconnectOptions) (connections int, err error) {
	d := *DisconnectForced
	if o.Code != 0 {
		d.Code = o.Code
	}
	if d.Code < 3000 || d.Code > 4999 {
		return 0, errBadCode
	}
	d.Reason = plainReason(o.Reason)
	return h.surveyUser(ctx, opDisconnect, &userRequest{
		User: user, Client: o.Client, Session: o.Session, Code: d.Code, Reason: d.Reason, Whitelist: o.Whitelist,
	})
}

// maxReason is what fits into a close frame (RFC 6455, section 5.5).
const maxReason = 123

// plainReason makes a reason safe to send; see Disconnect.
func plainReason(reason string) string {
	reason = strings.ToValidUTF8(reason, "")
	for len(reason) > maxReason {
		_, size := utf8.DecodeLastRuneInString(reason)
		reason = reason[:len(reason)-size]
	}
	if strings.TrimSpace(reason) == "" || json.Valid([]byte(reason)) {
		return DisconnectForced.Reason
	}
	return reason
}

// Info lists the live nodes.
func (h *Hub) Info(ctx context.Context) ([]engine.Node, error) { return h.engine.Nodes(ctx) }

// Presence returns who is in a channel by client id; not_available where the
// namespace keeps no presence.
func (h *Hub) Presence(ctx context.Context, channel string) (map[string]*protocol.ClientInfo, error) {
	r, err := h.rules.find(channel)
	switch {
	case err != nil:
		return nil, err
	case !r.Presence:
		return nil, ErrNotAvailable
	}
	return h.engine.Presence(ctx, channel)
}

// PresenceStats counts who is in a channel: a user with several connections is
// one. Errors are those of Presence.
func (h *Hub) PresenceStats(ctx context.Context, channel string) (clients, users int, err error) {
	r, err := h.rules.find(channel)
	switch {
	case err != nil:
		return 0, 0, err
	case !r.Presence:
		return 0, 0, ErrNotAvailable
	}
	return h.engine.PresenceStats(ctx, channel)
}

// History returns part of a channel's stream and its top; not_available where
// the namespace keeps none, unrecoverable_position if q.Since is of another
// epoch. q.Limit -1 means all, up to history_max_publication_limit.
func (h *Hub) History(ctx context.Context, channel string, q engine.HistoryQuery) ([]*protocol.Publication, engine.Position, error) {
	r, err := h.rules.find(channel)
	switch {
	case err != nil:
		return nil, engine.Position{}, err
	case !r.keepsHistory():
		return nil, engine.Position{}, ErrNotAvailable
	}
	return h.history(ctx, channel, r, q)
}

func (h *Hub) history(ctx context.Context, channel string, r *rules, q engine.HistoryQuery) ([]*protocol.Publication, engine.Position, error) {
	if q.Reverse && q.Since != nil && q.Since.Offset == 0 {
		return nil, engine.Position{}, ErrBadRequest
	}
	if limit := h.settings.Client.HistoryLimit; q.Limit < 0 || q.Limit > limit {
		q.Limit = limit
	}
	q.MetaTTL = r.HistoryMetaTTL
	pubs, top, err := h.engine.History(ctx, channel, q)
	switch {
	case err != nil:
		return nil, engine.Position{}, err
	case q.Since != nil && q.Since.Epoch != "" && q.Since.Epoch != top.Epoch:
		return nil, engine.Position{}, ErrUnrecoverable
	}
	return pubs, top, nil
}

// HistoryRemove empties a channel's stream; its epoch and top stay. Nodes that
// do not answer in time may recover clients with what was removed for as long
// as history_ttl.
func (h *Hub) HistoryRemove(ctx context.Context, channel string) error {
	r, err := h.rules.find(channel)
	switch {
	case err != nil:
		return err
	case !r.keepsHistory():
		return ErrNotAvailable
	}
	upTo, err := h.engine.RemoveHistory(ctx, channel)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(removal{channel, upTo})
	if err != nil {
		return err
	}
	_, err = h.engine.Survey(ctx, opForget, payload)
	return err
}
