package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/web"
)

// userHandlers are what the console offers of the same.
func (s *server) userHandlers() web.UserHandlers {
	return web.UserHandlers{
		Info: s.auth.ServeUser, Revoke: s.auth.ServeRevokeSessions, Block: s.auth.ServeBlock, Unblock: s.auth.ServeUnblock,
	}
}

// keyVariable is where the commands below find the API key. serve refuses it
// like any unknown MINIGATE_ variable: the server has its keys in api.keys.
const keyVariable = "MINIGATE_KEY"

// adminCall is what the commands below share: a call to the ops listener.
type adminCall struct {
	ops, key *string
	user     *string // nil: it is not about a user
	asJSON   *bool
	timeout  time.Duration
}

func adminFlags(flags *flag.FlagSet) adminCall {
	return adminCall{
		timeout: 30 * time.Second,
		ops:     flags.String("ops", "127.0.0.1:9000", "the ops `address` of a running minigate"),
		key:     flags.String("key", "", "an API `key` whose scope allows it; better given as "+keyVariable+", which other users cannot see"),
		asJSON:  flags.Bool("json", false, "print the answer as JSON"),
	}
}

func userFlags(flags *flag.FlagSet) adminCall {
	c := adminFlags(flags)
	c.user = flags.String("user", "", "the `openid` of the user")
	return c
}

func (c adminCall) parse(flags *flag.FlagSet, args []string) error {
	if err := parse(flags, args); err != nil {
		return err
	}
	if c.user != nil && *c.user == "" {
		say(flags.Output(), "%s: --user OPENID is missing\n", flags.Name())
		return errUsage
	}
	return nil
}

// post sends body to the ops listener, decodes the answer into v and prints it:
// as it came, or by show.
func (c adminCall) post(ctx context.Context, path string, body map[string]any, stdout io.Writer, v any, show func()) error {
	if c.user != nil {
		body["user"] = *c.user
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.print(ctx, http.MethodPost, path, data, stdout, v, show)
}

// get is post for what is only looked at.
func (c adminCall) get(ctx context.Context, path string, stdout io.Writer, v any, show func()) error {
	return c.print(ctx, http.MethodGet, path, nil, stdout, v, show)
}

func (c adminCall) print(ctx context.Context, method, path string, body []byte, stdout io.Writer, v any, show func()) error {
	answer, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return fmt.Errorf("%s: not the answer of a minigate", *c.ops)
	}
	if *c.asJSON {
		_, err = fmt.Fprintf(stdout, "%s\n", answer)
		return err
	}
	show()
	return nil
}

// adminClient knows no proxy: the key goes to the node and to nobody else.
var adminClient = &http.Client{Transport: &http.Transport{}}

const maxAdminAnswer = 16 << 20 // bytes

func (c adminCall) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	if _, _, err := net.SplitHostPort(*c.ops); err != nil {
		return nil, fmt.Errorf("--ops: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+*c.ops+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Centrifugo-Error-Mode", "transport")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", cmp.Or(*c.key, os.Getenv(keyVariable)))
	res, err := adminClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAdminAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, refused(res.StatusCode, answer)
	}
	return answer, nil
}

func refused(status int, answer []byte) error {
	var a struct {
		Error struct {
			Code    json.RawMessage // a word, or a number of Centrifugo's methods
			Message string
		}
		Code    int
		Message string
	}
	switch err := json.Unmarshal(answer, &a); {
	case err == nil && a.Error.Message != "":
		return errors.New(strings.Trim(string(a.Error.Code), `"`) + ": " + a.Error.Message)
	case err == nil && a.Message != "":
		return fmt.Errorf("%d: %s", a.Code, a.Message)
	case status == http.StatusUnauthorized:
		return errors.New("api_key_unknown: the API key is missing or not known there")
	case len(answer) > 0 && len(answer) < 300:
		return fmt.Errorf("status %d: %s", status, bytes.TrimSpace(answer))
	}
	return fmt.Errorf("status %d", status)
}

// word takes the verb of a command with several.
func word(flags *flag.FlagSet, args []string, verbs ...string) (verb string, rest []string, err error) {
	switch {
	case len(args) == 0:
	case slices.Contains(verbs, args[0]):
		return args[0], args[1:], nil
	case slices.Contains([]string{"-h", "-help", "--help"}, args[0]):
		flags.Usage()
		say(flags.Output(), "'%s %s -h' lists the flags of %s.\n", flags.Name(), verbs[0], verbs[0])
		return "", nil, flag.ErrHelp
	}
	say(flags.Output(), "%s: say which: %s\n", flags.Name(), strings.Join(verbs, ", "))
	return "", nil, errUsage
}

func cmdSessions(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	verb, args, err := word(flags, args, "list", "revoke")
	if err != nil {
		return err
	}
	c := userFlags(flags)
	if verb == "list" {
		if err := c.parse(flags, args); err != nil {
			return err
		}
		var answer struct{ Sessions []auth.SessionInfo }
		return c.post(ctx, "/api/sessions", map[string]any{}, stdout, &answer, func() { printSessions(stdout, answer.Sessions) })
	}
	session := flags.String("session", "", "end only the session with this `id`, as list shows it")
	all := flags.Bool("all", false, "end all of the user's sessions")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	if *all == (*session != "") {
		say(flags.Output(), "%s: either --session ID or --all\n", flags.Name())
		return errUsage
	}
	return c.postEnding(ctx, "/api/sessions/revoke", map[string]any{"session": *session, "all": *all}, stdout)
}

func (c adminCall) postEnding(ctx context.Context, path string, body map[string]any, stdout io.Writer) error {
	var answer struct{ Ended int }
	return c.post(ctx, path, body, stdout, &answer, func() { say(stdout, "ended %d sessions\n", answer.Ended) })
}

func printSessions(stdout io.Writer, list []auth.SessionInfo) {
	if len(list) == 0 {
		say(stdout, "no sessions\n")
		return
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	say(w, "ID\tAPPID\tLOGIN\tLAST SEEN\tEXPIRES\tIP\tDEVICE\n")
	for _, s := range list {
		say(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, s.AppID, stamp(s.Created), stamp(s.LastSeen), stamp(s.Expires), cmp.Or(s.IP, "-"), plain(cmp.Or(s.Device, "-")))
	}
	_ = w.Flush() // stdout may be a closed pipe
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func cmdUsers(ctx context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	verb, args, err := word(flags, args, "show", "block", "unblock")
	if err != nil {
		return err
	}
	c := userFlags(flags)
	if verb == "show" {
		if err := c.parse(flags, args); err != nil {
			return err
		}
		var u userAnswer
		return c.get(ctx, "/api/users/"+url.PathEscape(*c.user), stdout, &u, func() { printUser(stdout, u) })
	}
	if verb == "unblock" {
		if err := c.parse(flags, args); err != nil {
			return err
		}
		return c.post(ctx, "/api/users/unblock", map[string]any{}, stdout, &struct{}{}, func() { say(stdout, "may log in\n") })
	}
	reason := flags.String("reason", "", "what the user is told, at most 200 characters")
	length := flags.Duration("for", 0, "how long, such as 24h; 0 until unblocked")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	if *length != 0 && *length < time.Second {
		say(flags.Output(), "%s: --for is at least one second\n", flags.Name())
		return errUsage
	}
	body := map[string]any{"reason": *reason, "expires_in": int64(*length / time.Second)}
	return c.postEnding(ctx, "/api/users/block", body, stdout)
}
