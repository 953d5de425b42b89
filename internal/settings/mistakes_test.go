package settings

import (
	"slices"
	"strings"
	"testing"
)

func TestMistakes(t *testing.T) {
	tests := []struct {
		name, file string
		environ    []string
		want       []string
	}{
		{
			name: "all of them, each with its line",
			file: "lisen: x\nrate: ten\ntimeout: -5s\nrate: 3\ndebug: yes\nredis:\n  adress: a\n  password: pw\nbytes: 99999999999999999999\nnamespaces:\n- name: a\n  history_ttl: soon\n- twin\n- name: twin\n",
			want: []string{
				`f.yaml:1: unknown key "lisen"; did you mean listen?`,
				`f.yaml:2: rate: must be a whole number, not "ten"`,
				`f.yaml:3: timeout: "-5s" is out of range`,
				`f.yaml:4: rate: is set twice, first on line 2`,
				`f.yaml:5: debug: must be true or false, not "yes"`,
				`f.yaml:7: redis: unknown key "adress"; did you mean address?`,
				`f.yaml:9: bytes: must be a size in bytes such as "1024", "64KiB" or "5MB", not "99999999999999999999"`,
				`f.yaml:12: namespaces[0].history_ttl: must be a duration such as "25s" or "1h30m", not "soon"`,
				`f.yaml:13: namespaces[1]: must be a mapping of settings, not a single value`,
				`f.yaml:6: redis.address: is needed with a password`,
				`f.yaml:13: namespaces[1].name: must not be empty`,
				`f.yaml:14: namespaces[2]: a twin is not wanted`,
			},
		},
		{
			name: "wrong kinds",
			file: "rate: [1]\norigins: a\nheaders: [a]\nredis: here\nlisten: {a: b}\nweight: .nan\nkeys:\n",
			want: []string{
				"f.yaml:1: rate: must be a single value, not a list",
				"f.yaml:2: origins: must be a list, not a single value",
				"f.yaml:3: headers: must be a mapping of names to texts, not a list",
				"f.yaml:4: redis: must be a mapping of settings, not a single value",
				"f.yaml:5: listen: must be a single value, not a mapping",
				`f.yaml:6: weight: must be a number, not ".nan"`,
				"f.yaml:7: keys: has no value; leave it out to get its default",
			},
		},
		{
			name: "out of range", file: "rate: 9223372036854775808\nweight: 1e999",
			want: []string{`f.yaml:1: rate: "9223372036854775808" is out of range`, `f.yaml:2: weight: "1e999" is out of range`},
		},
		{name: "root", file: "- a", want: []string{"f.yaml:1: must be a mapping of settings, not a list"}},
		{name: "two documents", file: "rate: 1\n---\nrate: 2\n", want: []string{"f.yaml:2: a second YAML document begins; only one is allowed"}},
		{
			name: "syntax", file: "rate: 1\nlisten: 'open\n", environ: []string{"MINIGATE_RATE=x"},
			want: []string{"f.yaml:2: not valid YAML here or on the next lines: found unexpected end of stream", `MINIGATE_RATE: rate: must be a whole number, not "x"`},
		},
		{
			name: "anchors, tags", file: "listen: &a x\nredis: {address: *a}\norigins: [!x y]\nheaders: {a: b, a: c, d: }",
			want: []string{
				"f.yaml:1: listen: anchors and aliases are not supported; quote a value that begins with & or *",
				"f.yaml:2: redis.address: anchors and aliases are not supported; quote a value that begins with & or *",
				"f.yaml:3: origins[0]: tags are not supported; quote a value that begins with !",
				`f.yaml:4: headers: the name "a" is there twice`,
				"f.yaml:4: headers.d: has no value; leave it out to get its default",
			},
		},
		{name: "too large", file: strings.Repeat("#", maxFile+1), want: []string{"f.yaml: the file is larger than 1MiB"}},
		{
			name: "a variable's list has nothing of the file's", file: "namespaces: [{name: gone}]", environ: []string{"MINIGATE_NAMESPACES=[{history_ttl: 1s}]"},
			want: []string{"MINIGATE_NAMESPACES: namespaces[0].name: must not be empty"},
		},
		{
			name: "one mistake for one value", file: "namespaces: [{name: [x]}]",
			want: []string{"f.yaml:1: namespaces[0].name: must be a single value, not a list"},
		},
		{
			name:    "variables",
			environ: []string{"MINIGATE_RATE=101", "MINIGATE_LISTN=x", "MINIGATE_REDIS=x", "MINIGATE_PORT=tcp://10.0.0.1:80", "MINIGATE_NAMESPACES=[{nam: x}]", "MINIGATE_HEADERS=a", "MINIGATE_REDIS_PASSWORD=x"},
			want: []string{
				`MINIGATE_HEADERS: headers: must be a mapping of names to texts, not a single value`,
				`MINIGATE_NAMESPACES: namespaces[0]: unknown key "nam"; did you mean name?`,
				`MINIGATE_LISTN: unknown variable; did you mean MINIGATE_LISTEN?`,
				`MINIGATE_PORT: unknown variable; did you mean MINIGATE_APPS? (where Kubernetes sets it for a Service of that name: enableServiceLinks: false in the pod)`,
				`MINIGATE_REDIS: unknown variable; did you mean MINIGATE_REDIS_ADDRESS?`,
				`MINIGATE_RATE: rate: must be at most 100`,
				`redis.address: is needed with a password`,
				`MINIGATE_NAMESPACES: namespaces[0].name: must not be empty`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := load(t, tt.file, tt.environ...); !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// Whatever is wrong around a secret, the message must not repeat it.
func TestMistakesKeepSecrets(t *testing.T) {
	for _, file := range []string{
		"apps: [{appid: a, secret: [hush]}]",
		"apps: [{appid: a, secret: x,hush}]",
		"apps: [{appid: a, secret: x,hush: y}]",
		"apps: [{appid: a, secret: x, hush: }]",
		"apps: [{secret: *hush}]",
		"apps: [{secret: &hush}]",
		"apps: [{secret: &hush x}]",
		"apps: [{secret: !hush x}]",
		"apps: [{secret: '•••'}, {hush}]",
		"apps:\n- secret: *hush",
		"apps:\n- secret: {hush: 1}",
		"apps:\n- secret: %hush\n",
		"apps:\n- secret: @hush\n",
		"apps:\n- secret: hush: x\n",
		"apps:\n- secret: 'a'hush\n",
		"apps:\n- secret: x\n  secret: hush\n",
		"apps:\n- secret: file:hush\n",
		"keys: hush",
		"keys: {hush: x}",
		"keys: [[hush]]",
		"keys: [file:hush]",
		"redis: {password: hush, password: hush}",
	} {
		_, mistakes := load(t, file)
		text := strings.Join(mistakes, "\n")
		if text == "" || strings.Contains(text, "hush") {
			t.Errorf("%q: %q", file, text)
		}
		if env, ok := strings.CutPrefix(file, "apps: "); ok {
			if _, mistakes := load(t, "", "MINIGATE_APPS="+env); strings.Contains(strings.Join(mistakes, "\n"), "hush") || mistakes == nil {
				t.Errorf("MINIGATE_APPS=%s: %q", env, mistakes)
			}
		}
	}
}
