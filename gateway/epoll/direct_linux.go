package epoll

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// These never wait for the peer, since the descriptors do not block, and so are
// not announced to Go's scheduler as those of package unix are. It would take the
// processor from a call that lasts longer than 20 µs, as many a write does, and
// wake another thread for the goroutines that wait there, which costs more than
// the announcement itself.

func write(fd int, b []byte) (n int, err error) {
	if n, err = direct(unix.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b)); n > 0 {
		wasRead(b[:n])
	}
	return n, err
}

func read(fd int, b []byte) (n int, err error) {
	if n, err = direct(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b)); n > 0 {
		wasWritten(b[:n])
	}
	return n, err
}

// ready is epoll_wait without waiting.
func ready(fd int, events []unix.EpollEvent) (n int, err error) {
	return direct(unix.SYS_EPOLL_PWAIT, fd, unsafe.Pointer(unsafe.SliceData(events)), len(events))
}

// direct calls with a descriptor, a place in memory and its length. Whatever else
// a call takes is zero.
func direct(call uintptr, fd int, at unsafe.Pointer, length int) (n int, err error) {
	r, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(at), uintptr(length), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
