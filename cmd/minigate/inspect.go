package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"

	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/rest"
)

// defaultInspected is how many connections and channels are looked at unless
// limit is given: some ten milliseconds of one core.
const defaultInspected = 10_000

type inspectRequest struct {
	Limit *int `json:"limit"`
}

// inspectAnswer is about the node that was asked, and no other.
type inspectAnswer struct {
	Node string `json:"node"` // its name
	gateway.Inspection
	TookMS int64 `json:"took_ms"`
}

// serveInspect is POST {limit?} → inspectAnswer. Invalid `bad_limit`, Limited
// `inspection_running`.
func (s *server) serveInspect(w http.ResponseWriter, r *http.Request) error {
	var req inspectRequest
	if err := rest.Decode(w, r, maxLookupBody, &req); err != nil {
		return err
	}
	limit := defaultInspected
	if req.Limit != nil {
		limit = *req.Limit
	}
	in, err := s.hub.Inspect(r.Context(), limit)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, inspectAnswer{s.hub.Self().Name, in, in.Took.Milliseconds()})
}

// errContradictions ends the command below with status 1.
var errContradictions = errors.New("this node contradicts itself: please report it, with what is printed above")

func cmdInspect(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	c := adminFlags(flags)
	limit := flags.Int("limit", defaultInspected, "look at most at this `number` of connections and of channels, picked at random, up to 100000")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	var a inspectAnswer
	err := c.post(ctx, "/api/inspect", map[string]any{"limit": *limit}, stdout, &a, func() { printInspection(stdout, a) })
	if err == nil && len(a.Problems) > 0 {
		err = errContradictions
	}
	return err
}

func printInspection(stdout io.Writer, a inspectAnswer) {
	say(stdout, "%s: looked at %s and %s in %d ms\n", plain(a.Node),
		part(a.ConnectionsChecked, a.Connections, "connections"), part(a.ChannelsChecked, a.Channels, "channels"), a.TookMS)
	for _, problem := range a.Problems {
		say(stdout, "  %s\n", plain(problem))
	}
	if a.More > 0 {
		say(stdout, "  and %d more\n", a.More)
	}
	if len(a.Problems) == 0 {
		say(stdout, "no contradictions\n")
	}
}

func part(n, of int, what string) string {
	if n == of {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d of %d %s", n, of, what)
}
