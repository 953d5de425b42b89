package transfer

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// hangingClamd takes connections and says nothing.
func hangingClamd(t *testing.T) (address string, asked *atomic.Int32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			defer func() { _ = conn.Close() }()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), asked
}

// A clamd that does not answer is asked about one file now and then, not about
// all of them: each would hold a worker for as long as it may take.
func TestHangingClamdIsSpared(t *testing.T) {
	address, asked := hangingClamd(t)
	h := newHouse(t, newTestFolder(t), newTestFileLedger(t))
	f := h.record(h.keep("a.txt", "hello").ID)
	s := CheckSettings{Timeout: 20 * time.Millisecond, Clamd: ClamdSettings{Address: address, MaxStream: 1 << 20}}
	const rest = 50 * time.Millisecond
	c := newClamdChecker(s, h.store, rest)
	for range clamdFails {
		if _, err := c.check(t.Context(), f); fault.Of(err).Code != "clamd_unavailable" {
			t.Fatalf("a clamd that hangs: %v", err)
		}
	}
	spared := func() bool {
		_, err := c.check(t.Context(), f)
		return fault.Of(err).Code == "clamd_paused"
	}
	if !spared() || asked.Load() != clamdFails {
		t.Errorf("it was asked %d times, want %d and then to be left alone", asked.Load(), clamdFails)
	}
	time.Sleep(rest + time.Millisecond) // of the breaker, which has no other clock
	if spared() || !spared() || asked.Load() != clamdFails+1 {
		t.Errorf("it was asked %d times, want once more after a rest", asked.Load())
	}
}

// Files that cannot be read are no fault of clamd's.
func TestUnreadFilesDoNotSpareClamd(t *testing.T) {
	address, asked := hangingClamd(t)
	store := newTestFolder(t)
	c := newClamdChecker(CheckSettings{Timeout: time.Second, Clamd: ClamdSettings{Address: address, MaxStream: 1 << 20}}, store, time.Hour)
	for range 2 * clamdFails {
		if _, err := c.check(t.Context(), File{Key: "not/there"}); err == nil || strings.HasPrefix(fault.Of(err).Code, "clamd") {
			t.Fatalf("a file that is gone: %v", err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * clamdFails {
		if _, err := c.check(gone, File{Key: "not/there"}); err == nil || errors.Is(err, errClamdSpared) {
			t.Fatalf("whoever left: %v", err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("clamd was asked %d times about nothing", n)
	}
}
