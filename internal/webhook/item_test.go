package webhook

import (
	"strings"
	"testing"
	"time"
)

func FuzzDecodeItem(f *testing.F) {
	good, err := newItem("a-1").encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, s := range []string{"", "{}", "null", "[]", `{"id":"a","hook":"h","event":"e","body":{}}`, `{"id":"a","hook":"h","event":"e","body":null,"queued":"x"}`, strings.Repeat("[", 100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		item, err := decodeItem(data)
		if err != nil {
			return
		}
		again, err := item.encode()
		if err != nil {
			t.Fatalf("%q does not encode: %v", data, err)
		}
		same, err := decodeItem(again)
		if err != nil || same.ID != item.ID || same.lane() != item.lane() || !same.Queued.Equal(item.Queued) {
			t.Errorf("%q became %q: %v", data, again, err)
		}
	})
}

func TestLanes(t *testing.T) {
	lanes := map[string]Item{}
	for _, i := range []Item{
		{ID: "1", Hook: "h", Key: "k"}, {ID: "2", Hook: "hk"}, {ID: "k", Hook: "h"}, {ID: "2", Hook: "h"}, {ID: "3", Hook: "h", Key: "2"}, {ID: "4", Hook: "h", Key: "\x00k2"},
	} {
		lane := i.lane()
		if before, taken := lanes[lane]; taken || len(lane) != 32 {
			t.Errorf("%+v and %+v share the lane %q", i, before, lane)
		}
		lanes[lane] = i
	}
	a, b := Item{ID: "1", Hook: "h", Key: "k"}, Item{ID: "2", Hook: "h", Key: "k", Event: "other"}
	if a.lane() != b.lane() {
		t.Error("one key has two lanes")
	}
}

func TestFailureIsShort(t *testing.T) {
	i := newItem("a-1")
	i.failed(errAway.Because(errTest))
	if i.Failure != errAway.Because(errTest).Error() {
		t.Errorf("noted as %q", i.Failure)
	}
	long := *errAway
	long.Msg = strings.Repeat("你", 1000)
	i.failed(&long)
	if len(i.Failure) > maxFailure || i.Attempts != 2 {
		t.Errorf("noted as %q", i.Failure)
	}
}

func TestPause(t *testing.T) {
	for attempts, longest := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 11: longestPause, 1000: longestPause} {
		for range 100 {
			if p := pause(attempts); p > longest || p < longest/2 {
				t.Fatalf("the pause after %d attempts is %v", attempts, p)
			}
		}
	}
}
