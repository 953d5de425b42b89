package gateway

import (
	"context"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// turnPrefix begins the names of the streams that give connections of a user
// their order. A slash cannot be in the name of a namespace, so no client and
// no backend can reach them.
const turnPrefix = "minigate/single:"

// claim makes c the only connection of its user, or of its user's device, in
// the cluster: older ones are closed.
//
// Which is older is decided by the engine, that numbers them, and not by the
// clocks of nodes. Every connection is registered before it takes its number,
// and asks for others after that. So of any two that come at once at least one
// finds the other, and both agree on which has to go.
func (c *client) claim(ctx context.Context, l *login) error {
	rule := c.hub.settings.Client.single()
	if rule == "" || l.openID == "" {
		return nil
	}
	req := &userRequest{User: l.openID, Client: c.id.String()}
	if rule == singleDevice {
		req.Device = l.deviceOf()
	}
	res, err := c.hub.engine.Publish(ctx, turnPrefix+l.openID, &protocol.Publication{Data: protocol.Raw("{}")},
		engine.PublishOptions{HistorySize: 1, HistoryTTL: time.Second, MetaTTL: time.Hour})
	if err != nil {
		return err
	}
	req.Turn = res.Position
	c.mu.Lock()
	c.makeRare().turn = &req.Turn
	c.mu.Unlock()
	newer, err := c.hub.surveyUser(ctx, opSingle, req)
	if err == nil && newer > 0 {
		err = DisconnectReplaced
	}
	return err
}

// keepOne closes the local connections that are older than the one that asks,
// and returns how many are newer.
func (h *Hub) keepOne(req *userRequest) (newer int) {
	for _, c := range h.clients.ofUser(req.User) {
		c.mu.Lock()
		l, state := c.login, c.state
		var turn *engine.Position
		if c.rare != nil {
			turn = c.rare.turn
		}
		c.mu.Unlock()
		switch {
		case c.id.is(req.Client) || l == nil || req.Device != "" && req.Device != l.deviceOf():
		case state == ending || state == rejected: // it goes anyway
		case turn == nil: // it has no number yet and will ask us
		case turn.Epoch == req.Turn.Epoch && turn.Offset > req.Turn.Offset:
			newer++
		default: // also with a number from before the engine lost its numbers
			c.disconnect(DisconnectReplaced)
		}
	}
	return newer
}
