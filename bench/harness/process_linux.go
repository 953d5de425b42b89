package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dieWithParent keeps a benchmark that is killed from leaving servers behind.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}

// tick is the unit of times in /proc on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// CPUTime is what processes have used so far, in user mode and in the kernel,
// to 10 ms.
func CPUTime(pids ...int) (sum time.Duration, err error) {
	for _, pid := range pids {
		stat, err := statOf(pid)
		if err != nil {
			return 0, err
		}
		for _, field := range stat[11:13] { // utime, stime
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum, nil
}

// Memory is what processes hold, in bytes: pages that are only theirs or, where
// several share them, their part. Pages of files, such as the program itself,
// do not count: the system can drop them (Pss_Anon and Pss_Shmem in
// smaps_rollup of proc(5)).
func Memory(pids ...int) (sum int64, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		for _, kind := range []string{"Pss_Anon:", "Pss_Shmem:"} {
			n, err := kilobytes(string(text), kind)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

// Machine is the memory of the whole machine, in bytes.
type Machine struct {
	Used int64 // all that is not available to programs
	Slab int64 // objects of the kernel, of which sockets are most here
	TCP  int64 // pages in the buffers of TCP sockets
}

// MachineMemory reads it (proc(5), meminfo and net/sockstat).
func MachineMemory() (m Machine, err error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, err
	}
	total, err := kilobytes(string(text), "MemTotal:")
	if err != nil {
		return m, err
	}
	available, err := kilobytes(string(text), "MemAvailable:")
	if err != nil {
		return m, err
	}
	if m.Slab, err = kilobytes(string(text), "Slab:"); err != nil {
		return m, err
	}
	m.Used = total - available
	m.TCP, err = KernelTCP()
	return m, err
}

// KernelTCP is what the buffers of all TCP sockets of this machine hold, in
// bytes.
func KernelTCP() (int64, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nTCP:")
	_, rest, _ = strings.Cut(rest, " mem ")
	line, _, _ := strings.Cut(rest, "\n")
	pages, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// statOf returns the fields of /proc/<pid>/stat behind the program's name,
// which may contain anything.
func statOf(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// PIDs are p and the processes that it has started.
func (p *Process) PIDs() ([]int, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	pid := p.Cmd.Process.Pid
	list := []int{pid}
	for _, dir := range all {
		child, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		stat, err := statOf(child)
		if err == nil && stat[1] == strconv.Itoa(pid) { // it may have ended meanwhile
			list = append(list, child)
		}
	}
	return list, nil
}
