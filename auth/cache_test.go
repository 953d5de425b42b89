package auth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// heavySession is one with as many claims and channels as there may be.
func heavySession() *Session {
	s := newSession("heavy", time.Hour)
	s.Claims = json.RawMessage(strings.Repeat("x", maxClaims))
	s.Channels = nil
	for i := range maxChannels {
		s.Channels = append(s.Channels, fmt.Sprintf("%03d", i)+strings.Repeat("x", maxChannelBytes/maxChannels-3))
	}
	return s
}

// What the sessions remembered take together is bounded, however much the
// backend says of each; those in use stay.
func TestCacheIsBoundedByBytes(t *testing.T) {
	now := time.Now()
	c := newSessionCache(time.Minute)
	favourite := heavySession()
	c.put(favourite.Fingerprint, favourite, time.Time{}, c.mark(), now)
	each := favourite.weight()
	if least := maxClaims + maxChannelBytes*9/10; each < least || each > 2*least {
		t.Fatalf("a session of %d bytes is said to weigh %d", least, each)
	}
	for range 3 * maxVerifiedBytes / each {
		s := *favourite // shares what is heavy: the test has not so much to spare
		_, s.Fingerprint = newToken()
		c.put(s.Fingerprint, &s, time.Time{}, c.mark(), now)
		if _, ok := c.get(favourite.Fingerprint, now); !ok {
			t.Fatal("a session in use was forgotten")
		}
	}
	n := len(c.entries.young) + len(c.entries.old)
	if most := maxVerifiedBytes / each; n > most || n < most/2 {
		t.Errorf("%d sessions of %d bytes are remembered, want %d to %d", n, each, most/2, most)
	}
}

// The weight is that of what is there: neither what is put in again nor what
// was removed counts.
func TestRecentWeighs(t *testing.T) {
	r := newRecent[int, int](1000)
	r.weigh, r.halfWeight = func(v int) int { return v }, 100
	total := func() (n int) {
		for _, v := range r.young {
			n += v
		}
		return n
	}
	for i := range 10_000 {
		switch k := i * i % 13 % 6; i % 5 {
		case 0:
			r.remove(k)
		case 1:
			r.get(k)
		default:
			r.put(k, i%40)
		}
		if r.heavy != total() || r.heavy > 100 {
			t.Fatalf("after %d steps %d is there and %d is counted", i, total(), r.heavy)
		}
	}
	r.put(-1, 5000) // more than there is room for: by itself, and gone with the next
	if _, ok := r.get(-1); !ok || len(r.young) != 1 {
		t.Errorf("%d beside one that is too heavy", len(r.young)-1)
	}
	r.put(-2, 1)
	r.put(-3, 100)
	r.put(-4, 100)
	if _, ok := r.get(-1); ok {
		t.Error("one that is too heavy stays")
	}
}
