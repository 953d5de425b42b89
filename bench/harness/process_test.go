//go:build linux

package harness

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestUsageOfThisProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	held := make([]byte, size)
	for i := range held {
		held[i] = byte(i)
	}
	after, err := Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown < size*9/10 || grown > size*2 {
		t.Errorf("%d bytes more are %d", len(held), grown)
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
