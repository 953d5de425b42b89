//go:build linux

package harness

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestUsageOfThisProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	held, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for i := range held {
		held[i] = 1
	}
	after, err := Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown < size*9/10 || grown > size*3/2 {
		t.Errorf("%d bytes more are %d", len(held), grown)
	}
	if err := syscall.Munmap(held); err != nil {
		t.Error(err)
	}
	cpu, err := CPUTime(pid)
	if err != nil || cpu <= 0 {
		t.Errorf("used %v, %v", cpu, err)
	}
	if m, err := MachineMemory(); err != nil || m.Used < size || m.Slab <= 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestPIDsAreThoseOfChildrenToo(t *testing.T) {
	r := run(t)
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c, err := os.FindProcess(child); err == nil {
			_ = c.Kill() // the shell leaves it behind
		}
	})
	pids, err := p.PIDs()
	if err != nil || !slices.Contains(pids, child) || pids[0] != cmd.Process.Pid {
		t.Errorf("got %v, %v, want %d and %d", pids, err, cmd.Process.Pid, child)
	}
}

// Settings of the kernel are put back, also where one of them cannot be set.
func TestSysctlsArePutBack(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "backlog")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	write("128\n")
	restore, err := sysctls(dir, map[string]string{"backlog": "4096"})
	if err != nil {
		t.Fatal(err)
	}
	want("4096")
	if err := restore(); err != nil {
		t.Error(err)
	}
	want("128")
	if _, err := sysctls(dir, map[string]string{"backlog": "4096", "no/such": "1"}); err == nil {
		t.Error("a setting that does not exist was set")
	}
	want("128")
}
