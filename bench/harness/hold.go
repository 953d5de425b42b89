package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Holding is a load generator that holds its connections until it is told to
// end. It is used by one goroutine.
type Holding struct {
	*Process

	run   *Run
	stdin io.Closer
	out   *os.File
	lines *bufio.Reader
}

// Hold starts the load generator in mode hold or failover.
func (r *Run) Hold(program string, args ...string) (*Holding, error) {
	cmd := exec.Command(program, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, wrote, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = wrote
	p, err := r.Start(cmd)
	_ = wrote.Close() // the child has its own
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	return &Holding{Process: p, run: r, stdin: stdin, out: out, lines: bufio.NewReader(out)}, nil
}

// Await waits until it says that event came about.
func (h *Holding) Await(ctx context.Context, event string) error {
	line, err := h.line(ctx)
	if err != nil {
		return fmt.Errorf("waiting until all are %s: %w\n%s", event, err, h.Said())
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil || e.Event != event {
		return fmt.Errorf("waiting until all are %s: load said %.200s", event, line)
	}
	return nil
}

func (h *Holding) line(ctx context.Context) ([]byte, error) {
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = h.out.SetReadDeadline(time.Unix(1, 0)) // pipes have deadlines
		close(cut)
	})
	line, err := h.lines.ReadBytes('\n')
	if !stop() {
		<-cut
		_ = h.out.SetReadDeadline(time.Time{}) // for who waits for something else
		err = context.Cause(ctx)
	}
	return line, err
}

// End ends it and returns what it saw.
func (h *Holding) End(ctx context.Context) (result Result, err error) {
	defer func() { _ = h.out.Close() }() // all was read
	if err := h.stdin.Close(); err != nil {
		return result, err
	}
	for {
		line, err := h.line(ctx)
		if err != nil {
			return result, fmt.Errorf("%w\n%s", err, h.Said())
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return result, err
		}
		if e.Event == "" {
			if err := json.Unmarshal(line, &result); err != nil {
				return result, err
			}
			return result, h.run.Wait(h.Process)
		}
	}
}
