// Package harness is what the comparisons share: it builds programs, starts
// them in processes of their own, ends them, and reads what they use.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// grace is what a program gets to end by itself.
const grace = 20 * time.Second

// Run owns the processes and the folder of a run. It is used by one goroutine.
type Run struct {
	Dir     string // removed by Close
	running []*Process
}

// New makes the folder of a run.
func New() (*Run, error) {
	dir, err := os.MkdirTemp("", "minigate-bench-")
	return &Run{Dir: dir}, err
}

// Close ends what still runs, last started first, and waits for it.
func (r *Run) Close() {
	for _, p := range slices.Backward(r.running) {
		_ = p.Cmd.Process.Signal(syscall.SIGTERM) // it may have ended; all end at the same time
	}
	for len(r.running) > 0 {
		r.Stop(r.running[len(r.running)-1])
	}
	if r.Dir != "" {
		_ = os.RemoveAll(r.Dir) // what is left lies in the system's own folder
	}
}

// Process is a program that runs.
type Process struct {
	Cmd  *exec.Cmd
	said tail
	done chan struct{} // closed once it ended
	err  error         // of Wait, once done is closed
}

// Start starts cmd. Where cmd writes errors nowhere, the last of them are kept
// for Said.
func (r *Run) Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Cmd: cmd, done: make(chan struct{})}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.said
	}
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r.running = append(r.running, p)
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Stop asks p to end, kills it where it does not, and waits.
func (r *Run) Stop(p *Process) {
	_ = p.Cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(grace):
	}
	r.Kill(p)
}

// Kill ends p as a crash would, and waits.
func (r *Run) Kill(p *Process) {
	_ = p.Cmd.Process.Kill() // it may have ended
	<-p.done
	for i, other := range r.running {
		if other == p {
			r.running = append(r.running[:i], r.running[i+1:]...)
			return
		}
	}
}

// Wait waits until p ends by itself.
func (r *Run) Wait(p *Process) error {
	<-p.done
	r.Kill(p)
	if p.err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(p.Cmd.Path), p.err, p.Said())
	}
	return nil
}

// Said is the end of what p wrote to its standard error.
func (p *Process) Said() string { return p.said.String() }

// tail keeps the last bytes that are written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if cut := len(t.b) - tailSize; cut > 0 {
		t.b = append(t.b[:0], t.b[cut:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// Root is the folder of the repository. It is found from the module of the
// current folder, which has to be this one.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	return filepath.Dir(strings.TrimSpace(string(out))), err
}

// Build builds programs of the repository, such as ./cmd/minigate or
// ./bench/load, into the folder of the run and returns where each one is.
func (r *Run) Build(ctx context.Context, packages ...string) ([]string, error) {
	root, err := Root(ctx)
	if err != nil {
		return nil, err
	}
	var programs []string
	for _, p := range packages {
		// Of a nested module Go wants to know the folder.
		dir, in := root, p
		if inner, nested := strings.CutPrefix(p, "./bench/"); nested {
			dir, in = filepath.Join(root, "bench"), "./"+inner
		}
		program := filepath.Join(r.Dir, filepath.Base(p))
		cmd := exec.CommandContext(ctx, "go", "build", "-C", dir, "-o", program, in)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", p, err, out)
		}
		programs = append(programs, program)
	}
	return programs, nil
}

// BuildTool builds a program of another module in the version that the go.mod in
// a folder of the repository names.
func (r *Run) BuildTool(ctx context.Context, dir, pkg string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	program := filepath.Join(r.Dir, filepath.Base(dir))
	cmd := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(root, dir), "-o", program, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return program, nil
}

// FreeAddress is one of this machine on which nobody listens.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }() // nobody was accepted
	return l.Addr().String(), nil
}

// Await returns once p accepts connections at addr, and fails where it ends
// before.
func (p *Process) Await(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody answers at %s: %w\n%s", addr, err, p.Said())
		case <-p.done:
			return fmt.Errorf("%s ended\n%s", filepath.Base(p.Cmd.Path), p.Said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Nginx finds the program, which is not in everybody's PATH.
func Nginx() (string, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx"
		_, err = os.Stat(program)
	}
	return program, err
}

// errEmpty is what a program that should have said where it listens did
// instead.
var errEmpty = errors.New("it did not say where it listens")

// words splits a line of a program's output.
func words(line []byte) []string { return strings.Fields(string(bytes.TrimSpace(line))) }
