package harness

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// MaxSockets is how many connections one process may hold here: what is left of
// its open files (ulimit -n, the hard limit) when it has the rest it needs.
func MaxSockets() (int, error) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return int(min(limit.Max, 1<<20)) - 600, err
}

// Sysctls changes settings of the kernel and returns what puts them back. Names
// are those of files in /proc/sys.
func Sysctls(values map[string]string) (restore func() error, err error) {
	before := make(map[string]string)
	restore = func() error {
		for name, value := range before {
			if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	for name, value := range values {
		file := filepath.Join("/proc/sys", name)
		old, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, []byte(value), 0o644)
		}
		if err != nil {
			_ = restore() // the first error says more
			return nil, err
		}
		before[name] = strings.TrimSpace(string(old))
	}
	return restore, nil
}
