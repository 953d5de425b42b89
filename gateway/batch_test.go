package gateway

import (
	"bytes"
	"compress/flate"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/epoll"
)

// sharedForm is a push in one encoding, as a channel keeps it.
func sharedForm(text string) *form {
	m := newMessage(&protocol.Publication{}, "")
	m.channel = &channel{traffic: &traffic{}}
	f := &form{message: m}
	f.frame, f.data = frameOf(epoll.Text, []byte(text))
	return f
}

// inflated is what a frame's payload stands for.
func (f wireFrame) inflated(t *testing.T) string {
	t.Helper()
	if f.first&0x40 == 0 {
		return f.payload
	}
	b, err := io.ReadAll(flate.NewReader(strings.NewReader(f.payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	if err != nil {
		t.Fatalf("%x cannot be decompressed: %v", f.payload, err)
	}
	return string(b)
}

func TestBatchesOfAllSizes(t *testing.T) {
	for _, sizes := range [][]int{{0}, {1}, {125}, {126}, {60, 64}, {60, 65}, {65535}, {65536}, {30000, 35534}, {30000, 35535}, {70000, 3}, {1, 1, 1}, {200000}} {
		for _, shared := range []bool{false, true} {
			b := &batch{op: epoll.Text}
			var want []string
			for i, n := range sizes {
				text := strings.Repeat(string(rune('a'+i)), n)
				want = append(want, text)
				if shared {
					b.share(sharedForm(text))
				} else {
					b.add([]byte(text))
				}
			}
			got := framesIn(b.frames())
			if len(got) != 1 || got[0].first != 0x81 || got[0].payload != strings.Join(want, "\n") {
				t.Errorf("%v, shared %v: %d frames", sizes, shared, len(got))
			}
			if shared && (b.pushes != len(sizes) || len(sizes) == 1 && b.own() != 0) {
				t.Errorf("%v: %d pushes, %d bytes of its own", sizes, b.pushes, b.own())
			}
		}
	}
}

// Replies are joined, pushes that are worth it have a compressed frame each that
// is made once, and the order stays.
func TestBatchWithCompression(t *testing.T) {
	long := sharedForm(strings.Repeat("all work and no play ", 50))
	noise := sharedForm("\x8f\x02\xd1\x70\xfe\x11\x9b\x44\xa3\x5c\x1d\xe9\x27\xb6\x80\x0c\x63")
	short := sharedForm("short")
	for range 2 {
		b := &batch{op: epoll.Text, least: 16}
		b.add([]byte("one"))
		b.add([]byte("two"))
		b.share(long)
		b.share(short)
		b.share(noise)
		b.share(long)
		var got []string
		for _, f := range framesIn(b.frames()) {
			got = append(got, string(rune('0'+f.first>>6&1))+f.inflated(t))
		}
		want := []string{"0one\ntwo", "1" + string(long.data), "0short\n" + string(noise.data), "1" + string(long.data)}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		b.reset()
		b.share(long)
		first := b.frames()
		c := &batch{op: epoll.Text, least: 16}
		c.share(long)
		if &first[0] != &c.frames()[0] || b.own() != 0 || framesIn(first)[0].inflated(t) != string(long.data) {
			t.Error("a lone compressed push is not shared")
		}
		plain := &batch{op: epoll.Text}
		plain.share(long)
		if !bytes.Equal(plain.frames(), long.frame) {
			t.Error("compressed for whom did not agree on that")
		}
	}
	if n := long.message.size.Load(); n != int64(len(long.compressed(16))) {
		t.Errorf("%d bytes counted for a compressed form of %d", n, len(long.compressed(16)))
	}
	if noise.compressed(16) != nil {
		t.Error("noise was compressed")
	}
}
