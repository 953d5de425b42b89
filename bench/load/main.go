//go:build linux

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

// options are the flags.
type options struct {
	mode, socket, channel string
	publish, key          string
	tokens, login         string
	n, count, stalled     int
	publishers, size      int
	rate                  float64
	length                time.Duration
	perSecond, loops      int
	deflate               bool
	pids                  string
	sources               int
	hold, pause           time.Duration
	bare                  bool
	then, backoff         string
}

func parseFlags() (o options) {
	flag.StringVar(&o.mode, "mode", "idle", "idle, storm, handshake, fanout, rate, unicast, command, stall, hold or failover")
	flag.StringVar(&o.socket, "url", "ws://127.0.0.1:8080/connection/websocket", "where sockets connect, loopback only; {user} stands for the user of a connection")
	flag.StringVar(&o.channel, "channel", "feed:load", "channel that every connection subscribes to; empty for none")
	flag.StringVar(&o.publish, "publish", "http://127.0.0.1:9000/api/publish", "server API method that publishes to a channel; with -bare where data is posted, {channel} stands for the channel")
	flag.StringVar(&o.key, "key", "dev", "API key")
	flag.StringVar(&o.tokens, "tokens", "", "file with a login token and, for unicast, its user on each line; - for none at all")
	flag.StringVar(&o.login, "login", "http://127.0.0.1:8080/auth/login", "where tokens come from if there is no file: codes sim:loadN are redeemed")
	flag.IntVar(&o.n, "n", 1000, "connections")
	flag.IntVar(&o.count, "count", 40, "publications of fanout and stall, and of others for hold and failover")
	flag.IntVar(&o.stalled, "stalled", 1000, "connections of stall that stop reading")
	flag.IntVar(&o.publishers, "publishers", 8, "publishers of unicast, and of rate")
	flag.IntVar(&o.size, "size", 128, "bytes of data in a publication")
	flag.Float64Var(&o.rate, "rate", 10, "publications per second of rate")
	flag.DurationVar(&o.length, "for", 5*time.Second, "how long rate, unicast and command last")
	flag.IntVar(&o.perSecond, "connects", 0, "new connections per second; 0 as fast as the server takes them")
	flag.IntVar(&o.loops, "loops", 1, "goroutines that serve the connections")
	flag.BoolVar(&o.deflate, "deflate", false, "offer permessage-deflate")
	flag.StringVar(&o.pids, "pids", "", "process ids of the server, comma separated, for its CPU and memory")
	flag.IntVar(&o.sources, "sources", 1, "local addresses 127.0.0.2 and up to connect from")
	flag.DurationVar(&o.hold, "hold", 10*time.Second, "how long idle holds its connections")
	flag.DurationVar(&o.pause, "pause", 2*time.Second, "time between the last connection of idle and the look at memory")
	flag.BoolVar(&o.bare, "bare", false, "no protocol: a message is a publication")
	flag.StringVar(&o.then, "then", "", "where connections of failover go when theirs is lost")
	flag.StringVar(&o.backoff, "backoff", "sdk", "how they go: sdk, with delays as the SDKs have them, or none, all at once")
	flag.Parse()
	return o
}

func main() {
	if err := run(parseFlags()); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	r, err := newRun(o)
	if err != nil {
		return err
	}
	if err := r.work(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r.result)
}

// target is where sockets connect. Only addresses of this machine are taken.
func target(socket string) (to netip.AddrPort, path string, err error) {
	u, err := url.Parse(socket)
	if err != nil || u.Scheme != "ws" {
		return to, "", fmt.Errorf("%q is not a ws:// URL", socket)
	}
	if to, err = netip.ParseAddrPort(u.Host); err != nil || !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return to, "", fmt.Errorf("%q is not an IPv4 loopback address with a port", u.Host)
	}
	return to, u.RequestURI(), nil
}

// server is the processes that are measured.
type server struct {
	pids []int
	err  error // the first: a process that is gone cannot be measured
}

func parsePIDs(text string) (s server, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		pid, err := strconv.Atoi(part)
		if err != nil {
			return s, fmt.Errorf("-pids: %q is no process id", part)
		}
		s.pids = append(s.pids, pid)
	}
	return s, nil
}

// cpu is what the server has used so far.
func (s *server) cpu() time.Duration {
	sum, err := harness.CPUTime(s.pids...)
	s.note(err)
	return sum
}

// memory is what the server holds, in bytes.
func (s *server) memory() int64 {
	sum, err := harness.Memory(s.pids...)
	s.note(err)
	return sum
}

func (s *server) note(err error) {
	if s.err == nil && err != nil {
		s.err = fmt.Errorf("the server cannot be measured: %w", err)
	}
}

// work does what the mode is for.
func (t *trial) work() error {
	modes := map[string]func() error{
		"idle": t.idle, "storm": t.storm, "fanout": t.fanout, "rate": t.rate,
		"unicast": t.unicast, "command": t.command, "stall": t.stall,
		"handshake": t.handshake, "hold": t.wait, "failover": t.failover,
	}
	mode := modes[t.mode]
	if mode == nil {
		return fmt.Errorf("there is no mode %q", t.mode)
	}
	if err := mode(); err != nil {
		return err
	}
	return t.server.err
}
