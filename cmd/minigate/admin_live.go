package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/minigate/minigate/gateway"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// pushStdin is where the data of a push comes from without an argument.
var pushStdin io.Reader = os.Stdin

const maxPush = 4 << 20 // bytes; the server takes less

// pushedAnswer is what the command shows of the answer to a push.
type pushedAnswer struct {
	Result struct {
		Sockets  int
		Users    map[string]pushedTarget
		UnionIDs map[string]pushedTarget
		Channels map[string]pushedTarget
		AllError *struct{ Message string } `json:"all_error"`
	}
}

type pushedTarget struct {
	Sockets  int
	Stored   bool
	Repeated bool
	Error    *struct{ Message string }
}

func cmdPush(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	var users, unionIDs, channels list
	flags.Var(&users, "user", "an `openid`; may be repeated")
	flags.Var(&unionIDs, "unionid", "a `unionid`; may be repeated")
	flags.Var(&channels, "channel", "a `channel`; may be repeated")
	all := flags.Bool("all", false, "every socket")
	key := flags.String("idempotency-key", "", "a `key` under which the same push is delivered once")
	c := adminFlags(flags)
	if err := flags.Parse(args); err != nil {
		return usage(err)
	}
	if !*all && len(users)+len(unionIDs)+len(channels) == 0 {
		say(flags.Output(), "%s: to whom? --user, --unionid, --channel or --all\n", flags.Name())
		return errUsage
	}
	data, err := pushData(flags)
	if err != nil {
		return err
	}
	body := map[string]any{"users": users, "unionids": unionIDs, "channels": channels, "all": *all, "data": data, "idempotency_key": *key}
	var answer pushedAnswer
	if err := c.post(ctx, "/api/push", body, stdout, &answer, func() { printPushed(stdout, answer) }); err != nil {
		return err
	}
	return answer.problem()
}

// pushData is the one argument, or else what standard input holds.
func pushData(flags *flag.FlagSet) (json.RawMessage, error) {
	data := []byte(flags.Arg(0))
	switch flags.NArg() {
	case 0:
		var err error
		if data, err = io.ReadAll(io.LimitReader(pushStdin, maxPush+1)); err != nil {
			return nil, err
		}
	case 1:
	default:
		say(flags.Output(), "%s: unexpected argument %q: flags come first, the data is one argument\n", flags.Name(), flags.Arg(1))
		return nil, errUsage
	}
	switch {
	case len(data) > maxPush:
		return nil, errors.New("the data is too large")
	case !json.Valid(data):
		return nil, errors.New(`the data is not JSON; text is written as '"text"'`)
	}
	return data, nil
}

func usage(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	return errUsage // flag has printed what is wrong
}

func (a pushedAnswer) targets() map[string]map[string]pushedTarget {
	return map[string]map[string]pushedTarget{"user": a.Result.Users, "unionid": a.Result.UnionIDs, "channel": a.Result.Channels}
}

// problem makes a push of which a part failed end with status 1.
func (a pushedAnswer) problem() error {
	if a.Result.AllError != nil {
		return errors.New("all: " + a.Result.AllError.Message)
	}
	for _, targets := range a.targets() {
		for _, t := range targets {
			if t.Error != nil {
				return errors.New("not all targets could be pushed to")
			}
		}
	}
	return nil
}

func printPushed(stdout io.Writer, a pushedAnswer) {
	say(stdout, "for %d sockets\n", a.Result.Sockets)
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, kind := range []string{"user", "unionid", "channel"} {
		targets := a.targets()[kind]
		for _, name := range slices.Sorted(maps.Keys(targets)) {
			t := targets[name]
			what := "nobody is there, and nothing is kept"
			switch {
			case t.Error != nil:
				what = t.Error.Message
			case t.Repeated:
				what = "went out before"
			case t.Stored:
				what = "stored"
			case t.Sockets > 0:
				what = "not stored"
			}
			say(w, "%s\t%s\t%d sockets\t%s\n", kind, plain(name), t.Sockets, what)
		}
	}
	_ = w.Flush() // stdout may be a closed pipe
}

func cmdConnections(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	verb, args, err := word(flags, args, "list", "show")
	if err != nil {
		return err
	}
	c := adminFlags(flags)
	if verb == "show" {
		client := flags.String("client", "", "the `id` of a connection, as list shows it")
		if err := c.parse(flags, args); err != nil {
			return err
		}
		var found gateway.Connection
		return c.post(ctx, "/api/connections/show", map[string]any{"client": *client}, stdout, &found, func() { printConnection(stdout, found) })
	}
	body := map[string]any{}
	filters := map[string]*string{}
	for name, what := range map[string]string{
		"user": "only those of an `openid`", "appid": "only those of a mini-program (`appid`)", "unionid": "only those of a `unionid`",
		"channel": "only those subscribed to a `channel`", "ip": "only those from an `address` or range", "node": "only those on a node (`uid or name`)",
		"cursor": "go on where the page before ended, with its `cursor`",
	} {
		filters[name] = flags.String(name, "", what)
	}
	limit := flags.Int("limit", 50, "show at most this `number`, up to 200")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	for name, value := range filters {
		body[name] = *value
	}
	body["limit"] = *limit
	var page connectionsAnswer
	return c.post(ctx, "/api/connections", body, stdout, &page, func() { printConnections(stdout, page) })
}

func printConnections(stdout io.Writer, page connectionsAnswer) {
	printConnectionTable(stdout, page.Connections)
	if page.Cursor != "" {
		say(stdout, "there may be more: --cursor %s\n", page.Cursor)
	}
	if len(page.Missing) > 0 {
		say(stdout, "these nodes did not answer: %s\n", strings.Join(page.Missing, ", "))
	}
}

func printConnectionTable(stdout io.Writer, connections []gateway.Connection) {
	if len(connections) == 0 {
		say(stdout, "no connections\n")
		return
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	say(w, "CLIENT\tUSER\tSINCE\tIP\tDEVICE\tCHANNELS\tNODE\n")
	for _, c := range connections {
		say(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", c.Client, plain(cmp.Or(c.User, "-")), stamp(c.Since), cmp.Or(c.IP, "-"), plain(cmp.Or(c.Device, "-")), c.NumChannels, c.NodeName)
	}
	_ = w.Flush() // stdout may be a closed pipe
}

func printConnection(stdout io.Writer, c gateway.Connection) {
	printFields(stdout, [][2]string{
		{"client", c.Client},
		{"user", c.User},
		{"appid", c.AppID},
		{"unionid", c.UnionID},
		{"since", stamp(c.Since)},
		{"device", c.Device},
		{"ip", c.IP},
		{"user agent", c.UserAgent},
		{"sdk", strings.TrimSpace(c.Name + " " + c.Version)},
		{"protocol", c.Protocol},
		{"session", c.Session},
		{"node", c.NodeName},
		{"channels", strings.Join(c.Channels, " ")},
	})
}

// plain is text that somebody else chose, fit for a terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// printFields prints what is there, one a line.
func printFields(stdout io.Writer, fields [][2]string) {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, f := range fields {
		if f[1] != "" {
			say(w, "%s\t%s\n", f[0], plain(f[1]))
		}
	}
	_ = w.Flush() // stdout may be a closed pipe
}

func printUser(stdout io.Writer, u userAnswer) {
	if !u.Online {
		say(stdout, "offline\n")
	} else {
		say(stdout, "online since %s\n", stamp(u.Since))
		printConnectionTable(stdout, u.Connections)
		say(stdout, "channels: %s\n", plain(strings.Join(u.Channels, " ")))
	}
	if u.Logins == nil {
		return
	}
	if b := u.Logins.Block; b != nil {
		say(stdout, "blocked since %s until %s: %s\n", stamp(b.Since), stampOr(b.Until), plain(cmp.Or(b.Reason, "-")))
	}
	printSessions(stdout, u.Logins.Sessions)
}

func cmdKick(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	c := adminFlags(flags)
	client := flags.String("client", "", "close only the connection with this `id`")
	user := flags.String("user", "", "close the connections of this `openid`")
	session := flags.String("session", "", "of the user, only those of the session with this `id`, as sessions list shows it")
	code := flags.Uint("code", 0, "the close `code`, 3000 to 4999; with 3000 to 3499 and 4000 to 4499 clients come back")
	reason := flags.String("reason", "", "plain `words` for the client")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	if (*client == "") == (*user == "") {
		say(flags.Output(), "%s: either --client ID or --user OPENID\n", flags.Name())
		return errUsage
	}
	body := map[string]any{"client": *client, "user": *user, "session": *session, "code": *code, "reason": *reason}
	var answer kickedAnswer
	return c.post(ctx, "/api/connections/kick", body, stdout, &answer, func() { say(stdout, "closed %d connections\n", answer.Kicked) })
}

func cmdNodes(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	c := adminFlags(flags)
	if err := c.parse(flags, args); err != nil {
		return err
	}
	var answer nodesAnswer
	return c.get(ctx, "/api/nodes", stdout, &answer, func() {
		w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		say(w, "NAME\tUID\tVERSION\tSTARTED\tCONNECTIONS\tUSERS\tCHANNELS\n")
		for _, n := range answer.Nodes {
			say(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\n", n.Name, n.UID, n.Version, stamp(n.Started), n.Clients, n.Users, n.Channels)
		}
		_ = w.Flush() // stdout may be a closed pipe
	})
}
