//go:build linux || darwin || freebsd

package transfer

import "syscall"

// freeBytes is how much of the disk below dir this process may still write.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
