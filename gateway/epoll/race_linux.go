//go:build race

package epoll

import (
	"runtime"
	"unsafe"
)

// What the system reads and writes is invisible to the race detector, which
// would find nothing wrong with a frame that is changed while it is sent.

func wasRead(b []byte)    { runtime.RaceReadRange(unsafe.Pointer(unsafe.SliceData(b)), len(b)) }
func wasWritten(b []byte) { runtime.RaceWriteRange(unsafe.Pointer(unsafe.SliceData(b)), len(b)) }
