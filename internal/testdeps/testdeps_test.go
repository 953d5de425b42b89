package testdeps

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childVariable makes the test binary play the test that is killed.
const childVariable = "TESTDEPS_CHILD"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPrograms(t *testing.T) {
	for name, path := range map[string]string{"chromium": Chromium(t), "node": Node(t)} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fatalRecorder is a testing.TB that remembers its last words.
type fatalRecorder struct {
	testing.TB
	said string
}

func (r *fatalRecorder) Helper() {}

func (r *fatalRecorder) Fatalf(format string, args ...any) {
	for _, a := range args {
		if s, ok := a.(string); ok {
			format += " " + s
		}
	}
	r.said = format
}

func TestMissingProgramNamesItsPackage(t *testing.T) {
	r := &fatalRecorder{TB: t}
	if path := program(r, "no-such-server", "no-such-package"); path != "" {
		t.Errorf("found %s", path)
	}
	if !strings.Contains(r.said, "no-such-package") {
		t.Errorf("the failure %q does not name the package", r.said)
	}
}

// TestServersDieWithTheTestBinary kills a test binary that has a server
// running: no cleanup runs, yet the server must go.
func TestServersDieWithTheTestBinary(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		_, _ = os.Stdout.WriteString(Redis(t) + "\n")
		<-t.Context().Done() // the parent kills us
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestServersDieWithTheTestBinary$")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(string(buf[:n]))
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as asked
	if err := c.SetReadDeadline(time.Now().Add(stopDeadline)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(buf); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("redis outlived its test binary: %v", err)
	}
}
