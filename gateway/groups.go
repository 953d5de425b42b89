package gateway

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth"
)

// A group is a channel. Who belongs to it for good is said by the backend, at
// login or in the token: such a user is subscribed whenever he connects, and
// with the positions that his SDK sends along gets what he missed.

// serverChannels lists the channels a new connection is subscribed to: its
// user's own, those that the backend names, and those it asks for and may have.
func (c *client) serverChannels(who identity, asked map[string]*protocol.SubscribeRequest) ([]string, error) {
	list := c.hub.ownChannels(who.personal, who.session.User.UnionID)
	if who.jwt == nil {
		list = c.hub.addGroups(list, who.session)
	}
	for _, ch := range who.channels() {
		if _, err := c.hub.rules.find(ch); err != nil {
			return nil, DisconnectBadRequest
		}
		if !slices.Contains(list, ch) {
			list = append(list, ch)
		}
	}
	for ch := range asked {
		if slices.Contains(list, ch) {
			continue
		}
		r, err := c.hub.rules.findForClient(ch)
		if err != nil {
			return nil, DisconnectBadRequest
		}
		if r.maySubscribe(ch, who.session.User.OpenID) {
			list = append(list, strings.Clone(ch))
		}
	}
	return list, nil
}

// ownChannels are those through which a user is reached.
func (h *Hub) ownChannels(personal, unionID string) []string {
	list := make([]string, 0, 2)
	for _, ch := range []string{personal, h.rules.unionChannel(unionID)} {
		if ch == "" {
			continue
		}
		if _, err := h.rules.find(ch); err != nil {
			h.skip("name", ch, err)
			continue
		}
		list = append(list, ch)
	}
	return list
}

// addGroups adds the channels that the backend named at login. One that cannot
// be is the backend's mistake, and must not keep the user out.
func (h *Hub) addGroups(list []string, s *auth.Session) []string {
	for _, ch := range s.Channels {
		switch _, err := h.rules.find(ch); {
		case err == ErrUnknownChannel:
			h.skip("namespace", ch, err)
		case err != nil:
			h.skip("name", ch, err)
		case slices.Contains(list, ch):
		case len(list) >= h.settings.Client.ChannelLimit:
			h.skip("limit", ch, ErrLimitExceeded)
		default:
			list = append(list, ch)
		}
	}
	return list
}

// Belongs tells whether a channel is one of those that a connection with this
// login is subscribed to by itself, whether there is any or not.
func (h *Hub) Belongs(s *auth.Session, channel string) bool {
	if _, err := h.rules.find(channel); err != nil {
		return false
	}
	return slices.Contains(s.Channels, channel) ||
		channel == h.rules.personalChannel(s.User.OpenID) || channel == h.rules.unionChannel(s.User.UnionID)
}

func (h *Hub) skip(reason, channel string, err error) {
	h.metrics.skipped.WithLabelValues(reason).Inc()
	slog.Warn("a user is not subscribed to a channel he belongs to", "channel", channel, "reason", reason, "error", err)
}
