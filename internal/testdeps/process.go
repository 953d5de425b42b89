package testdeps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopDeadline is how long a server may take to end after SIGTERM.
const stopDeadline = 20 * time.Second

// process is one run of a server program.
type process struct {
	name   string
	output string // file with everything it printed
	proc   *os.Process
	done   chan struct{} // closed once the process is reaped
}

// launch starts cmd with its output going to a file in dir.
func launch(dir string, cmd *exec.Cmd) (*process, error) {
	name := filepath.Base(cmd.Path)
	out, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	p := &process{name: name, output: out.Name(), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.done)
		// The death of the parent is the death of the thread that started the
		// child, so that thread must live until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.proc = cmd.Process
		_ = out.Close() // the child has its own handle
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended does not matter, await reports an early end
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// await polls ready until it answers nil. It returns an error with the
// server's last output when the server ends or startDeadline passes first.
func (p *process) await(ready func() error) error {
	deadline := time.NewTimer(startDeadline)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended instead of starting:\n%s", p.name, p.tail())
		case <-deadline.C:
			p.kill()
			return fmt.Errorf("%s is not ready after %v: %w\n%s", p.name, startDeadline, err, p.tail())
		}
	}
}

// tail returns the last lines of what the server printed.
func (p *process) tail() string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// stop asks the server to end and waits for it. A server that does not obey
// is killed and fails the test.
func (p *process) stop(t testing.TB) {
	t.Helper()
	_ = p.proc.Signal(syscall.SIGTERM) // it may have ended already
	timer := time.NewTimer(stopDeadline)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill()
		t.Errorf("%s did not stop within %v:\n%s", p.name, stopDeadline, p.tail())
	}
}

// kill ends the server at once, as a crash would, and waits for it.
func (p *process) kill() {
	_ = p.proc.Kill() // it may have ended already
	<-p.done
}
