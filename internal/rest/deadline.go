package rest

import (
	"net/http"
	"time"
)

// Deadline is one of a connection that moves on while there is progress. It is
// not safe for concurrent use.
type Deadline struct {
	set   func(time.Time) error
	stall time.Duration
	last  time.Time // when it was set; zero: it is not
}

// ReadDeadline is how long a client may send nothing, from each Extend on.
func ReadDeadline(c *http.ResponseController, stall time.Duration) Deadline {
	return Deadline{set: c.SetReadDeadline, stall: stall}
}

// WriteDeadline is how long a client may take nothing, from each Extend on.
func WriteDeadline(c *http.ResponseController, stall time.Duration) Deadline {
	return Deadline{set: c.SetWriteDeadline, stall: stall}
}

// Extend moves it on from now, give or take an eighth: each time one is set
// takes locks of the runtime.
func (d *Deadline) Extend() {
	if now := time.Now(); now.Sub(d.last) > d.stall/8 {
		d.last = now
		_ = d.set(now.Add(d.stall)) // every real server can
	}
}

// Lift takes it away, where it was set.
func (d *Deadline) Lift() {
	if !d.last.IsZero() {
		d.last = time.Time{}
		_ = d.set(time.Time{}) // as above
	}
}
