package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/minigate/minigate/"

// layer is a package's place in cmd → web → gateway | transfer → auth →
// internal: a package imports only what has a smaller number. gateway and
// transfer share a number on purpose, so that they never meet.
func layer(importPath string) int {
	top, _, _ := strings.Cut(strings.TrimPrefix(importPath, module), "/")
	return map[string]int{"internal": 0, "auth": 1, "gateway": 2, "transfer": 2, "web": 3, "cmd": 4, "deploy": 5}[top]
}

func top(importPath string) string {
	t, _, _ := strings.Cut(strings.TrimPrefix(importPath, module), "/")
	return t
}

type goPackage struct {
	ImportPath string
	GoFiles    []string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,GoFiles,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// TestImportsPointDownwards holds the tree to its one direction.
func TestImportsPointDownwards(t *testing.T) {
	pkgs := listPackages(t)
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	for _, p := range pkgs {
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) || top(imp) == top(p.ImportPath) {
				continue
			}
			if layer(imp) >= layer(p.ImportPath) {
				t.Errorf("%s imports %s, which is not below it", p.ImportPath, imp)
			}
		}
	}
}

// owners says which packages may name a dependency that has to stay at an edge.
var owners = map[string][]string{
	"github.com/redis/go-redis/v9":       {"auth", "gateway/consumer", "gateway/engine", "gateway/status", "transfer", "internal/redisclient", "internal/webhook"},
	"github.com/minio/minio-go/v7":       {"transfer"},
	"github.com/tus/tusd/v2/pkg/handler": {"transfer"},
	"github.com/coder/websocket":         {"gateway"},
	"github.com/golang-jwt/jwt/v5":       {"auth/connjwt", "internal/jws"},
	module + "internal/wxsim":            {"cmd/minigate"},
	module + "internal/testdeps":         {},
	module + "internal/samplebackend":    {"cmd/minigate"},

	"github.com/santhosh-tekuri/jsonschema/v6": {"internal/apidoc/apidoctest"},
	module + "internal/apidoc/apidoctest":      {},
}

func TestDependenciesStayAtTheirEdge(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, imp := range p.Imports {
			allowed, guarded := owners[imp]
			self := strings.TrimPrefix(p.ImportPath, module)
			if guarded && module+self != imp && !slices.Contains(allowed, self) {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}
