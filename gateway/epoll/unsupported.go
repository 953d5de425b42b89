//go:build !linux

package epoll

import (
	"context"
	"errors"
	"net"
)

// Supported tells whether this system has what a Poller needs.
const Supported = false

// Poller cannot be made here.
type Poller[T any] struct{}

// NewPoller always fails.
func NewPoller[T any](Options[T]) (*Poller[T], error) { return nil, errors.ErrUnsupported }

// Run does nothing.
func (p *Poller[T]) Run(context.Context) error { return errors.ErrUnsupported }

// CanDetach says no.
func CanDetach(net.Conn) bool { return false }

// Detach never succeeds.
func Detach(net.Conn) (fd int, ok bool) { return -1, false }

// Take must not be called.
func (p *Poller[T]) Take(int, bool, T) *Conn[T] { panic("epoll: unsupported") }

// Len counts none.
func (p *Poller[T]) Len() int { return 0 }

// Conn cannot be made here.
type Conn[T any] struct{}

// Start must not be called.
func (c *Conn[T]) Start([]byte) { panic("epoll: unsupported") }

// Write always fails.
func (c *Conn[T]) Write([]byte, bool) (left int, err error) { return 0, errors.ErrUnsupported }

// Close always fails.
func (c *Conn[T]) Close(uint16, string) error { return errors.ErrUnsupported }

// Check finds nothing.
func (c *Conn[T]) Check() error { return nil }

// Abort does nothing.
func (c *Conn[T]) Abort() {}
