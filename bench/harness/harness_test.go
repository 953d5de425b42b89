package harness

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func run(t *testing.T) *Run {
	t.Helper()
	r, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestCloseEndsWhatRuns(t *testing.T) {
	r, err := New()
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	select {
	case <-p.done:
	default:
		t.Error("the process runs on")
	}
}

func TestWaitTellsWhyAProgramFailed(t *testing.T) {
	r := run(t)
	p, err := r.Start(exec.Command("sh", "-c", "echo because >&2; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := r.Wait(p); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "because") {
		t.Errorf("got %v", err)
	}
}

func TestAwaitFailsWhereTheProgramEnds(t *testing.T) {
	r := run(t)
	addr, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Start(exec.Command("sh", "-c", "echo no >&2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Await(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("got %v", err)
	}
}

func TestSaidKeepsTheEnd(t *testing.T) {
	var s tail
	for _, part := range []string{strings.Repeat("a", tailSize), "bc"} {
		if _, err := s.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.String(); len(got) != tailSize || !strings.HasSuffix(got, "abc") {
		t.Errorf("got %d bytes that end in %q", len(got), got[len(got)-3:])
	}
}

// A load generator that is silent is waited for no longer than ctx allows, and
// can be waited for again.
func TestAwaitedEventsHaveATimeLimit(t *testing.T) {
	r := run(t)
	h, err := r.Hold("sh", "-c", "echo '{\"event\":\"ready\"}'; cat; echo '{\"mode\":\"hold\",\"deliveries\":7}'")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Await(t.Context(), "ready"); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if err := h.Await(over, "delivered"); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	if result, err := h.End(t.Context()); err != nil || result.Deliveries != 7 {
		t.Errorf("got %+v, %v", result, err)
	}
}
