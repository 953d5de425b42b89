package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/minigate/minigate/bench/harness"
)

// bench owns the processes of a run.
type bench struct {
	options
	run *harness.Run
}

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

func (b *bench) close() {
	if b.run != nil {
		b.run.Close()
	}
}

// start starts both sides and what they need: nginx first, minigate second.
func (b *bench) start(ctx context.Context) ([]*side, error) {
	var err error
	if b.run, err = harness.New(); err != nil {
		return nil, err
	}
	upstream, _, err := b.own("upstream", strconv.Itoa(b.size))
	if err != nil {
		return nil, err
	}
	minigate, err := b.startMinigate(ctx, upstream)
	if err != nil {
		return nil, fmt.Errorf("minigate: %w", err)
	}
	auth, authPID, err := b.own("auth", minigate.token)
	if err != nil {
		return nil, err
	}
	nginx, err := b.startNginx(ctx, upstream, auth, authPID)
	if err != nil {
		return nil, fmt.Errorf("nginx: %w", err)
	}
	nginx.token = minigate.token
	return []*side{nginx, minigate}, nil
}

// own starts a server of this program and returns where it listens.
func (b *bench) own(what, arg string) (addr string, pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	cmd := exec.Command(self, "serve", what, arg)
	cmd.Stderr = os.Stderr
	if _, err = cmd.StdinPipe(); err != nil { // closed when we end
		return "", 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if _, err := b.run.Start(cmd); err != nil {
		return "", 0, err
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(addr), cmd.Process.Pid, err
}

// startMinigate runs the real program with its simulated WeChat, and logs in.
func (b *bench) startMinigate(ctx context.Context, upstream string) (*side, error) {
	program := b.minigate
	if program == "" {
		built, err := b.run.Build(ctx, "./cmd/minigate")
		if err != nil {
			return nil, err
		}
		program = built[0]
	}
	m, err := b.run.StartMinigate(ctx, program, "data", "MINIGATE_PROXY_ROUTES=[{prefix: /api/, upstream: 'http://"+upstream+"'}]")
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintln(os.Stderr, "minigate's profiles are at "+m.Ops+"/debug/pprof/") // only for those who look
	logins, err := harness.LogIn(ctx, m.Public, "bench", 1, 1)
	if err != nil {
		return nil, err
	}
	return &side{name: "minigate", url: m.Public, pids: m.PIDs, token: logins[0].Token}, nil
}

// nginxConf does what minigate does: it asks who is calling, says so, takes
// away what the caller says about it, and streams. Nothing is logged.
const nginxConf = `daemon off;
worker_processes auto;
%s
pid nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	keepalive_requests 1000000000;
	upstream app { server %s; keepalive 256; keepalive_requests 1000000000; }
	upstream auth { server %s; keepalive 256; keepalive_requests 1000000000; }
	server {
		listen %s;
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		location /api/ {
			auth_request /authenticate;
			auth_request_set $openid $upstream_http_x_openid;
			auth_request_set $unionid $upstream_http_x_unionid;
			auth_request_set $appid $upstream_http_x_appid;
			proxy_set_header Connection "";
			proxy_set_header Authorization "";
			proxy_set_header X-WX-OPENID $openid;
			proxy_set_header X-WX-UNIONID $unionid;
			proxy_set_header X-WX-APPID $appid;
			proxy_set_header X-WX-SOURCE wx_client;
			proxy_set_header X-Forwarded-For $remote_addr;
			proxy_set_header X-Forwarded-Proto $scheme;
			proxy_set_header X-Forwarded-Host $host;
			proxy_set_header X-Request-Id $request_id;
			proxy_buffering off;
			proxy_request_buffering off;
			proxy_pass http://app;
		}
		location = /authenticate {
			internal;
			proxy_pass http://auth/;
			proxy_pass_request_body off;
			proxy_set_header Connection "";
			proxy_set_header Content-Length "";
		}
	}
}
`

func (b *bench) startNginx(ctx context.Context, upstream, auth string, authPID int) (*side, error) {
	addr, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its workers reach the benchmark's folder
	}
	conf := filepath.Join(b.run.Dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, user, upstream, auth, addr), 0o600); err != nil {
		return nil, err
	}
	program, err := harness.Nginx()
	if err != nil {
		return nil, err
	}
	p, err := b.run.Start(exec.Command(program, "-p", b.run.Dir, "-c", conf, "-e", "stderr"))
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, addr); err != nil {
		return nil, err
	}
	return &side{name: "nginx + auth", url: "http://" + addr, pids: func() ([]int, error) {
		pids, err := p.PIDs()
		return append(pids, authPID), err
	}}, nil
}
