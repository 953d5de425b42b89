package gateway

import (
	"encoding/json"
	"log/slog"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

var _ engine.Receiver = (*Hub)(nil)

// Publication implements engine.Receiver.
func (h *Hub) Publication(channel string, pub *protocol.Publication, epoch string) (sockets int) {
	ch := h.channels.get(channel)
	if ch == nil {
		return 0
	}
	return ch.publish(pub, epoch)
}

// Join implements engine.Receiver.
func (h *Hub) Join(channel string, info *protocol.ClientInfo) {
	if ch := h.channels.get(channel); ch != nil {
		ch.announce(joined, info)
	}
}

// Leave implements engine.Receiver.
func (h *Hub) Leave(channel string, info *protocol.ClientInfo) {
	if ch := h.channels.get(channel); ch != nil {
		ch.announce(left, info)
	}
}

// Lost implements engine.Receiver.
func (h *Hub) Lost(names []string) {
	if names == nil {
		h.channels.each((*channel).recheck)
		return
	}
	for _, name := range names {
		if ch := h.channels.get(name); ch != nil {
			ch.recheck()
		}
	}
}

// recheck has the stream read again from where this node stands.
func (ch *channel) recheck() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	switch {
	case len(ch.subs) == 0: // nobody missed anything
		ch.forget()
	case ch.rules.keepsHistory() && ch.top.Epoch != "":
		ch.refill()
	}
}

// Self implements engine.Receiver.
func (h *Hub) Self() engine.Node {
	n := h.node
	n.Clients, n.Users = h.clients.counts()
	n.Channels, n.Subscribers = h.channels.counts()
	n.CPU, n.RSS = h.load.now()
	return n
}

// Survey implements engine.Receiver.
func (h *Hub) Survey(op string, payload []byte) []byte {
	var n any = 0 // or several numbers
	switch op {
	case opMessage:
		n = h.announceToAll(payload)
	case opForget:
		var r removal
		if err := json.Unmarshal(payload, &r); err != nil {
			slog.Error("question of another node cannot be read", "op", op, "error", err)
			return nil
		}
		h.forgetTail(r)
	case opChannels, opConnections:
		return h.lookUp(op, payload)
	case opDisconnect, opUnsubscribe, opSubscribe, opRefresh, opSingle:
		var req userRequest
		if err := json.Unmarshal(payload, &req); err != nil {
			slog.Error("question of another node cannot be read", "op", op, "error", err)
			return nil
		}
		if op == opSubscribe {
			n = h.subscribeUser(&req)
		} else {
			n = h.serveUser(op, &req)
		}
	default: // a newer node's question
		return nil
	}
	answer, _ := json.Marshal(n) // numbers always encode
	return answer
}

// removal says that the history of a channel was removed.
type removal struct {
	Channel string          `json:"channel"`
	UpTo    engine.Position `json:"up_to"`
}

// forgetTail drops what was kept of a channel's history.
func (h *Hub) forgetTail(r removal) {
	if ch := h.channels.get(r.Channel); ch != nil {
		ch.mu.Lock()
		ch.removeUpTo(r.UpTo)
		ch.mu.Unlock()
	}
}
