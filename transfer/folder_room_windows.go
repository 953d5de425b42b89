package transfer

import (
	"math"

	"golang.org/x/sys/windows"
)

// freeBytes is how much of the disk below dir this process may still write, by
// its quota where it has one.
func freeBytes(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(min(free, math.MaxInt64)), nil
}
