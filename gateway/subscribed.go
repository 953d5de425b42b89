package gateway

import (
	"context"
	"encoding/json"
)

// Subscribed tells whether a connection of a user of a mini-program is
// subscribed to a channel now. This node is asked first, then those that hold
// connections of the user. Unavailable `nodes_silent` where none of those that
// answered in time has one, and another may.
func (h *Hub) Subscribed(ctx context.Context, appID, user, channel string) (bool, error) {
	if user == "" || channel == "" {
		return false, nil
	}
	q := ConnectionQuery{User: user, AppID: appID, Channel: channel, Limit: 1}
	for _, c := range h.clients.ofUser(user) {
		if q.matches(c) {
			return true, nil
		}
	}
	payload, err := json.Marshal(q)
	if err != nil {
		return false, err
	}
	raw, err := h.engine.SurveyUser(ctx, user, opConnections, payload)
	for _, a := range answersOf[connectionsAnswer](raw) {
		if len(a.Connections) > 0 {
			return true, nil
		}
	}
	return false, err
}
