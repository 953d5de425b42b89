package harness

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Describe says in one sentence on what something was measured, and when.
// versions is added to it.
func Describe(versions ...string) string {
	list := []string{fmt.Sprintf("%d × %s", runtime.NumCPU(), processor())}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if total, err := kilobytes(string(text), "MemTotal:"); err == nil {
			list = append(list, fmt.Sprintf("%.0f GB of memory", float64(total)/1e9))
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		list = append(list, "Linux "+strings.TrimSpace(string(release)))
	}
	list = append(append(list, runtime.Version()), versions...)
	return "Measured on " + time.Now().Format(time.DateOnly) + ": " + strings.Join(list, ", ") + "; servers and load generator on the same machine, over loopback."
}

// kilobytes finds a line of /proc such as "Slab:  123 kB", in bytes.
func kilobytes(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("the system does not say %s", name)
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// ModuleVersion is the version of a module that a Go program is of, or was built
// with, as "name version", or "" where it has none.
func ModuleVersion(program, module string) string {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module {
			name := path.Base(module)
			if major := strings.Split(m.Version, ".")[0]; name == major { // the v2 of a path
				name = path.Base(path.Dir(module))
			}
			return name + " " + m.Version
		}
	}
	return ""
}

// NchanVersions are those of nginx and of nchan, as far as they are known.
func NchanVersions() (versions []string) {
	if program, err := Nginx(); err == nil {
		if said, err := exec.Command(program, "-v").CombinedOutput(); err == nil {
			_, version, _ := strings.Cut(strings.TrimSpace(string(said)), "nginx/")
			versions = append(versions, "nginx "+version)
		}
	}
	// Debian knows the version of its package; nchan itself does not say it.
	if version, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan").Output(); err == nil {
		versions = append(versions, "nchan "+string(version))
	}
	return versions
}
