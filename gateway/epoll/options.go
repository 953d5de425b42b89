package epoll

import (
	"errors"
	"time"
)

// Why a connection cannot be written to, or is gone.
var (
	ErrClosed  = errors.New("websocket: the connection is closed")
	ErrTimeout = errors.New("websocket: the client took too long to read")
	ErrLeft    = errors.New("websocket: the client closed the connection")
)

// Options are what a Poller needs. T is what stands for a connection to its
// owner.
type Options[T any] struct {
	MessageLimit int           // bytes of a client's message
	WriteTimeout time.Duration // for each 64 KiB of what the socket has no room for at once
	CloseTimeout time.Duration // for a client to answer a close frame

	// Message is told a whole message; p is valid until it returns. Calls for
	// one connection come one after the other, the next when it has returned.
	Message func(owner T, op Opcode, p []byte)
	// Short, if any, is offered what came alone and has at most 8 bytes, and
	// reports whether it took it; it must not wait. What it leaves is Message's.
	Short func(owner T, op Opcode, p []byte) (took bool)
	// Room says that all is sent of a Write that left something, or that it never
	// will be: err is why. It comes once, if at all, maybe while Gone does, and must
	// not wait.
	Room func(owner T, err error)
	// Gone is the end: nothing comes or goes any more. why is ErrLeft after a
	// client's close frame, ErrClosed where this side ended it (Abort), ErrTimeout
	// where the client took too long to read, a ViolationError where it did not
	// keep to the protocol, and else what the network said, io.EOF among it.
	Gone func(owner T, why error)
}
