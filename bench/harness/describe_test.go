package harness

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	for _, want := range []string{"Measured on 2", runtime.Version(), "peer v1", "loopback."} {
		if got := Describe("peer v1"); !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got := ModuleVersion(self, "example.com/no/such"); got != "" {
		t.Errorf("got %q of a module that is not there", got)
	}
}
