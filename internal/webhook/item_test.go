package webhook

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func FuzzDecodeItem(f *testing.F) {
	s := newSealer(1)
	good, err := newItem("a-1").encode(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, text := range []string{"", "\n", "{}\n", "null\n", "[]\n", `{"id":"a","hook":"h","event":"e"}` + "\n", `{"id":"a","hook":"h","event":"e","queued":"x"}` + "\n", strings.Repeat("[", 100)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		item, err := decodeHeader(data)
		if err != nil {
			return
		}
		again, err := item.encode(s)
		if err != nil {
			t.Fatalf("%q does not encode: %v", data, err)
		}
		same, err := decodeHeader(again)
		if err != nil || same.ID != item.ID || !same.Queued.Equal(item.Queued) || !bytes.Equal(same.sealed, item.sealed) {
			t.Errorf("%q became %q: %v", data, again, err)
		}
		if item.open(s) == nil && string(item.Body) != `{"id":"a-1"}` { // nothing else was ever sealed
			t.Errorf("%q opened as %q", data, item.Body)
		}
	})
}

// FuzzOpenItem opens what was sealed in the place of a delivery.
func FuzzOpenItem(f *testing.F) {
	s := newSealer(1)
	f.Add([]byte("\x01a{}"))
	f.Add([]byte("\x00null"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, plain []byte) {
		i := newItem("a-1")
		i.sealed = s.Seal(i.context(), plain)
		if err := i.open(s); err != nil {
			if !errors.Is(err, ErrSealed) || i.Failure == "" || i.Body != nil || i.Key != "" {
				t.Errorf("%q: %+v, %v", plain, i, err)
			}
			return
		}
		if err := i.check(); err != nil {
			t.Errorf("%q opened as %+v: %v", plain, i, err)
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

// What was answered last stays although nobody was asked afterwards.
func TestLastStatus(t *testing.T) {
	i := newItem("a-1")
	i.failed(errPaused)
	if i.Status != 0 || i.Failure != errPaused.Error() {
		t.Errorf("noted as %d %q", i.Status, i.Failure)
	}
	i.failed(errAnswer.Because(statusError(http.StatusTeapot)))
	want := i.Failure
	i.failed(errPaused.After(time.Second))
	i.failed(errBusy)
	if i.Status != http.StatusTeapot || i.Failure != want || !strings.Contains(want, "HTTP 418") || i.Attempts != 4 {
		t.Errorf("noted as %d %q after %d attempts", i.Status, i.Failure, i.Attempts)
	}
	i.failed(errSlow)
	if i.Status != 0 || i.Failure != errSlow.Error() {
		t.Errorf("noted as %d %q", i.Status, i.Failure)
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
