package gateway

import (
	"strings"
	"testing"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, match, others string // separated by spaces
	}{
		{"", "a room:a", ""},
		{"*", "a room:a/b:c\n", ""},
		{"room:*", "room: room:a room:a:b", "room xroom:a Room:a"},
		{"room:?", "room:a room:房", "room: room:ab"},
		{"room:[ab]", "room:a room:b", "room:c room: room:ab"},
		{"room:[a-c]", "room:b", "room:d room:-"},
		{"room:[!a-c]", "room:d room:-", "room:b room:"},
		{"room:[]-]", "room:] room:-", "room:a"},
		{"[^a]", "^ a", "b"},
		{"{room,news}:*", "room:a news:b", "feed:a :a"},
		{"a{b,c{d,e}*}", "ab acd ace acdx", "a ac abx"},
		{"{a,}b", "ab b", "aab"},
		{`room:\*`, "room:*", "room:a"},
		{`a,b}`, "a,b}", "a b"},
		{"#user.name+(x)$", "#user.name+(x)$", "#userxname+(x)$"},
	} {
		g, err := newGlob(c.pattern, 255)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		for name := range strings.SplitSeq(c.match, " ") {
			if !g.match(name) {
				t.Errorf("%q does not match %q", c.pattern, name)
			}
		}
		for name := range strings.FieldsSeq(c.others) {
			if g.match(name) {
				t.Errorf("%q matches %q", c.pattern, name)
			}
		}
	}
	for _, bad := range []string{"[", "[a", "[]", "{", "{a", `\`, "[b-a]", strings.Repeat("a", 256)} {
		if _, err := newGlob(bad, 255); err == nil || CodeOf(err).Code != 107 {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzGlob: whatever the pattern, it is refused or can be used, and a name that is
// quoted matches itself.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"*", "{a,b}", "[!a-z]", `\[`, "**?*", "{{a,b},c}", "[]]", "[a-]", "[&&a]", "[[:alpha:]]", "\xff"} {
		f.Add(s, "room:a")
	}
	f.Add(strings.Repeat("*a", 120), strings.Repeat("a", 255))
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(name) > 255 {
			return
		}
		g, err := newGlob(pattern, 255)
		if err != nil {
			return
		}
		g.match(name)
		if quoted, err := newGlob(asItIs(name), 1<<12); err != nil || !quoted.match(name) {
			if strings.ToValidUTF8(name, "") == name {
				t.Errorf("%q, quoted, does not match itself: %v", name, err)
			}
		}
	})
}

// asItIs makes a pattern that means one name.
func asItIs(name string) string {
	var b strings.Builder
	for _, r := range name {
		b.WriteRune('\\')
		b.WriteRune(r)
	}
	return b.String()
}
