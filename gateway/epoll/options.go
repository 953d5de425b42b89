package epoll

import "time"

// Options are what a Poller needs. T is what stands for a connection to its
// owner.
type Options[T any] struct {
	MessageLimit int           // bytes of a client's message
	WriteTimeout time.Duration // for each 64 KiB of what the socket has no room for at once
	CloseTimeout time.Duration // for a client to answer a close frame

	// Message is told a whole message; p is valid until it returns. Calls for
	// one connection come one after the other, the next when it has returned.
	Message func(owner T, op Opcode, p []byte)
	// Room says that all is sent of a Write that left something, or that it never
	// will be: err is why. It comes once, before Gone if at all, and must not wait.
	Room func(owner T, err error)
	// Gone is the end: nothing comes or goes any more.
	Gone func(owner T)
}
