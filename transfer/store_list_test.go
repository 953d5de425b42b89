package transfer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// pagesOf is what all pages of a store say.
func pagesOf(t *testing.T, s Store, limit int) map[string]Object {
	t.Helper()
	all := map[string]Object{}
	after := ""
	for range 1000 {
		page, next, err := s.List(t.Context(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > limit {
			t.Fatalf("a page of %d, want %d at most", len(page), limit)
		}
		for _, o := range page {
			if _, twice := all[o.Key]; twice {
				t.Errorf("%q is on two pages", o.Key)
			}
			all[o.Key] = o
		}
		if next == "" {
			return all
		}
		after = next
	}
	t.Fatal("pages without end")
	return nil
}

func testStoreList(t *testing.T, s Store) {
	before := pagesOf(t, s, 1000)
	want := map[string]int64{"listed/中文 名": 3, "listed/A": 0, "listed/a": 1}
	for i := range 30 {
		want[fmt.Sprint("2026/01/02/", strings.Repeat("X", 24), i+10)] = int64(i)
	}
	for key, size := range want {
		if _, err := s.Put(t.Context(), key, strings.NewReader(strings.Repeat("x", int(size))), size); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{1, 7, len(before) + len(want), 1000} {
		got := pagesOf(t, s, limit)
		if len(got) != len(before)+len(want) {
			t.Errorf("pages of %d: %d objects, want %d", limit, len(got), len(before)+len(want))
		}
		for key, size := range want {
			if o := got[key]; o.Size != size || time.Since(o.Modified).Abs() > time.Hour {
				t.Errorf("pages of %d: %q is %+v, want size %d", limit, key, o, size)
			}
		}
	}
	keys := slices.Collect(maps.Keys(want))
	for _, key := range keys {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if got := pagesOf(t, s, 1000); len(got) != len(before) {
		t.Errorf("%d objects after deletion, want %d", len(got), len(before))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.List(ctx, "", 10); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
