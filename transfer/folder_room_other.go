//go:build !linux && !darwin && !freebsd && !windows

package transfer

import "math"

// freeBytes cannot be asked for here: there is always enough.
func freeBytes(string) (int64, error) { return math.MaxInt64, nil }
