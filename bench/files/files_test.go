package main

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestRuns starts everything and measures nothing worth reading: that every
// side takes its files is all it wants to know.
func TestRuns(t *testing.T) {
	program := t.TempDir() + "/files"
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "-rounds", "1", "-files", "2", "-size", "6000000")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{presigned, tusdS3, tusS3, formS3, partsS3, plainCopy, formFolder, tusFolder} {
		if !regexp.MustCompile(regexp.QuoteMeta(name) + ` +[1-9][0-9]* +(-|[0-9.]+) +(-|[1-9][0-9]* MiB)`).Match(out) {
			t.Errorf("no %q in\n%s", name, out)
		}
	}
}
