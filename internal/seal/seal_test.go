package seal

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func newSealer(t testing.TB, keys ...byte) *Sealer {
	t.Helper()
	var list [][32]byte
	for _, k := range keys {
		list = append(list, [32]byte{k})
	}
	s, err := New(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What was sealed opens in its own context only, with whichever of the
// configured keys sealed it.
func TestSealer(t *testing.T) {
	const text = "what nobody may read"
	old, both, alone := newSealer(t, 1), newSealer(t, 2, 1), newSealer(t, 2)
	sealed, later := old.Seal("ann", []byte(text)), both.Seal("ann", []byte(text))
	for name, try := range map[string]struct {
		s       *Sealer
		context string
		sealed  []byte
		want    error
	}{
		"itself":              {old, "ann", sealed, nil},
		"after a rotation":    {both, "ann", sealed, nil},
		"sealed with the new": {alone, "ann", later, nil},
		"not with the old":    {old, "ann", later, ErrUnknownKey},
		"without the old key": {alone, "ann", sealed, ErrUnknownKey},
		"another context":     {old, "bob", sealed, ErrBroken},
		"no context":          {old, "", sealed, ErrBroken},
		"a flipped bit":       {old, "ann", flip(sealed, len(sealed)-1), ErrBroken},
		"another version":     {old, "ann", flip(sealed, 0), ErrBroken},
		"another key's id":    {both, "ann", slices.Concat(later[:Header], sealed[Header:]), ErrBroken},
		"the header":          {old, "ann", sealed[:Header], ErrBroken},
		"nothing":             {old, "ann", nil, ErrBroken},
	} {
		got, err := try.s.Open(try.context, try.sealed)
		if !errors.Is(err, try.want) || (err == nil) != (string(got) == text) {
			t.Errorf("%s: %q, %v, want %v", name, got, err, try.want)
		}
	}
	if again := old.Seal("ann", []byte(text)); bytes.Equal(sealed, again) {
		t.Error("the same text is sealed the same twice")
	}
	if bytes.Contains(sealed, []byte(text)) || len(sealed) != len(text)+33 {
		t.Errorf("sealed as %q", sealed)
	}
	if _, err := New(nil); err == nil {
		t.Error("a sealer without a key was made")
	}
}

func TestTag(t *testing.T) {
	a, b := newSealer(t, 1), newSealer(t, 2, 1)
	tag := a.Tag("ann", "x")
	if tag != a.Tag("ann", "x") || tag == b.Tag("ann", "x") || tag == a.Tag("bob", "x") || tag == a.Tag("ann", "y") {
		t.Error("tags do not depend on sealing key, context and text alone")
	}
}

func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 1
	return b
}

func FuzzOpen(f *testing.F) {
	s := newSealer(f, 1)
	f.Add(s.Seal("ann", []byte("x")))
	f.Add([]byte(nil))
	f.Add([]byte(strings.Repeat("\x02", Header)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := s.Open("bob", data); err == nil { // nobody can have sealed it for bob
			t.Errorf("%x opened as %q", data, got)
		}
	})
}
