package testdeps

import "syscall"

// dieWithParent makes the kernel kill a server whose test binary is gone.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
