package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// fileInfo is a file as POST /api/files shows it.
type fileInfo struct {
	ID      string
	Name    string
	Size    int64
	Type    string
	SHA256  string
	Owner   struct{ OpenID, AppID string }
	State   string
	Created time.Time

	Public    bool
	Channel   string
	ExpiresAt time.Time `json:"expires_at"`

	Attributes json.RawMessage
	Reason     struct{ Checker, Label string }
}

func cmdFiles(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	verb, args, err := word(flags, args, "list", "stat", "delete", "link", "verify")
	if err != nil {
		return err
	}
	c := adminFlags(flags)
	if verb == "list" {
		return listFiles(ctx, c, flags, args, stdout)
	}
	if verb == "verify" {
		return verifyFiles(ctx, c, flags, args, stdout)
	}
	file := flags.String("file", "", "the `id` of a file, as list shows it")
	var length *time.Duration
	if verb == "link" {
		length = flags.Duration("for", 10*time.Minute, "how long the link opens, in whole seconds")
	}
	if err := c.parse(flags, args); err != nil {
		return err
	}
	if *file == "" {
		say(flags.Output(), "%s: --file ID is missing\n", flags.Name())
		return errUsage
	}
	body := map[string]any{"file": *file}
	switch verb {
	case "stat":
		var f fileInfo
		return c.post(ctx, "/api/files/stat", body, stdout, &f, func() { printFile(stdout, f) })
	case "delete":
		return c.post(ctx, "/api/files/delete", body, stdout, &struct{}{}, func() { say(stdout, "deleted\n") })
	}
	if *length < time.Second {
		say(flags.Output(), "%s: --for is at least one second\n", flags.Name())
		return errUsage
	}
	body["expires_in"] = int64(*length / time.Second)
	var link struct {
		URL       string
		ExpiresAt time.Time `json:"expires_at"`
	}
	return c.post(ctx, "/api/files/link", body, stdout, &link, func() { say(stdout, "%s\nopens until %s\n", link.URL, stamp(link.ExpiresAt)) })
}

func listFiles(ctx context.Context, c adminCall, flags *flag.FlagSet, args []string, stdout io.Writer) error {
	user := flags.String("user", "", "only those of an `openid`")
	limit := flags.Int("limit", 50, "show at most this `number`")
	cursor := flags.String("cursor", "", "go on where the page before ended, with its `cursor`")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	var page struct {
		Files  []fileInfo
		Cursor string
	}
	body := map[string]any{"user": *user, "limit": *limit, "cursor": *cursor}
	return c.post(ctx, "/api/files", body, stdout, &page, func() {
		if len(page.Files) == 0 {
			say(stdout, "no files\n")
		} else {
			w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
			say(w, "ID\tSIZE\tTYPE\tSTATE\tCREATED\tOWNER\tNAME\n")
			for _, f := range page.Files {
				say(w, "%s\t%d\t%s\t%s\t%s\t%s\t%q\n", f.ID, f.Size, plain(cmp.Or(f.Type, "-")), f.State, stampOr(f.Created), plain(f.Owner.OpenID), f.Name)
			}
			_ = w.Flush() // stdout may be a closed pipe
		}
		if page.Cursor != "" {
			say(stdout, "there is more: --cursor %s\n", page.Cursor)
		}
	})
}

func printFile(stdout io.Writer, f fileInfo) {
	printFields(stdout, [][2]string{
		{"id", f.ID},
		{"name", strconv.Quote(f.Name)}, // somebody else chose it
		{"size", strconv.FormatInt(f.Size, 10)},
		{"type", f.Type},
		{"sha256", f.SHA256},
		{"owner", f.Owner.OpenID},
		{"appid", f.Owner.AppID},
		{"state", f.State},
		{"reason", strings.TrimSpace(f.Reason.Checker + " " + plain(f.Reason.Label))},
		{"created", stampOr(f.Created)},
		{"readers", readersOf(f)},
		{"expires", stampOr(f.ExpiresAt)},
		{"attributes", string(f.Attributes)},
	})
}

// readersOf says who may read a file.
func readersOf(f fileInfo) string {
	switch {
	case f.Public:
		return "anybody"
	case f.Channel != "":
		return "who is subscribed to " + strconv.Quote(f.Channel)
	}
	return "the owner"
}
