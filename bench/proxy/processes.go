package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench owns the processes of a run.
type bench struct {
	options
	dir     string
	running []*exec.Cmd
}

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	l, err := listen()
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// close ends what was started last first, and waits for it.
func (b *bench) close() {
	for i := len(b.running) - 1; i >= 0; i-- {
		_ = b.running[i].Process.Signal(syscall.SIGTERM)
		_ = b.running[i].Wait()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

func (b *bench) launch(cmd *exec.Cmd) error {
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	b.running = append(b.running, cmd)
	return nil
}

// start starts both sides and what they need: nginx first, minigate second.
func (b *bench) start(ctx context.Context) ([]*side, error) {
	var err error
	if b.dir, err = os.MkdirTemp("", "minigate-bench-"); err != nil {
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
	if err := b.launch(cmd); err != nil {
		return "", 0, err
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(addr), cmd.Process.Pid, err
}

// startMinigate runs the real program with its simulated WeChat, and logs in.
func (b *bench) startMinigate(ctx context.Context, upstream string) (*side, error) {
	program := b.minigate
	if program == "" {
		root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
		if err != nil {
			return nil, err
		}
		program = filepath.Join(b.dir, "minigate")
		build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/minigate")
		build.Dir = filepath.Dir(strings.TrimSpace(string(root)))
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, out)
		}
	}
	public, err1 := freeAddress()
	ops, err2 := freeAddress()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "dev", "--listen", public, "--ops", ops, "--data", filepath.Join(b.dir, "data"))
	cmd.Env = append(os.Environ(), "MINIGATE_PROXY_ROUTES=[{prefix: /api/, upstream: 'http://"+upstream+"'}]")
	if err := b.launch(cmd); err != nil {
		return nil, err
	}
	if err := await(ctx, public); err != nil {
		return nil, err
	}
	s := &side{name: "minigate", url: "http://" + public, pids: func() ([]int, error) { return []int{cmd.Process.Pid}, nil }}
	_, _ = fmt.Fprintln(os.Stderr, "minigate's profiles are at http://"+ops+"/debug/pprof/")
	token, err := login(ctx, s.url)
	s.token = token
	return s, err
}

func login(ctx context.Context, url string) (token string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/auth/login", strings.NewReader(`{"code":"sim:bench"}`))
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct {
		Token string `json:"token"`
	}
	body, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err == nil && answer.Token == "" {
		err = fmt.Errorf("the login was answered %d %s", res.StatusCode, body)
	}
	return answer.Token, err
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
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // its workers reach the benchmark's folder
	}
	conf := filepath.Join(b.dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, user, upstream, auth, addr), 0o600); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // not in everybody's PATH
	}
	cmd := exec.Command(program, "-p", b.dir, "-c", conf, "-e", "stderr")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := b.launch(cmd); err != nil {
		return nil, err
	}
	if err := await(ctx, addr); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, said.String())
	}
	return &side{name: "nginx + auth", url: "http://" + addr, pids: func() ([]int, error) {
		workers, err := childrenOf(cmd.Process.Pid)
		return append(workers, cmd.Process.Pid, authPID), err
	}}, nil
}

// await returns once somebody accepts connections at addr.
func await(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody answers at %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
