// Package cgroup tells how much memory the control group of this process may
// have and has, as Linux counts it (cgroups(7)): for containers and systemd
// units. On other systems there is none.
package cgroup

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Group is the control group whose limit is met first: that of this process, or
// one around it.
type Group struct {
	Limit int64 // bytes

	root  fs.FS
	dir   string
	files files
}

// files are what the versions of control groups call the same.
type files struct{ limit, usage, inactive string }

var (
	second = files{"memory.max", "memory.current", "inactive_file"}
	first  = files{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
)

// none is where limits begin that are none: the first version writes a number
// close to the largest one.
const none = 1 << 60

// Memory finds the control group that limits the memory of this process; ok is
// false where none does.
func Memory() (g Group, ok bool) { return find(os.DirFS("/")) }

func find(root fs.FS) (Group, bool) {
	list, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return Group{}, false
	}
	for line := range strings.Lines(string(list)) {
		// hierarchy:controllers:path; the second version has no controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, names := "", second
		switch {
		case parts[0] == "0" && parts[1] == "":
			mount = "sys/fs/cgroup"
		case strings.Contains(","+parts[1]+",", ",memory,"):
			mount, names = "sys/fs/cgroup/memory", first
		default:
			continue
		}
		if g, ok := tightest(root, mount, parts[2], names); ok {
			return g, true
		}
	}
	return Group{}, false
}

// tightest looks at a group and all around it. The path may be one that is not
// visible in a container: there its own group stands at the mount.
func tightest(root fs.FS, mount, group string, names files) (best Group, ok bool) {
	for dir := path.Join(mount, path.Clean("/"+group)); ; dir = path.Dir(dir) {
		limit, err := number(root, path.Join(dir, names.limit))
		if err == nil && limit < none && (!ok || limit < best.Limit) {
			best, ok = Group{limit, root, dir, names}, true
		}
		if dir == mount {
			return best, ok
		}
	}
}

// Used is how many bytes are in use, without those that the kernel gives back
// first: files that were read or written a while ago.
func (g Group) Used() (int64, error) {
	used, err := number(g.root, path.Join(g.dir, g.files.usage))
	if err != nil {
		return 0, err
	}
	stat, err := fs.ReadFile(g.root, path.Join(g.dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(stat))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name != g.files.inactive {
			continue
		}
		inactive, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("memory.stat: %w", err)
		}
		return max(used-inactive, 0), nil
	}
	return used, nil
}

// number reads a file that holds one; "max" is as good as none.
func number(root fs.FS, name string) (int64, error) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return none, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}
