package gateway

import (
	"math"
	"time"
)

// ticks is a time that needs no precision, in ticks of the wheel: it takes half
// the room of a time.Duration, and channels are many.
type ticks int32

// ticksUp returns the first tick that is not before d, at most the last one there
// is, after about thirteen years.
func ticksUp(d time.Duration) ticks {
	return ticks(min((int64(d)+int64(wheelTick)-1)/int64(wheelTick), math.MaxInt32))
}

// ticksDown returns the last tick that is not after d.
func ticksDown(d time.Duration) ticks { return ticks(min(d/wheelTick, math.MaxInt32)) }

func (t ticks) duration() time.Duration { return time.Duration(t) * wheelTick }
