package main

import (
	"cmp"
	"context"
	"flag"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/minigate/minigate/internal/webhook"
	"github.com/minigate/minigate/web"
)

// webhookHandlers are what the console offers of the same.
func (s *server) webhookHandlers() web.WebhookHandlers {
	return web.WebhookHandlers{
		List: s.hooks.news.ServeDead, Show: s.hooks.news.ServeShow, Replay: s.hooks.news.ServeReplay, Drop: s.hooks.news.ServeDrop,
	}
}

func cmdWebhooks(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	verb, args, err := word(flags, args, "list", "show", "replay", "drop")
	if err != nil {
		return err
	}
	c := adminFlags(flags)
	switch verb {
	case "list":
		return listWebhooks(ctx, c, flags, args, stdout)
	case "show":
		return showWebhook(ctx, c, flags, args, stdout)
	}
	c.timeout = 10 * time.Minute // there may be many
	delivery := flags.String("delivery", "", verb+" only the dead delivery with this `id`, as list shows it")
	all := flags.Bool("all", false, verb+" all that are dead")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	if *all == (*delivery != "") {
		say(flags.Output(), "%s: either --delivery ID or --all\n", flags.Name())
		return errUsage
	}
	var answer webhook.ManyAnswer
	return c.post(ctx, "/api/webhooks/"+verb, map[string]any{"delivery": *delivery, "all": *all}, stdout, &answer, func() {
		done := map[string]string{"replay": "replayed", "drop": "dropped"}[verb]
		say(stdout, "%s %d deliveries\n", done, answer.Done)
		if answer.Failed > 0 {
			say(stdout, "%d are still dead: %s\n", answer.Failed, answer.Problem)
		}
	})
}

func listWebhooks(ctx context.Context, c adminCall, flags *flag.FlagSet, args []string, stdout io.Writer) error {
	skip := flags.Int("skip", 0, "leave out the latest `number` of them")
	limit := flags.Int("limit", 50, "show at most this `number`, up to 100")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	var answer webhook.ListAnswer
	return c.post(ctx, "/api/webhooks", map[string]any{"skip": *skip, "limit": *limit}, stdout, &answer, func() {
		printQueue(stdout, answer.Queue)
		if len(answer.Deliveries) == 0 {
			return
		}
		w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		say(w, "ID\tEVENT\tQUEUED\tDIED\tATTEMPTS\tSTATUS\tREASON\n")
		for _, d := range answer.Deliveries {
			say(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", d.ID, cmp.Or(d.Event, "-"), stampOr(d.Queued), stampOr(d.Died), d.Attempts, statusOr(d.Status), d.Reason)
		}
		_ = w.Flush() // stdout may be a closed pipe
	})
}

func printQueue(stdout io.Writer, q webhook.QueueInfo) {
	say(stdout, "%d pending", q.Pending)
	if !q.Oldest.IsZero() {
		say(stdout, ", the oldest since %s", stamp(q.Oldest))
	}
	say(stdout, "; %d dead, %d bytes\n", q.Dead, q.DeadBytes)
}

func showWebhook(ctx context.Context, c adminCall, flags *flag.FlagSet, args []string, stdout io.Writer) error {
	delivery := flags.String("delivery", "", "the `id` of a dead delivery, as list shows it")
	body := flags.Bool("body", false, "show its body too, which is about a user; the server logs that")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	if *delivery == "" {
		say(flags.Output(), "%s: --delivery ID is missing\n", flags.Name())
		return errUsage
	}
	var d webhook.DeadInfo
	return c.post(ctx, "/api/webhooks/show", map[string]any{"delivery": *delivery, "body": *body}, stdout, &d, func() {
		printFields(stdout, [][2]string{
			{"id", d.ID},
			{"hook", d.Hook},
			{"event", d.Event},
			{"queued", stampOr(d.Queued)},
			{"died", stampOr(d.Died)},
			{"attempts", strconv.Itoa(d.Attempts)},
			{"status", statusOr(d.Status)},
			{"reason", d.Reason},
			{"key", d.Key},
			{"body", string(d.Body)},
		})
	})
}

func stampOr(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return stamp(t)
}

func statusOr(status int) string {
	if status == 0 {
		return "-"
	}
	return strconv.Itoa(status)
}
