package settings

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type common struct{} // only there to show that unexported fields are left alone

type Limits struct {
	Rate  int  `yaml:"rate" default:"10" doc:"Per second."`
	Bytes Size `yaml:"bytes" default:"64KiB" doc:"Most bytes."`
}

func (l *Limits) Check(report func(path, problem string)) {
	if l.Rate > 100 {
		report("rate", "must be at most 100")
	}
}

type app struct {
	AppID  string `yaml:"appid" doc:"The app."`
	Secret Secret `yaml:"secret" doc:"Its secret."`
}

type namespace struct {
	Name    string        `yaml:"name" doc:"Its name."`
	TTL     time.Duration `yaml:"history_ttl" default:"300s" doc:"How long."`
	Rules   ruleSet       `yaml:"rules" doc:"What clients may do."`
	Allowed []string      `yaml:"allowed" default:"[subscribe]" doc:"Allowed."`
}

func (n *namespace) Check(report func(path, problem string)) {
	if n.Name == "" {
		report("name", "must not be empty")
	}
	if n.Name == "twin" {
		report("", "a twin is not wanted")
	}
}

type ruleSet struct {
	Publish bool `yaml:"publish" default:"false" doc:"May publish."`
}

type redis struct {
	Address  string `yaml:"address" doc:"host:port."`
	Password Secret `yaml:"password" doc:"Its password."`
}

func (r *redis) Check(report func(path, problem string)) {
	if r.Address == "" && r.Password != "" {
		report("address", "is needed with a password")
	}
}

type config struct {
	Limits
	_          common
	Listen     string            `yaml:"listen" default:":8080" doc:"Where to | listen."`
	Weight     float64           `yaml:"weight" default:"1.5" doc:"A number."`
	Debug      bool              `yaml:"debug" default:"false" doc:"More logs."`
	Timeout    time.Duration     `yaml:"timeout" default:"30s" doc:"How long."`
	Origins    []string          `yaml:"origins" default:"a,b" doc:"Origins."`
	Keys       []Secret          `yaml:"keys" doc:"API keys."`
	Headers    map[string]string `yaml:"headers" doc:"Headers."`
	Redis      redis             `yaml:"redis" doc:"The Redis server."`
	Namespaces []namespace       `yaml:"namespaces" default:"[{name: room}]" doc:"The namespaces."`
	Apps       []app             `yaml:"apps" doc:"The mini-programs."`
}

func load(t *testing.T, file string, environ ...string) (config, []string) {
	t.Helper()
	var c config
	err := Load(&c, Source{File: []byte(file), FileName: "f.yaml", Environ: environ, Prefix: "MINIGATE_"})
	if err == nil {
		return c, nil
	}
	ms, ok := errors.AsType[Mistakes](err)
	if !ok {
		t.Fatalf("error is a %T", err)
	}
	return c, strings.Split(ms.Error(), "\n")
}

func defaults() config {
	return config{
		Limits: Limits{10, 64 << 10}, Listen: ":8080", Weight: 1.5, Timeout: 30 * time.Second, Origins: []string{"a", "b"},
		Namespaces: []namespace{{Name: "room", TTL: 300 * time.Second, Allowed: []string{"subscribe"}}},
	}
}

func TestDefaults(t *testing.T) {
	got := config{Listen: "left over", Redis: redis{Address: "left over"}}
	Defaults(&got)
	if want := defaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "null", "redis:\n"} {
		if got, mistakes := load(t, empty); mistakes != nil || !reflect.DeepEqual(got, defaults()) {
			t.Errorf("file %q: %+v, %v", empty, got, mistakes)
		}
	}
}

const fullFile = `
rate: 7
bytes: 5MB
listen: 127.0.0.1:1
weight: 0.25
debug: true
timeout: 1m
origins: [x]
keys: [k1, 'k2']
headers: {X-A: 1.10, X-B: "b"}
redis:
  address: r:6379
  password: p:w#d
namespaces:
  - name: one
  - {name: two, history_ttl: 5s, allowed: [], rules: {publish: true}}
apps:
  - appid: wx1
    secret: "*s"
`

func fullConfig() config {
	return config{
		Limits: Limits{7, 5e6}, Listen: "127.0.0.1:1", Weight: 0.25, Debug: true, Timeout: time.Minute,
		Origins: []string{"x"}, Keys: []Secret{"k1", "k2"}, Headers: map[string]string{"X-A": "1.10", "X-B": "b"},
		Redis: redis{"r:6379", "p:w#d"},
		Namespaces: []namespace{
			{Name: "one", TTL: 300 * time.Second, Allowed: []string{"subscribe"}},
			{Name: "two", TTL: 5 * time.Second, Rules: ruleSet{true}, Allowed: []string{}},
		},
		Apps: []app{{"wx1", "*s"}},
	}
}

func TestFile(t *testing.T) {
	got, mistakes := load(t, fullFile)
	if want := fullConfig(); mistakes != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\n%v", got, want, mistakes)
	}
}

func TestEnviron(t *testing.T) {
	got, mistakes := load(t, "rate: 99\norigins: [gone]\nnamespaces: [{name: gone}]\nlisten: stays",
		"MINIGATE_RATE=7", "MINIGATE_BYTES=5MB", "MINIGATE_WEIGHT=0.25", "MINIGATE_DEBUG=true", "MINIGATE_TIMEOUT=1m",
		"MINIGATE_ORIGINS=x", "MINIGATE_KEYS=k1, k2", "MINIGATE_HEADERS={X-A: 1.10, X-B: b}",
		"MINIGATE_REDIS_ADDRESS=r:6379", "MINIGATE_REDIS_PASSWORD=p:w#d", "PATH=/bin", "minigate_rate=1",
		"MINIGATE_NAMESPACES=[{name: one}, {name: two, history_ttl: 5s, allowed: [], rules: {publish: true}}]",
		`MINIGATE_APPS=[{appid: wx1, secret: "*s"}]`)
	want := fullConfig()
	want.Listen = "stays"
	if mistakes != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\n%v", got, want, mistakes)
	}
	if got, mistakes := load(t, "", "MINIGATE_ORIGINS=", "MINIGATE_LISTEN="); mistakes != nil || len(got.Origins) != 0 || got.Listen != "" {
		t.Errorf("empty variables: %+v, %v", got, mistakes)
	}
}

func TestSecretFromFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte("two\nlines\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, mistakes := load(t, "apps: [{secret: 'file:"+name+"'}]", "MINIGATE_KEYS=file:"+name)
	if mistakes != nil || got.Apps[0].Secret != "two\nlines" || got.Keys[0].Value() != "two\nlines" {
		t.Errorf("%q, %q, %v", got.Apps[0].Secret.Value(), got.Keys[0].Value(), mistakes)
	}
	if err := os.WriteFile(name, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, mistakes = load(t, "", "MINIGATE_KEYS=file:"+name+",file:/nonexistent/x")
	want := []string{
		"MINIGATE_KEYS: keys[0]: names a file that cannot be used: it is empty",
		"MINIGATE_KEYS: keys[1]: names a file that cannot be used: no such file or directory",
	}
	if !slices.Equal(mistakes, want) {
		t.Errorf("got %q", mistakes)
	}
}

func TestProgrammingMistakesPanic(t *testing.T) {
	for name, v := range map[string]any{
		"no pointer": config{},
		"no key":     &struct{ A int }{},
		"bad type": &struct {
			A uint8 `yaml:"a"`
		}{},
		"bad default": &struct {
			A int `yaml:"a" default:"x"`
		}{},
		"twice": &struct {
			Limits
			A int `yaml:"rate"`
		}{},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			Defaults(v)
		})
	}
}
