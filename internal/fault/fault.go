// Package fault names everything that can go wrong in one vocabulary.
//
// A package translates the errors of what it depends on (WeChat, Redis, S3,
// the network) into an [Error] at its own edge; from there the error travels
// unchanged to the one place that answers the client. Numbers (HTTP status,
// Centrifuge error and close codes) are looked up there, never carried.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of trouble it is; every edge maps it to its own numbers.
type Kind uint8

// The kinds. The comment gives the HTTP status each one answers with.
const (
	Internal        Kind = iota // 500, a bug or a broken configuration
	Invalid                     // 400
	Unauthenticated             // 401
	Forbidden                   // 403
	NotFound                    // 404
	NotAllowed                  // 405
	Timeout                     // 408, the client was too slow
	Conflict                    // 409
	Gone                        // 410
	LengthRequired              // 411
	Precondition                // 412
	TooLarge                    // 413
	Unsupported                 // 415
	Range                       // 416
	Limited                     // 429
	Upstream                    // 502, somebody behind us answered nonsense
	Unavailable                 // 503, somebody behind us is away: try again
	UpstreamTimeout             // 504
	NoSpace                     // 507
	UpgradeRequired             // 426, the client speaks another protocol than the address
)

// Error is a failure as the client may see it. Msg is a full sentence without
// secrets; the cause is for the log only and never reaches a client.
type Error struct {
	Kind       Kind
	Code       string        // stable, snake_case, for programs
	Msg        string        // one sentence, for people
	RetryAfter time.Duration // 0: nothing to say

	cause error
}

// New makes an Error without a cause.
func New(kind Kind, code, msg string) *Error {
	return &Error{Kind: kind, Code: code, Msg: msg}
}

// Newf is New with a formatted message.
func Newf(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Because returns a copy of e that carries cause for the log.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// After returns a copy of e that tells the client to wait d before it retries.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error includes the cause: it is for logs, clients are shown Code and Msg.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.Code + ": " + e.Msg + ": " + e.cause.Error()
	}
	return e.Code + ": " + e.Msg
}

func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, ErrX) hold for copies of ErrX made by Because or After.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Code == e.Code
}

// ErrCanceled stands for a caller that went away; nobody is left to read it.
var ErrCanceled = New(Timeout, "canceled", "The request was cancelled.")

// Of returns the Error in err's chain. Anything else is Internal, or
// ErrCanceled where err is a cancelled context.
func Of(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return ErrCanceled.Because(err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return New(UpstreamTimeout, "timeout", "Something this request needs took too long.").Because(err)
	}
	return New(Internal, "internal", "Something went wrong on our side.").Because(err)
}
