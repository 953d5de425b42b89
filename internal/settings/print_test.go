package settings

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const printed = `rate: 7
bytes: 5MB
listen: 127.0.0.1:1
weight: 0.25
debug: true
timeout: 1m
origins:
  - x
keys:
  - •••
  - •••
headers:
  X-A: "1.10"
  X-B: b
redis:
  address: r:6379
  password: •••
namespaces:
  - name: one
    history_ttl: 5m
    rules:
      publish: false
    allowed:
      - subscribe
  - name: two
    history_ttl: 5s
    rules:
      publish: true
    allowed: []
apps:
  - appid: wx1
    secret: •••
`

func TestPrint(t *testing.T) {
	c := fullConfig()
	var b bytes.Buffer
	if err := Print(&b, &c); err != nil || b.String() != printed {
		t.Errorf("%v\n%s", err, b.String())
	}
	if _, mistakes := load(t, b.String()); len(mistakes) != 4 { // masks are no secrets
		t.Errorf("mistakes: %q", mistakes)
	}
	c.Keys, c.Redis.Password, c.Apps = []Secret{}, "", []app{}
	b.Reset()
	if err := Print(&b, c); err != nil {
		t.Fatal(err)
	}
	if got, mistakes := load(t, b.String()); mistakes != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("read again: %+v, %q", got, mistakes)
	}
}

const reference = "| Key | Environment | Type | Default | What it does |\n" + `|---|---|---|---|---|
| ` + "`rate` | `MINIGATE_RATE` | whole number | `10` | Per second. |" + `
| ` + "`bytes` | `MINIGATE_BYTES` | size | `64KiB` | Most bytes. |" + `
| ` + "`listen` | `MINIGATE_LISTEN` | text | `:8080` | Where to \\| listen. |" + `
`

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := Markdown(&b, &config{}, "MINIGATE_"); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	if !strings.HasPrefix(got, reference) {
		t.Errorf("begins %s", got[:min(len(got), 400)])
	}
	for _, want := range []string{
		"## `redis`\n\nThe Redis server.\n\n| Key |",
		"| `redis.password` | `MINIGATE_REDIS_PASSWORD` | secret |  | Its password. |",
		"## `namespaces[]`\n\nThe namespaces.\n\nA list; each element has these settings. The whole list as YAML: `MINIGATE_NAMESPACES`. Default: `[{name: room}]`.",
		"| `namespaces[].history_ttl` |  | duration | `300s` | How long. |",
		"## `namespaces[].rules`\n\nWhat clients may do.\n\n",
		"| `keys` | `MINIGATE_KEYS` | list of secret |  | API keys. |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %s", want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(fullFile, "x")
	f.Add("apps: [{secret: *a}]", "[{appid: &x y, secret: z}]")
	f.Add("a: &a [*a]", "[{secret: ? x}]")
	f.Add("rate: 1\n--- !x\n...\n", "[")
	f.Add("? {a: b}\n: c\n<<: {rate: 2}", "{}")
	f.Fuzz(func(t *testing.T, file, env string) {
		if strings.Contains(file+env, "file:") {
			return // reads files
		}
		var c, again config
		if Load(&c, Source{File: []byte(file), FileName: "f", Environ: []string{"MINIGATE_APPS=" + env}, Prefix: "MINIGATE_"}) != nil {
			return
		}
		c.Keys, c.Apps, c.Redis.Password = nil, nil, ""
		var first, second bytes.Buffer
		if err := Print(&first, &c); err != nil {
			t.Fatal(err)
		}
		if err := Load(&again, Source{File: first.Bytes()}); err != nil {
			t.Fatalf("what Print wrote cannot be read: %v\n%s", err, first.String())
		}
		if err := Print(&second, &again); err != nil || first.String() != second.String() {
			t.Errorf("%v: printed\n%s\nthen\n%s", err, first.String(), second.String())
		}
	})
}

// Texts by name may be secrets, too: they are read from files and masked.
func TestSecretsByName(t *testing.T) {
	var c struct {
		Headers map[string]Secret `yaml:"headers" doc:"Headers."`
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(&c, Source{File: []byte("headers: {X-A: plain, X-B: 'file:" + file + "'}"), FileName: "f"}); err != nil {
		t.Fatal(err)
	}
	if c.Headers["X-A"] != "plain" || c.Headers["X-B"] != "s3cret" {
		t.Errorf("read %q", map[string]string{"a": c.Headers["X-A"].Value(), "b": c.Headers["X-B"].Value()})
	}
	var b bytes.Buffer
	if err := Print(&b, &c); err != nil || b.String() != "headers:\n  X-A: •••\n  X-B: •••\n" {
		t.Errorf("%v\n%s", err, b.String())
	}
	if err := Load(&c, Source{File: []byte("headers: {X-A: 'file:/no/such/file'}"), FileName: "f"}); err == nil || !strings.Contains(err.Error(), "headers.X-A") {
		t.Errorf("a file that is not there: %v", err)
	}
}
