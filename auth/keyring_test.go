package auth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/rest"
)

func (e *env) wantKeys(user User, want ...string) {
	e.t.Helper()
	keys, err := e.sessionKeys(e.t.Context(), user)
	if err != nil || !slices.Equal(keys, want) {
		e.t.Errorf("session_keys %q, %v, want %q", keys, err, want)
	}
}

// keySource logs a user in with session_keys of the test's choice.
type keySource struct {
	mu  sync.Mutex
	key string
}

func (k *keySource) RoundTrip(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := httptest.NewRecorder()
	_, _ = w.WriteString(`{"openid":"oAnn","session_key":"` + k.key + `"}`)
	return w.Result(), r.Context().Err()
}

func (k *keySource) set(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key = key
}

const keyA, keyB, keyC, keyD = "AAAAAAAAAAAAAAAAAAAAAA==", "BBBBBBBBBBBBBBBBBBBBBA==", "CCCCCCCCCCCCCCCCCCCCCA==", "DDDDDDDDDDDDDDDDDDDDDA=="

func TestKeyring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := new(keySource)
		e := newEnv(t, first(newFileStore(t)), func(o *Options) { o.Transport = source })
		login := func(key string) (string, *Session) {
			source.set(key)
			return e.mustLogin("ann")
		}
		firstToken, s := login(keyA)
		e.wantKeys(s.User, keyA)
		time.Sleep(time.Hour)
		login(keyB)
		e.wantVerify(firstToken, "") // another device's login leaves this one alone
		e.wantKeys(s.User, keyB, keyA)
		login(keyA) // WeChat hands out the same key again
		e.wantKeys(s.User, keyA, keyB)
		time.Sleep(71 * time.Hour)
		login(keyC)
		login(keyD)
		e.wantKeys(s.User, keyD, keyC, keyA)
		time.Sleep(61 * time.Minute) // keyA is 72 hours old, the ring itself is not
		e.wantKeys(s.User, keyD, keyC)
		time.Sleep(72 * time.Hour)
		e.wantKeys(s.User)
		e.wantKeys(User{AppID: appB, OpenID: "oNobody"})
	})
}

// WeChat gives a login the key that is reset before the login is stored: the
// login holds, the key stays dead.
func TestResetOvertakesALogin(t *testing.T) {
	for name, store := range map[string]Store{"file": first(newFileStore(t)), "redis": newRedisStore(t)} {
		t.Run(name, func(t *testing.T) {
			var e *env
			overtake := false
			e = newEnv(t, store, func(o *Options) {
				o.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
					answer := `{"access_token":"token","expires_in":7200}`
					switch path.Base(r.URL.Path) {
					case "jscode2session":
						answer = `{"openid":"oAnn","session_key":"` + keyA + `"}`
						if overtake {
							if w, _ := call(rest.Handler(e.ServeResetSessionKey), http.MethodPost, "", `{"user":"oAnn"}`); w.Code != http.StatusNoContent {
								t.Errorf("reset: %d %s", w.Code, w.Body)
							}
						}
					case "resetusersessionkey":
						answer = `{"openid":"oAnn","session_key":"` + keyB + `"}`
					}
					w := httptest.NewRecorder()
					_, _ = w.WriteString(answer)
					return w.Result(), nil
				})
			})
			_, s := e.mustLogin("ann")
			e.wantKeys(s.User, keyA)
			overtake = true
			token, _ := e.mustLogin("ann")
			e.wantVerify(token, "")
			e.wantKeys(s.User, keyB)
		})
	}
}

// A sealed key opens for its own user only, with whichever of the configured
// keys sealed it.
func TestSealer(t *testing.T) {
	old, _ := newSealer([][32]byte{{1}})
	both, _ := newSealer([][32]byte{{2}, {1}})
	alone, _ := newSealer([][32]byte{{2}})
	sealed, later := old.seal("ann", keyA), both.seal("ann", keyA)
	for name, try := range map[string]struct {
		s       sealer
		context string
		sealed  []byte
		ok      bool
	}{
		"itself":              {old, "ann", sealed, true},
		"after a rotation":    {both, "ann", sealed, true},
		"sealed with the new": {alone, "ann", later, true},
		"not with the old":    {old, "ann", later, false},
		"without the old key": {alone, "ann", sealed, false},
		"another user":        {old, "bob", sealed, false},
		"no user":             {old, "", sealed, false},
		"a flipped bit":       {old, "ann", flip(sealed, len(sealed)-1), false},
		"another version":     {old, "ann", flip(sealed, 0), false},
		"another key's id":    {both, "ann", slices.Concat(later[:sealHeader], sealed[sealHeader:]), false},
		"the header":          {old, "ann", sealed[:sealHeader], false},
		"nothing":             {old, "ann", nil, false},
	} {
		got, err := try.s.open(try.context, try.sealed)
		if try.ok && (err != nil || got != keyA) || !try.ok && !errors.Is(err, errSealBroken) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	tag, again := old.tag("ann", keyA), old.tag("ann", keyA)
	if tag != again || tag == both.tag("ann", keyA) || tag == old.tag("bob", keyA) || tag == old.tag("ann", keyB) {
		t.Error("tags do not depend on sealing key, context and text alone")
	}
	if _, err := newSealer(nil); err == nil {
		t.Error("a sealer without a key was made")
	}
}

func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 1
	return b
}

// The program's keys change while users stay logged in.
func TestSealKeyRotation(t *testing.T) {
	store, source := first(newFileStore(t)), &keySource{key: keyA}
	with := func(keys ...[32]byte) *env {
		return newEnv(t, store, func(o *Options) { o.Transport, o.SealKeys = source, keys })
	}
	_, s := with([32]byte{1}).mustLogin("ann")
	source.set(keyB)
	rotated := with([32]byte{2}, [32]byte{1})
	rotated.mustLogin("ann")
	rotated.wantKeys(s.User, keyB, keyA)
	with([32]byte{2}).wantKeys(s.User, keyB) // the old key is gone, and with it what it sealed
	with([32]byte{3}).wantKeys(s.User)
}

func FuzzSealed(f *testing.F) {
	s, _ := newSealer([][32]byte{{1}})
	f.Add(s.seal("ann", keyA))
	f.Add([]byte{})
	f.Add([]byte{sealVersion, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := s.open("bob", data); err == nil { // nobody can have sealed it for bob
			t.Errorf("%x opened as %q", data, got)
		}
	})
}

func FuzzKeyringEntry(f *testing.F) {
	f.Add(string(encodeKey(SealedKey{Tag: [8]byte{1}, Issued: time.UnixMilli(1), Sealed: []byte("x")})))
	f.Add("")
	f.Fuzz(func(t *testing.T, entry string) {
		if k, ok := decodeKey(entry); ok && string(encodeKey(k)) != entry {
			t.Errorf("%x was read as %+v", entry, k)
		}
	})
}
