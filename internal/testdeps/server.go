package testdeps

import (
	"os"
	"os/exec"
	"testing"
)

// server is a program that a test can stop and start again in the same place.
type server struct {
	t       testing.TB
	dir     string              // its files; they outlive a restart
	command func() *exec.Cmd    // a new command for each run
	ready   func(pid int) error // nil once the run pid of it answers
	proc    *process            // the latest run
}

func (s *server) start() error {
	var err error
	if s.proc, err = launch(s.dir, s.command()); err != nil {
		return err
	}
	pid := s.proc.proc.Pid
	return s.proc.await(func() error { return s.ready(pid) })
}

// startOnFreePort calls setPort and start until the server has a port for
// itself: between the probe of a port and the server's own bind somebody else
// may take it. The server ends with the test.
func (s *server) startOnFreePort(setPort func(port int)) {
	s.t.Helper()
	var err error
	for range 3 {
		setPort(FreePort(s.t))
		if err = s.start(); err == nil {
			s.t.Cleanup(s.Stop)
			return
		}
	}
	s.t.Fatal(err)
}

// Stop shuts the server down in good order; it may be called again. Clients
// see their connections closed, then refused.
func (s *server) Stop() {
	s.t.Helper()
	s.proc.stop(s.t)
}

// Kill ends the server as a crash would.
func (s *server) Kill() { s.proc.kill() }

// Restart starts the server again on the same port, after Stop, after Kill or
// while it runs. It returns once the server answers.
func (s *server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Pause stops the server in its tracks: it keeps its connections and does
// nothing, until Resume.
func (s *server) Pause(t testing.TB) { s.signal(t, pause) }

// Resume ends Pause.
func (s *server) Resume(t testing.TB) { s.signal(t, resume) }

func (s *server) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := s.proc.proc.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
