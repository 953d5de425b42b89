// Package deploy_test proves what can be proved of the deployment examples
// without a container engine.
package deploy_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/minigate/minigate/internal/testdeps"
)

// TestBinaryIsStatic runs the very build that the Dockerfile runs: the image
// holds nothing but the binary, so that it must not need a loader or a library.
func TestBinaryIsStatic(t *testing.T) {
	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(dockerfile), "RUN make binary OUT=") {
		t.Error("the Dockerfile builds otherwise than this test")
	}
	path := binary(t)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary asks for a loader")
		}
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the binary needs libraries %v (%v)", libraries, err)
	}
	cmd := exec.Command(path, "version")
	cmd.Env = []string{} // as bare as in the image
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "minigate v0.0.0-test\n" {
		t.Errorf("version prints %q, %v", out, err)
	}
}

// commentedOut is a line of minigate.yaml that is a setting, not a sentence.
var commentedOut = regexp.MustCompile(`(?m)^#((?:  +)?[a-z-])`)

// TestComposeConfiguration checks the example's settings with minigate itself,
// as they are and with all that may be uncommented.
func TestComposeConfiguration(t *testing.T) {
	raw, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Environment map[string]string
		}
	}
	if err := yaml.Unmarshal(raw, &compose); err != nil {
		t.Fatal(err)
	}
	environment := compose.Services["minigate"].Environment
	if len(environment) == 0 {
		t.Fatal("compose.yaml gives minigate no environment")
	}
	values := map[string]string{
		"WECHAT_APPID":  "wx0123456789abcdef",
		"WECHAT_SECRET": "0123456789abcdef0123456789abcdef",
		"API_KEY":       "0123456789abcdef0123456789abcdef",
		"SEALING_KEY":   "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
		"SIGNING_KEY":   "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=",
		"TICKET_KEY":    "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=",
		"WEBHOOK_KEY":   "123456789abcdef0123456789abcdef0",
		"S3_SECRET_KEY": "0123456789abcdef0123456789abcdef",
	}
	variable := regexp.MustCompile(`\$\{(\w+):\?\}`)
	var env []string
	for name, value := range environment {
		env = append(env, name+"="+variable.ReplaceAllStringFunc(value, func(v string) string {
			got, ok := values[variable.FindStringSubmatch(v)[1]]
			if !ok {
				t.Errorf("%s uses %s, which this test does not know", name, v)
			}
			return got
		}))
	}
	settings, err := os.ReadFile("minigate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := commentedOut.ReplaceAll(settings, []byte("$1"))
	if n := len(commentedOut.FindAll(settings, -1)); n < 8 {
		t.Errorf("minigate.yaml has %d lines to uncomment", n)
	}
	program, whole := binary(t), filepath.Join(t.TempDir(), "whole.yaml")
	if err := os.WriteFile(whole, all, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"minigate.yaml", whole} {
		cmd := exec.Command(program, "check", "--config", file)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("minigate check of %s: %v\n%s", file, err, out)
		}
		for name, secret := range values {
			if name != "WECHAT_APPID" && strings.Contains(string(out), secret) {
				t.Errorf("minigate check of %s prints %s", file, name)
			}
		}
	}
}

// binary builds ./cmd/minigate as it is shipped.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "minigate")
	testdeps.Make(t, "binary", "OUT="+path, "VERSION=v0.0.0-test")
	return path
}
