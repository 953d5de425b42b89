//go:build !linux

package testdeps

import "syscall"

// dieWithParent: other systems have no such thing; there a killed test binary
// leaves its servers behind.
func dieWithParent() *syscall.SysProcAttr { return nil }
