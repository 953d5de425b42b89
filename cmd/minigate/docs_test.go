package main

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minigate/minigate/gateway"
)

// row is one of docs/compatibility.md.
type row struct{ feature, verdict string }

// comparison returns the rows of a page's tables by heading, in English terms.
func comparison(t *testing.T, page string) (rows [][]row) {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]string{"相同": "same", "不同": "differs", "没有": "not there", "我们的": "ours"}
	for table := range strings.SplitSeq(string(text), "|---|---|---|\n") {
		var list []row
		for line := range strings.Lines(table) {
			cells := strings.Split(line, " | ")
			if len(cells) != 3 {
				break
			}
			r := row{strings.TrimPrefix(cells[0], "| "), cells[1]}
			if v := verdicts[r.verdict]; v != "" {
				r.verdict = v
			}
			if !slices.Contains([]string{"same", "differs", "not there", "ours"}, r.verdict) {
				t.Errorf("%s: %q is no verdict", page, line)
			}
			list = append(list, r)
		}
		if list != nil {
			rows = append(rows, list)
		}
	}
	return rows
}

var optionName = regexp.MustCompile("`([a-z_]+)`")

// TestComparisonOfChannelOptions compares docs/compatibility.md with the
// settings: what it says is there is there, and nothing else.
func TestComparisonOfChannelOptions(t *testing.T) {
	var there []string
	var collect func(s reflect.Type)
	collect = func(s reflect.Type) {
		for f := range s.Fields() {
			if f.Anonymous {
				collect(f.Type)
			} else if name := f.Tag.Get("yaml"); name != "name" {
				there = append(there, name)
			}
		}
	}
	collect(reflect.TypeFor[gateway.Namespace]())
	slices.Sort(there)

	tables := comparison(t, "compatibility.md")
	i := slices.IndexFunc(tables, func(rows []row) bool { return rows[0].feature == "`presence`" })
	if i < 0 {
		t.Fatal("docs/compatibility.md has no table of channel options")
	}
	var said []string
	for _, r := range tables[i] {
		for _, m := range optionName.FindAllStringSubmatch(r.feature, -1) {
			if r.verdict != "not there" {
				said = append(said, m[1])
			} else if new(gateway.Access).Hint(m[1]) == "" {
				t.Errorf("a configuration with %s is refused without a word on what became of it", m[1])
			}
		}
	}
	slices.Sort(said)
	if !slices.Equal(said, there) {
		t.Errorf("docs/compatibility.md has the channel options\n%q, the settings have\n%q", said, there)
	}
}

// TestComparisonIsTheSame compares the verdicts of the two languages.
func TestComparisonIsTheSame(t *testing.T) {
	english, chinese := comparison(t, "compatibility.md"), comparison(t, "compatibility.zh-CN.md")
	if len(english) < 9 || len(english) != len(chinese) {
		t.Fatalf("%d tables in English, %d in Chinese", len(english), len(chinese))
	}
	for i := range english {
		same := slices.EqualFunc(english[i], chinese[i], func(a, b row) bool { return a.verdict == b.verdict })
		if !same {
			t.Errorf("the tables that begin with %q differ", english[i][0].feature)
		}
	}
}

// TestDocumentedCalls makes the calls that docs/server-api.md shows, in both
// languages: each works, and is as the API is described.
func TestDocumentedCalls(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+`
channel:
  namespaces:
    - {name: room, presence: true, history_size: 10, history_ttl: 300s}
`)
	for _, page := range []string{"server-api.md", "server-api.zh-CN.md"} {
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		calls := regexp.MustCompile(`(?m)^api (\w+) '(.*)'$`).FindAllStringSubmatch(string(text), -1)
		if len(calls) < 20 {
			t.Errorf("%s has %d calls", page, len(calls))
		}
		for _, c := range calls {
			if status, raw := callRaw(t, "POST", p.Ops+"/api/"+c[1], withKey, c[2]); status != 200 || strings.Contains(string(raw), `"error"`) {
				t.Errorf("%s: %s: %d %s", page, c[0], status, raw)
			}
		}
		for _, path := range regexp.MustCompile(`http://127.0.0.1:9000(/api/[\w/]+)\n`).FindAllStringSubmatch(string(text), -1) {
			if status, raw := callRaw(t, "GET", p.Ops+path[1], withKey, nil); status != 200 {
				t.Errorf("%s: GET %s: %d %s", page, path[1], status, raw)
			}
		}
	}
}
