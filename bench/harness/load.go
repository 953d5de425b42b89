package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

// maxTrial ends a load generator that does not end.
const maxTrial = 10 * time.Minute

// Load runs the load generator to its end.
func (r *Run) Load(ctx context.Context, program string, args ...string) (result Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxTrial)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	p, err := r.Start(cmd)
	if err != nil {
		return result, err
	}
	if err := r.Wait(p); err != nil {
		return result, err
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		return result, fmt.Errorf("load: %w", err)
	}
	return result, nil
}
