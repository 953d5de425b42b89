package testdeps

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Eicar is the test file of the anti-virus trade, which a [ClamdServer] finds
// under the name [EicarName]. It is put together here so that no scanner takes
// this source for it.
var Eicar = `X5O!P%@AP[4\PZX54(P^)7CC)7}$` + `EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`

// EicarName is what clamd calls Eicar: its own names of signatures end so.
const EicarName = "Test.Eicar.UNOFFICIAL"

// ClamdServer is a clamd of one test, which knows one signature.
type ClamdServer struct {
	// Address is "unix:" and the path of its socket.
	Address string

	server
}

// Clamd starts clamd, which takes streams of up to maxStream bytes.
func Clamd(t testing.TB, maxStream int) *ClamdServer {
	t.Helper()
	path := program(t, "clamd", "clamav-daemon")
	dir, err := os.MkdirTemp("", "clamd") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "clamd.sock")
	conf := fmt.Sprintf("Foreground yes\nDatabaseDirectory %s\nTemporaryDirectory %s\nLocalSocket %s\nFixStaleSocket yes\nStreamMaxLength %d\nMaxThreads 4\n", dir, dir, socket, maxStream)
	for name, text := range map[string]string{
		"clamd.conf": conf,
		"test.ndb":   fmt.Sprintf("Test.Eicar:0:*:%x\n", Eicar),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &ClamdServer{Address: "unix:" + socket, server: server{t: t, dir: dir}}
	s.command = func() *exec.Cmd { return exec.Command(path, "--config-file="+filepath.Join(dir, "clamd.conf")) }
	s.ready = func(int) error {
		c, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}
