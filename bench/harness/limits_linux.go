package harness

import (
	"errors"
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
	return sysctls("/proc/sys", values)
}

func sysctls(dir string, values map[string]string) (restore func() error, err error) {
	before := make(map[string]string)
	restore = func() error {
		var errs []error
		for name, value := range before {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644))
		}
		return errors.Join(errs...)
	}
	for name, value := range values {
		file := filepath.Join(dir, name)
		old, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, []byte(value), 0o644)
		}
		if err != nil {
			return nil, errors.Join(err, restore())
		}
		before[name] = strings.TrimSpace(string(old))
	}
	return restore, nil
}
