//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/bench/harness"
)

// server is one of those that are compared.
type server struct {
	name  string
	bare  bool                                                              // speaks no Centrifuge protocol
	jwt   bool                                                              // takes tokens that a backend has signed, and knows no logins
	start func(b *bench, ctx context.Context, s scenario) (*running, error) // what runs is also returned where it is of no use
}

// running is a server that runs.
type running struct {
	*harness.Process

	of              server
	socket, publish string // URLs
	failed          bool   // in this round
}

// The builds of minigate: the one that all are compared with, and a second one.
const (
	thisBuild  = "minigate"
	otherBuild = "other"
)

// dataOf is the folder of a build in that of the run: two that are up cannot share
// one.
func dataOf(build string) string { return "data-" + build }

// servers are all there are, minigate first.
var servers = []server{
	{name: thisBuild, start: func(b *bench, ctx context.Context, s scenario) (*running, error) {
		return b.startMinigate(ctx, s, thisBuild)
	}},
	{name: "centrifugo", jwt: true, start: (*bench).startCentrifugo},
	{name: "centrifuge", start: func(b *bench, ctx context.Context, s scenario) (*running, error) { return b.startCentrifuge(s) }},
	{name: "tuned", start: func(b *bench, ctx context.Context, s scenario) (*running, error) {
		return b.startCentrifuge(s, "-tuned")
	}},
	{name: "nchan", bare: true, start: (*bench).startNchan},
	{name: "gws", bare: true, start: func(b *bench, ctx context.Context, s scenario) (*running, error) { return b.startBare("gws", s) }},
	{name: "raw", bare: true, start: func(b *bench, ctx context.Context, s scenario) (*running, error) { return b.startBare("raw", s) }},
}

// choose returns minigate, its other build if there is one, and the peers with
// these names.
func choose(peers, other string) ([]server, error) {
	chosen := servers[:1:1]
	if other != "" {
		chosen = append(chosen, server{name: otherBuild, start: func(b *bench, ctx context.Context, s scenario) (*running, error) {
			return b.startMinigate(ctx, s, otherBuild)
		}})
	}
	for name := range strings.SplitSeq(peers, ",") {
		found := false
		for _, s := range servers[1:] {
			if s.name == name {
				chosen, found = append(chosen, s), true
			}
		}
		if !found && name != "" {
			return nil, fmt.Errorf("-peers: there is no %q", name)
		}
	}
	return chosen, nil
}

// startMinigate starts one of its builds.
func (b *bench) startMinigate(ctx context.Context, s scenario, build string) (*running, error) {
	environ := []string{"MINIGATE_CLIENT_PING_INTERVAL=" + s.ping.String(), "MINIGATE_CLIENT_PONG_TIMEOUT=" + (s.ping / 3).String()}
	if s.mode == "handshake" {
		environ = append(environ, verifyCache)
	}
	if s.deflate {
		environ = append(environ, "MINIGATE_WEBSOCKET_COMPRESSION=true")
	}
	m, err := b.run.StartMinigate(ctx, b.programs[build], dataOf(build), environ...)
	if err != nil {
		return nil, err
	}
	return &running{Process: m.Process, socket: m.Socket(), publish: m.Ops + "/api/publish"}, nil
}

func (b *bench) startCentrifuge(s scenario, args ...string) (*running, error) {
	p, sockets, publish, err := b.startPeer("centrifuge", s, append(args, "-tokens", b.tokens)...)
	if err != nil {
		return nil, err
	}
	return &running{Process: p, socket: "ws://" + sockets + "/connection/websocket", publish: "http://" + publish + "/api/publish"}, nil
}

func (b *bench) startBare(name string, s scenario) (*running, error) {
	p, sockets, publish, err := b.startPeer(name, s)
	if err != nil {
		return nil, err
	}
	return &running{Process: p, socket: "ws://" + sockets + "/?user={user}", publish: "http://" + publish + "/publish?channel={channel}"}, nil
}

// startPeer starts one of our peers, which says where it listens for sockets
// and for publications.
func (b *bench) startPeer(name string, s scenario, args ...string) (p *harness.Process, sockets, publish string, err error) {
	args = append(args, "-ping", s.ping.String())
	if s.deflate {
		args = append(args, "-deflate")
	}
	cmd := exec.Command(b.programs[name], args...)
	out, wrote, err := os.Pipe()
	if err != nil {
		return nil, "", "", err
	}
	defer func() { _ = out.Close() }() // nothing else is said
	cmd.Stdout = wrote
	p, err = b.run.Start(cmd)
	_ = wrote.Close() // the child has its own
	if err != nil {
		return nil, "", "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.run.Stop(p)
		return nil, "", "", fmt.Errorf("it did not say where it listens: %w\n%s", err, p.Said())
	}
	sockets, publish, _ = strings.Cut(strings.TrimSpace(line), " ")
	return p, sockets, publish, nil
}

// nchanModule is where Debian's package libnginx-mod-nchan puts it.
const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

// nchanConf has what the other servers have as far as nchan knows it: two
// channels for each connection, 100 messages kept for 5 minutes, pings.
const nchanConf = `daemon off;
load_module ` + nchanModule + `;
worker_processes %d;
worker_rlimit_nofile %d;
%s
pid nginx.pid;
error_log stderr crit;
events { worker_connections %d; }
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	client_body_buffer_size 64k;
	keepalive_requests 1000000000;
	nchan_shared_memory_size 512m;
	nchan_message_buffer_length 100;
	nchan_message_timeout 300s;
	server {
		listen %s backlog=65535;
		location = /sub {
			nchan_subscriber websocket;
			nchan_channel_id "$arg_channel" "%%23$arg_user";
			nchan_subscriber_first_message newest;
			nchan_websocket_ping_interval %d;
		}
		location = /pub {
			nchan_publisher http;
			nchan_channel_id "$arg_channel";
			nchan_deflate_message_for_websocket %s;
		}
	}
}
`

func (b *bench) startNchan(ctx context.Context, s scenario) (*running, error) {
	program, err := harness.Nginx()
	if err == nil {
		_, err = os.Stat(nchanModule)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; install nginx and libnginx-mod-nchan, or leave nchan out of -peers", err)
	}
	addr, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.run.Dir, "nchan-")
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its workers reach the benchmark's folder
	}
	workers := runtime.NumCPU()
	ping, deflate := max(int(s.ping/time.Second), 1), "off"
	if s.deflate {
		deflate = "on"
	}
	conf := fmt.Appendf(nil, nchanConf, workers, b.limit, user, b.limit-100, addr, ping, deflate)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, conf, 0o600); err != nil {
		return nil, err
	}
	p, err := b.run.Start(exec.Command(program, "-p", dir, "-c", file, "-e", "stderr"))
	if err != nil {
		return nil, err
	}
	return &running{
		Process: p, socket: "ws://" + addr + "/sub?channel=" + url.QueryEscape(channel) + "&user={user}", publish: "http://" + addr + "/pub?channel={channel}",
	}, errors.Join(awaitWorkers(ctx, p, workers), p.Await(ctx, addr))
}

// awaitWorkers waits until nginx has started all its processes: it accepts
// connections before, and they are on its bill.
func awaitWorkers(ctx context.Context, p *harness.Process, workers int) error {
	for {
		pids, err := p.PIDs()
		if err != nil || len(pids) > workers {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// args are what the load generator has to know of a server.
func (r *running) args(b *bench) ([]string, error) {
	tokens := b.tokens
	if r.of.jwt {
		tokens = b.signed
	}
	pids, err := r.PIDs()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	return []string{
		"-url", r.socket, "-publish", r.publish, "-bare=" + strconv.FormatBool(r.of.bare),
		"-pids", strings.Join(list, ","), "-tokens", tokens, "-channel", channel,
	}, nil
}
