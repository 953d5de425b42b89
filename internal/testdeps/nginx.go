package testdeps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// NginxServer is an nginx of one test.
type NginxServer struct {
	// Dir is its prefix: relative paths in the configuration start here, as do
	// access.log and error.log.
	Dir string

	server
}

// nginxMain stands around the caller's configuration. One process keeps a
// killed test from leaving workers behind.
const nginxMain = `daemon off;
master_process off;
pid nginx.pid;
error_log error.log notice;
events { worker_connections 20000; }
http {
	access_log access.log;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
%s
}
`

// Nginx starts nginx with conf, which is what stands between the braces of
// http{}: upstreams, maps, servers. Its servers should listen on ports from
// [FreePort]. It returns once they accept.
func Nginx(t testing.TB, conf string) *NginxServer {
	t.Helper()
	path := program(t, "nginx", "nginx")
	dir := t.TempDir()
	s := &NginxServer{Dir: dir, server: server{t: t, dir: dir}}
	main := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(main, fmt.Appendf(nil, nginxMain, conf), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-p", dir, "-c", main, "-e", "stderr"}
	if out, err := exec.Command(path, append(args, "-t")...).CombinedOutput(); err != nil {
		t.Fatalf("nginx refuses the configuration: %v\n%s", err, out)
	}
	s.command = func() *exec.Cmd { return exec.Command(path, args...) }
	// nginx writes its process id after it has opened its listeners.
	s.ready = func(pid int) error {
		got, err := os.ReadFile(filepath.Join(dir, "nginx.pid"))
		if err == nil && strings.TrimSpace(string(got)) != strconv.Itoa(pid) {
			err = fmt.Errorf("nginx.pid is of process %q", got)
		}
		return err
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}
