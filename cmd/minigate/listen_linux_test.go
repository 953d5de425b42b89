package main

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAcceptedIsKeptAlive has a peer asked after the hub would have pinged it,
// and otherwise leaves accepted connections as Go makes them.
func TestAcceptedIsKeptAlive(t *testing.T) {
	gos, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	noDelay := acceptedOptions(t, gos)[4]
	for pings, idle := range map[time.Duration]int{0: 60, 25 * time.Second: 60, 2 * time.Minute: 240, 100 * time.Hour: 600} {
		ours, err := listenTCP("127.0.0.1:0", keepAliveAfter(pings))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := acceptedOptions(t, ours), [5]int{1, idle, 15, 6, noDelay}; got != want {
			t.Errorf("with pings every %v accepted with %v, want %v", pings, got, want)
		}
	}
}

// acceptedOptions are SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT
// and TCP_NODELAY of a connection that l accepts.
func acceptedOptions(t *testing.T, l net.Listener) (all [5]int) {
	t.Cleanup(func() { _ = l.Close() })
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for i, o := range [][2]int{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
			{unix.IPPROTO_TCP, unix.TCP_NODELAY},
		} {
			if all[i], err = unix.GetsockoptInt(int(fd), o[0], o[1]); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
