package webhook

import (
	"slices"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/settings"
)

func TestSettingsCheck(t *testing.T) {
	for _, tt := range []struct {
		yaml  string
		wrong string // path of the one mistake, "" for none
	}{
		{"", ""},
		{"keys: [{id: a, secret: 0123456789abcdef}, {id: b-2.x_, secret: 0123456789abcdef}]", ""},
		{"keys: [{id: a, secret: 0123456789abcde}]", "keys[0].secret"},
		{"keys: [{id: 'a b', secret: 0123456789abcdef}]", "keys[0].id"},
		{"keys: [{id: a, secret: 0123456789abcdef}, {id: a, secret: 1123456789abcdef}]", "keys[1].id"},
		{"max_concurrent: 0", "max_concurrent"},
		{"queue: {max_pending: 0}", "queue.max_pending"},
		{"queue: {max_dead: -1}", "queue.max_dead"},
		{"queue: {give_up_after: 30s}", "queue.give_up_after"},
		{"queue: {workers: 0}", "queue.workers"},
	} {
		var s Settings
		err := settings.Load(&s, settings.Source{File: []byte(tt.yaml), FileName: "x"})
		var paths []string
		if mistakes, ok := err.(settings.Mistakes); ok {
			for _, m := range mistakes {
				paths = append(paths, m.Path)
			}
			if strings.Contains(err.Error(), "0123456789") {
				t.Errorf("a secret is shown: %v", err)
			}
		}
		if want := slices.DeleteFunc([]string{tt.wrong}, func(s string) bool { return s == "" }); !slices.Equal(paths, want) {
			t.Errorf("%s: wrong are %q: %v", tt.yaml, paths, err)
		}
	}
}

func TestCheckEndpoint(t *testing.T) {
	for _, good := range []string{"http://127.0.0.1:8080", "https://b.example/hook?token=x", "http://[::1]:1/"} {
		if problem := CheckEndpoint(good); problem != "" {
			t.Errorf("%s: %s", good, problem)
		}
	}
	for _, bad := range []string{"", "b.example", "/hook", "ftp://b.example", "http://", "http://:80", "http://u:p@b.example", "http://b.example/#x", "http:b", "http://b.example/%zz", "unix:///x"} {
		if CheckEndpoint(bad) == "" {
			t.Errorf("%s is accepted", bad)
		}
	}
}
