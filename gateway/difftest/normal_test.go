package difftest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// names gives what servers make up (ids of clients, epochs) names that two
// servers share.
type names struct {
	clients   map[string]string   // name by id
	epochs    map[string][]string // of a channel, in the order in which they were seen
	lastEpoch map[string]string
	top       map[string]uint64 // the highest offset of a channel seen
}

func newNames() names {
	return names{clients: map[string]string{}, epochs: map[string][]string{}, lastEpoch: map[string]string{}, top: map[string]uint64{}}
}

func (n *names) learn(name string, c *conn, m message) {
	if m.reply == nil {
		return
	}
	if r := m.reply.Connect; r != nil {
		c.id = r.Client
		n.clients[r.Client] = name
		for channel, s := range r.Subs {
			n.epoch(channel, s.Epoch)
		}
	}
	if p := m.reply.Push; p != nil && p.Pub != nil {
		n.reach(p.Channel, p.Pub.Offset)
	}
	if r := m.reply.Subscribe; r != nil {
		n.epoch(c.asks[m.reply.Id], r.Epoch)
	}
	if r := m.reply.History; r != nil {
		n.reach(c.asks[m.reply.Id], r.Offset)
		n.epoch(c.asks[m.reply.Id], r.Epoch)
	}
}

func (n *names) reach(channel string, offset uint64) { n.top[channel] = max(n.top[channel], offset) }

// epoch names an epoch of a channel.
func (n *names) epoch(channel, epoch string) string {
	if epoch == "" {
		return ""
	}
	i := slices.Index(n.epochs[channel], epoch)
	if i < 0 {
		i = len(n.epochs[channel])
		n.epochs[channel] = append(n.epochs[channel], epoch)
	}
	n.lastEpoch[channel] = epoch
	return fmt.Sprintf("epoch %d of %s", i+1, channel)
}

// normal renders what one connection received in one step: first the replies,
// then the pushes channel by channel, then how it ended. How replies and pushes
// of different channels mingle is left open by the protocol, and so is whether
// a client still hears of a channel after it sent, in the same frame, that it
// leaves; what is not left open is checked here.
func (n *names) normal(c *conn, list []message) (lines []string) {
	pushes := map[string][]string{}
	var end []string
	for _, m := range list {
		switch {
		case m.reply == nil:
			end = append(end, m.end)
		case m.reply.Push == nil:
			if m.reply.Unsubscribe != nil && len(lines) > 0 {
				delete(pushes, c.asks[m.reply.Id])
			}
			lines = append(lines, n.render(m.raw, c.asks[m.reply.Id]))
			lines = append(lines, n.follow(c, m)...)
		case m.reply.Push.Disconnect != nil:
			end = append(end, fmt.Sprintf("told %d %s", m.reply.Push.Disconnect.Code, m.reply.Push.Disconnect.Reason))
		default:
			p := m.reply.Push
			if p.Id != 0 {
				p.Channel = c.numbers[p.Id]
			}
			if (p.Channel != "" || p.Id != 0) && !c.live[p.Channel] {
				lines = append(lines, "! push of a channel it is not subscribed to: "+string(m.raw))
			}
			if p.Unsubscribe != nil {
				delete(c.live, p.Channel)
			}
			if p.Subscribe != nil {
				c.live[p.Channel] = true
			}
			pushes[p.Channel] = append(pushes[p.Channel], n.render(m.raw, p.Channel))
			if p.Pub != nil {
				pushes[p.Channel] = append(pushes[p.Channel], c.undelta(p.Channel, p.Pub)...)
			}
		}
	}
	channels := make([]string, 0, len(pushes))
	for channel := range pushes {
		channels = append(channels, channel)
	}
	slices.Sort(channels)
	for _, channel := range channels {
		lines = append(lines, pushes[channel]...)
	}
	return append(lines, farewell(end)...)
}

// follow keeps track of what a connection is subscribed to, and returns what
// deltas that it recovered add up to.
func (n *names) follow(c *conn, m message) (values []string) {
	switch r := m.reply; {
	case r.Connect != nil:
		for channel := range r.Connect.Subs {
			c.live[channel] = true
		}
	case r.Subscribe != nil:
		c.live[c.asks[r.Id]] = true
		if r.Subscribe.Id != 0 {
			c.numbers[r.Subscribe.Id] = c.asks[r.Id]
		}
		delete(c.values, c.asks[r.Id])
		if r.Subscribe.Delta {
			c.values[c.asks[r.Id]] = nil
		}
		for _, pub := range r.Subscribe.Publications {
			values = append(values, c.undelta(c.asks[r.Id], pub)...)
		}
	case r.Unsubscribe != nil:
		delete(c.live, c.asks[r.Id])
	}
	return values
}

// farewell joins a disconnect push with the close frame that says the same.
// See differences: ours sends both, theirs the frame alone. One that differs
// stays and shows.
func farewell(end []string) []string {
	for i := range end {
		if strings.HasPrefix(end[i], "closed 1009") {
			end[i] = "closed 1009"
		}
	}
	if len(end) == 2 && strings.TrimPrefix(end[0], "told ") == strings.TrimPrefix(end[1], "closed ") {
		return end[1:]
	}
	return end
}

func (n *names) render(raw []byte, channel string) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return string(raw)
	}
	for _, part := range []string{"push", "subscribe"} { // of which each server has numbers of its own
		if with, ok := v.(map[string]any)[part].(map[string]any); ok && with["id"] != nil {
			with["id"] = "number of " + channel
		}
	}
	text, _ := json.Marshal(n.rename(v, channel)) // what was decoded encodes
	return string(text)
}

func (n *names) rename(v any, channel string) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = n.rename(v[i], channel)
		}
	case map[string]any:
		for key, value := range v {
			if name := n.client(key); name != key { // presence
				delete(v, key)
				v[name] = n.rename(value, channel)
				continue
			}
			text, isText := value.(string)
			switch {
			case key == "data":
			case key == "epoch" && isText:
				v[key] = n.epoch(channel, text)
			case key == "client" && isText:
				v[key] = n.client(text)
			case key == "subs":
				for ch, sub := range value.(map[string]any) {
					n.rename(sub, ch)
				}
			default:
				v[key] = n.rename(value, channel)
			}
		}
	}
	return v
}

func (n *names) client(id string) string {
	if name := n.clients[id]; name != "" {
		return "client " + name
	}
	return id
}
