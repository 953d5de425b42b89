package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/fault"
)

// command is a kind of command, for counting.
type command uint8

const (
	cmdPong command = iota
	cmdConnect
	cmdSubscribe
	cmdUnsubscribe
	cmdPublish
	cmdPresence
	cmdPresenceStats
	cmdHistory
	cmdRPC
	cmdSend
	cmdRefresh
	cmdSubRefresh
	cmdUnknown
	commandCount
)

var commandNames = [commandCount]string{
	"pong", "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats",
	"history", "rpc", "send", "refresh", "sub_refresh", "unknown",
}

func (c command) String() string { return commandNames[c] }

func kindOf(cmd *protocol.Command) command {
	switch {
	case cmd.Send != nil:
		return cmdSend
	case cmd.Id == 0:
		return cmdPong // whatever else it carries
	case cmd.Connect != nil:
		return cmdConnect
	case cmd.Subscribe != nil:
		return cmdSubscribe
	case cmd.Unsubscribe != nil:
		return cmdUnsubscribe
	case cmd.Publish != nil:
		return cmdPublish
	case cmd.Presence != nil:
		return cmdPresence
	case cmd.PresenceStats != nil:
		return cmdPresenceStats
	case cmd.History != nil:
		return cmdHistory
	case cmd.Rpc != nil:
		return cmdRPC
	case cmd.Refresh != nil:
		return cmdRefresh
	case cmd.SubRefresh != nil:
		return cmdSubRefresh
	}
	return cmdUnknown
}

// handle executes one command and reports whether the next may follow.
func (c *client) handle(cmd *protocol.Command) bool {
	kind := kindOf(cmd)
	c.hub.metrics.received[kind].Inc()
	c.mu.Lock()
	state := c.state
	c.mu.Unlock()
	s := &c.hub.settings.Client
	inTime := c.pace.take(c.hub.now(), s.CommandRateLimit, s.CommandRateBurst)
	switch {
	case state == ending || state == rejected:
		return false
	// What cannot be refused is counted only: connect comes once, and SDKs
	// answer an error on unsubscribe with a whole reconnect.
	case !inTime && kind != cmdConnect && (kind != cmdUnsubscribe || c.pace.refused > s.CommandRateBurst):
		return c.tooFast(cmd, kind)
	case kind == cmdPong:
		return true
	case (kind == cmdConnect) != (state == opened):
		c.disconnect(DisconnectBadRequest)
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.RequestTimeout+c.hub.patience(kind))
	defer cancel()
	if kind == cmdConnect {
		c.hub.pending.begin(0)
		defer c.hub.pending.done()
		return c.connect(ctx, cmd)
	}
	return c.answer(cmd.Id, c.execute(ctx, kind, cmd))
}

// answer sends the error of a command, and reports whether the next may follow.
func (c *client) answer(id uint32, err error) bool {
	if err == nil {
		return true
	}
	if d, ok := errors.AsType[*Disconnect](err); ok {
		c.disconnect(d)
		return false
	}
	if _, said := errors.AsType[*ReplyError](err); !said {
		switch fault.Of(err).Kind {
		case fault.Internal:
			slog.Error("command failed", "client", c.id, "error", err)
		case fault.Upstream: // timeouts are counted where they happen
			slog.Warn("command failed", "client", c.id, "error", err)
		}
	}
	e := errorOf(err)
	c.hub.metrics.failed(e.Code)
	c.reply(c.encodeReply(&protocol.Reply{Id: id, Error: e}))
	return true
}

// execute runs a command of a connected client. Its error is the answer,
// unless it is nil: then the answer was sent.
func (c *client) execute(ctx context.Context, kind command, cmd *protocol.Command) error {
	reply := protocol.Reply{Id: cmd.Id}
	var err error
	switch kind {
	case cmdSubscribe:
		return c.subscribe(ctx, cmd.Id, cmd.Subscribe)
	case cmdUnsubscribe:
		reply.Unsubscribe, err = c.unsubscribe(ctx, cmd.Unsubscribe)
	case cmdPublish:
		reply.Publish, err = c.publish(ctx, cmd.Publish)
	case cmdPresence:
		reply.Presence, err = c.presence(ctx, cmd.Presence)
	case cmdPresenceStats:
		reply.PresenceStats, err = c.presenceStats(ctx, cmd.PresenceStats)
	case cmdHistory:
		reply.History, err = c.history(ctx, cmd.History)
	case cmdRPC:
		return c.callRPC(cmd.Id, cmd.Rpc)
	case cmdRefresh:
		reply.Refresh, err = c.refresh(ctx, cmd.Refresh)
	case cmdSubRefresh:
		reply.SubRefresh, err = c.subRefresh(ctx, cmd.SubRefresh)
	case cmdSend:
		err = DisconnectNotAvailable
	default:
		err = DisconnectBadRequest
	}
	if err == nil {
		c.reply(c.encodeReply(&reply))
	}
	return err
}

// target checks the channel of a request and returns a copy of its name, as
// that of a decoded command is part of the read buffer.
func (c *client) target(channel string) (name string, r *rules, subscribed bool, err error) {
	if channel == "" {
		return "", nil, false, DisconnectBadRequest
	}
	if r, err = c.hub.rules.findForClient(channel); err != nil {
		return "", nil, false, err
	}
	c.mu.Lock()
	s := c.subs.get(channel)
	c.mu.Unlock()
	return strings.Clone(channel), r, s != nil && s.isSettled() && s.channel != nil, nil
}

func (c *client) unsubscribe(ctx context.Context, req *protocol.UnsubscribeRequest) (*protocol.UnsubscribeResult, error) {
	if req.Channel == "" {
		return nil, DisconnectBadRequest
	}
	c.mu.Lock()
	s := c.subs.get(req.Channel)
	c.mu.Unlock()
	if s != nil {
		s.settle()
	}
	if s != nil && !c.leaveFor(ctx, s, nil, leftClient) {
		c.awaitLeft(ctx, req.Channel) // the server was faster: what it has to say comes before our answer
	}
	// Also for channels it is not subscribed to: on any error here SDKs
	// start the whole connection anew.
	return &protocol.UnsubscribeResult{}, nil
}

func (c *client) publish(ctx context.Context, req *protocol.PublishRequest) (*protocol.PublishResult, error) {
	channel, r, subscribed, err := c.target(req.Channel)
	if err != nil {
		return nil, err
	}
	if !r.takes(req.Data) || req.Type != 0 {
		return nil, ErrBadRequest
	}
	if r.PublishProxyEnabled {
		return c.publishAsked(ctx, channel, r, req.Data)
	}
	user := c.user()
	if !r.mayPublish(channel, user, subscribed) {
		return nil, ErrPermissionDenied
	}
	pub := &protocol.Publication{Data: req.Data, Info: c.infoIn(channel), Delta: r.DeltaPublish && r.allowsDelta()}
	if _, err = c.hub.engine.Publish(ctx, channel, pub, r.publishOptions(false)); err != nil {
		return nil, err
	}
	c.hub.metrics.publications.Inc()
	return &protocol.PublishResult{}, nil
}

// mayLook returns the channel of a request if the client may know who is there.
func (c *client) mayLook(channel string) (name string, err error) {
	name, r, subscribed, err := c.target(channel)
	switch {
	case err != nil:
		return "", err
	case !r.Presence:
		return "", ErrNotAvailable
	case !r.mayReadPresence(name, c.user(), subscribed):
		return "", ErrPermissionDenied
	}
	return name, nil
}

func (c *client) presence(ctx context.Context, req *protocol.PresenceRequest) (*protocol.PresenceResult, error) {
	channel, err := c.mayLook(req.Channel)
	if err != nil {
		return nil, err
	}
	who, err := c.hub.engine.Presence(ctx, channel)
	if err != nil {
		return nil, err
	}
	return &protocol.PresenceResult{Presence: who}, nil
}

func (c *client) presenceStats(ctx context.Context, req *protocol.PresenceStatsRequest) (*protocol.PresenceStatsResult, error) {
	channel, err := c.mayLook(req.Channel)
	if err != nil {
		return nil, err
	}
	clients, users, err := c.hub.engine.PresenceStats(ctx, channel)
	if err != nil {
		return nil, err
	}
	return &protocol.PresenceStatsResult{NumClients: uint32(clients), NumUsers: uint32(users)}, nil
}

func (c *client) history(ctx context.Context, req *protocol.HistoryRequest) (*protocol.HistoryResult, error) {
	channel, r, subscribed, err := c.target(req.Channel)
	switch {
	case err != nil:
		return nil, err
	case !r.keepsHistory():
		return nil, ErrNotAvailable
	case !r.mayReadHistory(channel, c.user(), subscribed):
		return nil, ErrPermissionDenied
	}
	q := engine.HistoryQuery{Limit: int(req.Limit), Reverse: req.Reverse}
	if req.Since != nil {
		q.Since = &engine.Position{Offset: req.Since.Offset, Epoch: strings.Clone(req.Since.Epoch)}
	}
	pubs, top, err := c.hub.history(ctx, channel, r, q)
	if err != nil {
		return nil, err
	}
	// The one list that is on the wire even when empty.
	return &protocol.HistoryResult{Publications: c.readable(pubs), Offset: top.Offset, Epoch: top.Epoch}, nil
}
