package gateway

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

const (
	// inspectLooks is how often something has to look wrong in the same way.
	inspectLooks = 3
	inspectPause = 200 * time.Millisecond

	maxInspected = 100_000 // connections, and channels
	maxProblems  = 100     // that are told in words
)

var (
	errInspecting   = fault.New(fault.Limited, "inspection_running", "An inspection is running already.").After(time.Second)
	errInspectLimit = fault.Newf(fault.Invalid, "bad_limit", "limit must be between 1 and %d.", maxInspected)
)

// Inspection is what a look at a hub at work found.
type Inspection struct {
	Connections        int           `json:"connections"` // there are
	ConnectionsChecked int           `json:"connections_checked"`
	Channels           int           `json:"channels"` // there are, those without subscribers among them
	ChannelsChecked    int           `json:"channels_checked"`
	Complete           bool          `json:"complete"` // everything was looked at, also what only all together tell
	Looks              int           `json:"looks"`
	Took               time.Duration `json:"-"`
	Problems           []string      `json:"problems"`
	More               int           `json:"more,omitempty"` // problems that are not told
}

// probe is one thing to look at, and what has looked wrong about it every time.
type probe struct {
	look  func(complaints)
	wrong map[string]bool
}

// Inspect looks for contradictions between what the hub keeps in different
// places, as Check does, while it works. It looks at no more than limit
// connections, and as many channels and subscribers of each, picked at random
// where there are more. What looks wrong may only be under way, so it is looked
// at again: a problem is what looks the same three times. No lock is held for
// longer than one connection takes, or limit subscribers of a channel.
//
// Limited `inspection_running` where one runs already.
func (h *Hub) Inspect(ctx context.Context, limit int) (in Inspection, err error) {
	if limit < 1 || limit > maxInspected {
		return in, errInspectLimit
	}
	if !h.inspecting.CompareAndSwap(false, true) {
		return in, errInspecting
	}
	defer h.inspecting.Store(false)
	began := time.Now()
	probes := h.probes(limit, &in)
	for {
		in.Looks++
		if probes, err = lookAt(ctx, probes, complaints{live: true, limit: limit}, in.Looks == 1); err != nil {
			return in, err
		}
		if len(probes) == 0 || in.Looks == inspectLooks {
			break
		}
		if !sleep(ctx, inspectPause) {
			return in, ctx.Err()
		}
	}
	in.Problems = []string{}
	for _, p := range probes {
		for text := range p.wrong {
			if len(in.Problems) < maxProblems {
				in.Problems = append(in.Problems, text)
			} else {
				in.More++
			}
		}
	}
	in.Took = time.Since(began)
	return in, nil
}

// probes picks what to look at.
func (h *Hub) probes(limit int, in *Inspection) (list []probe) {
	clients := h.clients.list()
	in.Connections = len(clients)
	in.ConnectionsChecked = min(limit, len(clients))
	for i := range in.ConnectionsChecked {
		j := i + rand.N(len(clients)-i)
		clients[i], clients[j] = clients[j], clients[i]
		c := clients[i]
		list = append(list, probe{look: func(k complaints) { h.checkClient(c, k) }})
	}
	var buf []*channel
	for _, i := range rand.Perm(len(h.channels.shards)) {
		buf = h.channels.shards[i].list(buf)
		in.Channels += len(buf)
		for _, ch := range buf[:min(len(buf), limit-in.ChannelsChecked)] {
			in.ChannelsChecked++
			list = append(list, probe{look: func(k complaints) { h.checkChannel(ch, k) }})
		}
	}
	in.Complete = in.ConnectionsChecked == in.Connections && in.ChannelsChecked == in.Channels
	if in.Complete {
		list = append(list, probe{look: h.checkAll})
	}
	return list
}

// lookAt returns the probes that complain, with what they complain about every
// time.
func lookAt(ctx context.Context, probes []probe, k complaints, first bool) ([]probe, error) {
	still := probes[:0]
	for i, p := range probes {
		if i%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var wrong map[string]bool
		k.add = func(text string) {
			if first || p.wrong[text] {
				if wrong == nil {
					wrong = make(map[string]bool)
				}
				wrong[text] = true
			}
		}
		if p.look(k); wrong != nil {
			still = append(still, probe{p.look, wrong})
		}
	}
	return still, nil
}
