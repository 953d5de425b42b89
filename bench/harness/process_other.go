//go:build !linux

package harness

import (
	"errors"
	"syscall"
	"time"
)

var errLinux = errors.New("only Linux tells what other processes use")

func dieWithParent() *syscall.SysProcAttr { return nil }

// CPUTime is there on Linux only.
func CPUTime(...int) (time.Duration, error) { return 0, errLinux }

// Memory is there on Linux only.
func Memory(...int) (int64, error) { return 0, errLinux }

// PIDs is there on Linux only.
func (p *Process) PIDs() ([]int, error) { return nil, errLinux }
