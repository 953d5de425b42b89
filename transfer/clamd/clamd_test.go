package clamd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/testdeps"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestScan(t *testing.T) {
	const most = 1 << 20
	d, ok := At(testdeps.Clamd(t, most).Address)
	if !ok {
		t.Fatal("no address")
	}
	padding := strings.Repeat("x", 3*chunkSize/2)
	for name, c := range map[string]struct{ content, found string }{
		"nothing":                 {"", ""},
		"harmless":                {"hello", ""},
		"a virus":                 {testdeps.Eicar, testdeps.EicarName},
		"a virus across a chunk":  {padding[:chunkSize-10] + testdeps.Eicar, testdeps.EicarName},
		"a virus in a late chunk": {padding + testdeps.Eicar + padding, testdeps.EicarName},
		"one chunk exactly":       {padding[:chunkSize], ""},
	} {
		if found, err := d.Scan(t.Context(), strings.NewReader(c.content)); err != nil || found != c.found {
			t.Errorf("%s: %q, %v; want %q", name, found, err, c.found)
		}
	}
	if _, err := d.Scan(t.Context(), bytes.NewReader(make([]byte, 8*most))); !errors.Is(err, ErrSize) {
		t.Errorf("more than it takes: %v", err)
	}
	broken := errors.New("the storage is away")
	if _, err := d.Scan(t.Context(), io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a source that breaks: %v", err)
	}
}

// A daemon that does not answer, or is not there, holds nobody up.
func TestScanEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := At("unix:" + path)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if _, err := d.Scan(ctx, strings.NewReader("x")); !errors.Is(err, cause) {
		t.Errorf("a silent one: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Scan(t.Context(), strings.NewReader("x")); err == nil || errors.Is(err, ErrReply) {
		t.Errorf("none: %v", err)
	}
}

func TestAt(t *testing.T) {
	for address, want := range map[string]Daemon{
		"unix:/run/clamd.ctl": {"unix", "/run/clamd.ctl"}, "clamav:3310": {"tcp", "clamav:3310"},
		"unix:": {}, "": {}, "clamav": {}, ":3310": {}, "clamav:": {},
	} {
		if d, ok := At(address); ok != (want != Daemon{}) || ok && d != want {
			t.Errorf("%q: %v, %v", address, d, ok)
		}
	}
}

func TestParseReply(t *testing.T) {
	for reply, want := range map[string]struct {
		found string
		err   error
	}{
		"stream: OK":                          {"", nil},
		"stream: Win.Test.EICAR_HDB-1 FOUND":  {"Win.Test.EICAR_HDB-1", nil},
		"stream: a b FOUND":                   {"a b", nil},
		"INSTREAM size limit exceeded. ERROR": {"", ErrSize},
		"stream: Can't allocate memory ERROR": {"", ErrReply},
		"stream:  FOUND":                      {"", ErrReply},
		"OK":                                  {"", ErrReply},
		"UNKNOWN COMMAND":                     {"", ErrReply},
		"":                                    {"", ErrReply},
	} {
		if found, err := parseReply(reply); found != want.found || !errors.Is(err, want.err) || want.err == nil && err != nil {
			t.Errorf("%q: %q, %v", reply, found, err)
		}
	}
}

// FuzzReply reads whatever a clamd answers: only "stream: OK" lets pass.
func FuzzReply(f *testing.F) {
	for _, reply := range []string{"stream: OK", "stream: X FOUND", "INSTREAM size limit exceeded. ERROR", "stream: OK FOUND", "\x00"} {
		f.Add(reply)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		found, err := parseReply(reply)
		if passes := found == "" && err == nil; passes != (strings.TrimSpace(reply) == "stream: OK") {
			t.Errorf("%q: %q, %v", reply, found, err)
		}
	})
}
