package main

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAcceptedIsKeptAlive compares with what Go does by itself: a peer is gone
// as soon, but is first asked later than the hub pings.
func TestAcceptedIsKeptAlive(t *testing.T) {
	ours, err := listenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gos, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got, want := acceptedOptions(t, ours), acceptedOptions(t, gos)
	gone := func(o [5]int) int { return o[1] + o[2]*o[3] }
	if got[0] != 1 || got[1] != 60 || got[4] != want[4] || gone(got) != gone(want) {
		t.Errorf("accepted with %v, by Go itself with %v", got, want)
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
