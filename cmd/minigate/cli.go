package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

// version is set by the linker; a plain go build shows the revision instead.
var version string

// command is one word of the command line.
type command struct {
	name, args, summary string
	run                 func(ctx context.Context, flags *flag.FlagSet, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"dev", "[--listen ADDR] [--ops ADDR] [--data DIR]", "try it: a simulated WeChat and a sample backend, loopback only", cmdDev},
		{"serve", "--config FILE", "run for real", cmdServe},
		{"check", "--config FILE", "print the effective configuration, or every mistake in it", cmdCheck},
		{"docs", "", "print the reference of all settings as Markdown", cmdDocs},
		{"push", "--user|--unionid|--channel NAME … | --all [DATA]", "send JSON, from the argument or standard input", cmdPush},
		{"connections", "list|show [--client ID] [--user OPENID] …", "who is connected, on all nodes", cmdConnections},
		{"kick", "--client ID | --user OPENID [--session ID]", "close connections", cmdKick},
		{"nodes", "", "the nodes that run", cmdNodes},
		{"inspect", "[--limit N]", "look for contradictions in a node at work", cmdInspect},
		{"sessions", "list|revoke --user OPENID [--session ID|--all]", "a user's logins", cmdSessions},
		{"users", "show|block|unblock --user OPENID [--reason TEXT] [--for 24h]", "where a user is, and who may not log in", cmdUsers},
		{"files", "list|stat|delete|link|verify [--user OPENID|--file ID]", "what was uploaded", cmdFiles},
		{"webhooks", "list|show|replay|drop [--delivery ID|--all]", "news your backend did not take", cmdWebhooks},
		{"healthcheck", "[--ops ADDR]", "exit 0 if a minigate on this machine is ready, for containers", cmdHealthcheck},
		{"version", "", "print the version", cmdVersion},
	}
}

// errUsage ends the program with status 2: the mistake is in the call.
var errUsage = errors.New("usage")

// run is the whole program; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 1 && args[0] == "help" {
		args = []string{args[1], "-h"}
	}
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		printUsage(stdout)
		if len(args) == 0 {
			return 2
		}
		return 0
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		flags := flag.NewFlagSet("minigate "+c.name, flag.ContinueOnError)
		flags.SetOutput(stderr)
		flags.Usage = func() {
			say(stderr, "%s %s\n%s\n\n", flags.Name(), c.args, c.summary)
			flags.PrintDefaults()
		}
		err := c.run(ctx, flags, args[1:], stdout, stderr)
		switch {
		case err == nil || errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			return 2
		}
		say(stderr, "%v\n", err)
		return 1
	}
	say(stderr, "minigate: unknown command %q\n\n", args[0])
	printUsage(stderr)
	return 2
}

// say writes for a person, who may have closed the pipe: that is no error.
func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}

func printUsage(w io.Writer) {
	say(w, "minigate carries the network traffic of WeChat mini-programs.\n")
	say(w, "\nCommands:\n")
	for _, c := range commands() {
		say(w, "  minigate %-68s %s\n", c.name+" "+c.args, c.summary)
	}
	say(w, "\nCommands that ask a running minigate take its --ops address, an API key from %s, and --json.\n'minigate help COMMAND' says more.\n", keyVariable)
}

// parse reads flags and refuses anything that is not one.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage // flag has printed what is wrong
	}
	if flags.NArg() > 0 {
		say(flags.Output(), "%s: unexpected argument %q\n", flags.Name(), flags.Arg(0))
		return errUsage
	}
	return nil
}

func configFlag(flags *flag.FlagSet, args []string) (cfg *Config, file string, err error) {
	flags.StringVar(&file, "config", "", "the YAML `file` to read; MINIGATE_* variables win over it")
	if err := parse(flags, args); err != nil {
		return nil, "", err
	}
	if file == "" {
		say(flags.Output(), "%s: --config FILE is missing\n", flags.Name())
		return nil, "", errUsage
	}
	cfg, err = loadConfig(file, os.Environ())
	return cfg, file, err
}

func cmdServe(ctx context.Context, flags *flag.FlagSet, args []string, _, stderr io.Writer) error {
	hangups := make(chan os.Signal, 1) // one that waits stands for all that come meanwhile
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	cfg, file, err := configFlag(flags, args)
	if err != nil {
		return err
	}
	setLogger(cfg.Log, stderr)
	s, err := build(cfg, mode{})
	if err != nil {
		return err
	}
	s.reload = func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				s.reloadKeys(file)
			}
		}
	}
	return s.run(ctx)
}

func cmdCheck(_ context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	cfg, _, err := configFlag(flags, args)
	if err != nil {
		return err
	}
	return settings.Print(stdout, cfg)
}

func cmdDocs(_ context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	if err := parse(flags, args); err != nil {
		return err
	}
	return writeReference(stdout)
}

func cmdVersion(_ context.Context, flags *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	if err := parse(flags, args); err != nil {
		return err
	}
	_, err := fmt.Fprintln(stdout, "minigate", versionText())
	return err
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

// cmdHealthcheck asks readyz of the process beside it. A degraded node is
// ready: a restart would not bring its storage back.
func cmdHealthcheck(ctx context.Context, flags *flag.FlagSet, args []string, _, _ io.Writer) error {
	addr := flags.String("ops", "127.0.0.1:9000", "the ops `address` of the running minigate")
	if err := parse(flags, args); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(*addr); err != nil {
		return fmt.Errorf("--ops: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+*addr+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: status %d", res.StatusCode)
	}
	return nil
}
