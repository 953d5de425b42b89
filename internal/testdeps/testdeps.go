// Package testdeps starts the real servers that tests need: redis-server, a
// MinIO server, nginx, clamd, a browser. Every server is private to one test: it
// listens on a loopback port of its own, keeps its files in the test's
// temporary directory and ends with the test, also when the test binary is
// killed.
//
// A program that is not installed fails the test with the name of the Debian
// package that has it; nothing is skipped. All functions may end the test, so
// they must be called from the test's own goroutine.
package testdeps

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// startDeadline bounds how long a server may take to accept connections. It is
// generous because a loaded two-core machine starts several servers at once.
const startDeadline = 60 * time.Second

// Chromium returns the path of a Chromium browser.
func Chromium(t testing.TB) string {
	t.Helper()
	return program(t, "chromium", "chromium")
}

// Node returns the path of Node.js.
func Node(t testing.TB) string {
	t.Helper()
	return program(t, "node", "nodejs")
}

// program finds an executable. An ordinary user's PATH often lacks the
// directories in which Debian keeps servers.
func program(t testing.TB, name, debianPackage string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed: run 'make setup', or install the Debian package %q", name, debianPackage)
	return ""
}

// FreePort returns a loopback port that nobody listens on. It lies below the
// range from which Linux takes the ports of outgoing connections, so that a
// server can be stopped and started again on the same port while other tests
// open thousands of sockets.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 16384 + rand.IntN(16384)
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatalf("close the probe of port %d: %v", port, err)
		}
		return port
	}
	t.Fatal("no free loopback port between 16384 and 32767")
	return 0
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// dialable reports whether addr accepts a TCP connection.
func dialable(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return fmt.Errorf("nobody accepts on %s: %w", addr, err)
	}
	return c.Close()
}
