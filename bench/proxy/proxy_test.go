package main

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestRuns starts everything and measures nothing worth reading: that both
// sides answer every request is all it wants to know.
func TestRuns(t *testing.T) {
	program := t.TempDir() + "/proxy"
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "-rounds", "1", "-duration", "250ms", "-connections", "4")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range []string{`nginx \+ auth +[1-9][0-9]* .* 0\n`, `minigate +[1-9][0-9]* .* 0\n`, `throughput per CPU-second`} {
		if !regexp.MustCompile(line).Match(out) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}
