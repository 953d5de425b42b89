package gateway

import (
	"errors"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/internal/fault"
)

// What the hub itself can answer. The texts are for people; programs look at
// the numbers that CodeOf gives.
var (
	ErrUnknownChannel    = fault.New(fault.NotFound, "unknown_channel", "There is no such channel.")
	ErrPermissionDenied  = fault.New(fault.Forbidden, "permission_denied", "You may not do this in this channel.")
	ErrMethodNotFound    = fault.New(fault.NotFound, "method_not_found", "There is no such method.")
	ErrAlreadySubscribed = fault.New(fault.Conflict, "already_subscribed", "This connection is subscribed to the channel already.")
	ErrLimitExceeded     = fault.New(fault.Limited, "limit_exceeded", "A limit of this connection is reached.")
	ErrBadRequest        = fault.New(fault.Invalid, "bad_request", "The request does not make sense.")
	ErrNotAvailable      = fault.New(fault.Invalid, "not_available", "This is switched off here.")
	ErrTokenExpired      = fault.New(fault.Unauthenticated, "token_expired", "The login has expired.")
	ErrExpired           = fault.New(fault.Unauthenticated, "expired", "This has expired.")
	ErrTooManyRequests   = fault.New(fault.Limited, "too_many_requests", "Too many requests, try again later.")
	ErrUnrecoverable     = fault.New(fault.Gone, "unrecoverable_position", "This position is no longer part of the stream.")
)

// errGone is for whoever comes too late to a connection.
var errGone = errors.New("the connection is not there any more")

// Code is an error as the Centrifuge protocol numbers it.
type Code struct {
	Code      uint32
	Message   string
	Temporary bool // the same command may succeed later
}

// internalError also stands for everything behind us that is away.
var internalError = Code{100, "internal server error", true}

// codes is the only place that knows the numbers of errors.
var codes = map[string]Code{
	"token_invalid":           {101, "unauthorized", false}, // of package auth
	ErrUnknownChannel.Code:    {102, "unknown channel", false},
	ErrPermissionDenied.Code:  {103, "permission denied", false},
	ErrMethodNotFound.Code:    {104, "method not found", false},
	ErrAlreadySubscribed.Code: {105, "already subscribed", false},
	ErrLimitExceeded.Code:     {106, "limit exceeded", false},
	ErrBadRequest.Code:        {107, "bad request", false},
	ErrNotAvailable.Code:      {108, "not available", false},
	ErrTokenExpired.Code:      {109, "token expired", false},
	ErrExpired.Code:           {110, "expired", false},
	ErrTooManyRequests.Code:   {111, "too many requests", true},
	ErrUnrecoverable.Code:     {112, "unrecoverable position", false},
}

// codesByKind answers for errors of other packages that codes does not list.
var codesByKind = map[fault.Kind]Code{
	fault.Invalid:         {107, "bad request", false},
	fault.TooLarge:        {107, "bad request", false},
	fault.Unauthenticated: {101, "unauthorized", false},
	fault.Forbidden:       {103, "permission denied", false},
	fault.NotFound:        {104, "method not found", false},
	fault.Conflict:        {105, "already subscribed", false},
	fault.Limited:         {111, "too many requests", true},
}

// CodeOf gives the number and text a client or the server API is told for err.
// What is nobody's fault but ours is 100 and temporary.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*ReplyError](err); ok {
		return Code{e.Code, e.Message, e.Temporary}
	}
	e := fault.Of(err)
	if c, ok := codes[e.Code]; ok {
		return c
	}
	if c, ok := codesByKind[e.Kind]; ok {
		return c
	}
	return internalError
}

func errorOf(err error) *protocol.Error {
	c := CodeOf(err)
	return &protocol.Error{Code: c.Code, Message: c.Message, Temporary: c.Temporary}
}

// Disconnect tells a client why its connection ends. Clients reconnect by
// themselves for 3000-3499, 4000-4499 and from 5000 on, and stay away for
// 3500-3999 and 4500-4999. The reason is never empty and never JSON: the
// stock SDK reconnects forever on an empty one and takes JSON for advice.
type Disconnect struct {
	Code   uint32
	Reason string
}

// Error makes a Disconnect usable as the error that ends a connection.
func (d *Disconnect) Error() string { return "disconnect: " + d.Reason }

// Why connections end.
var (
	DisconnectClosed              = &Disconnect{3000, "connection closed"}
	DisconnectShutdown            = &Disconnect{3001, "shutdown"}
	DisconnectExpired             = &Disconnect{3005, "connection expired"}
	DisconnectSubscriptionExpired = &Disconnect{3006, "subscription expired"}
	DisconnectSlow                = &Disconnect{3008, "slow"}
	DisconnectWriteError          = &Disconnect{3009, "write error"}
	DisconnectInsufficientState   = &Disconnect{3010, "insufficient state"}
	DisconnectNoPong              = &Disconnect{3012, "no pong"}
	DisconnectTooManyRequests     = &Disconnect{3013, "too many requests"}
	DisconnectInvalidToken        = &Disconnect{3500, "invalid token"}
	DisconnectTokenExpired        = &Disconnect{3500, "token expired"}
	DisconnectBadRequest          = &Disconnect{3501, "bad request"}
	DisconnectStale               = &Disconnect{3502, "stale"}
	DisconnectForced              = &Disconnect{3503, "force disconnect"}
	DisconnectBlocked             = &Disconnect{3503, "blocked"} // the user, see EndUser
	DisconnectConnectionLimit     = &Disconnect{3504, "connection limit"}
	DisconnectReplaced            = &Disconnect{3504, "replaced by a newer connection"}
	DisconnectChannelLimit        = &Disconnect{3505, "channel limit"}
	DisconnectProtocol            = &Disconnect{3506, "inappropriate protocol"}
	DisconnectPermissionDenied    = &Disconnect{3507, "permission denied"}
	DisconnectNotAvailable        = &Disconnect{3508, "not available"}
)

// Why subscriptions end without the client's doing. From 2500 on the client
// subscribes again by itself.
const (
	unsubscribedByServer     = 2000
	unsubscribedInsufficient = 2500
	unsubscribedExpired      = 2501
)
