// Package apikey knows the keys of the ops listener: who may push, look or
// change things. Keys are compared by their SHA-256, in constant time.
package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/minigate/minigate/internal/settings"
)

// What a key may do. Admin may do everything.
const (
	Admin   = "admin"
	Publish = "publish"
	Read    = "read"
)

// MinLength is how many bytes a key has at least, except in dev.
const MinLength = 16

// Key is one configured key.
type Key struct {
	Name  string          `yaml:"name" doc:"What the key is called in logs and metrics: letters, digits and - _ . only."`
	Key   settings.Secret `yaml:"key" doc:"The key itself, at least 16 bytes."`
	Scope string          `yaml:"scope" doc:"What the key may do: publish (send), read (look) or admin (everything)."`
}

var nameFormat = regexp.MustCompile(`^[-a-zA-Z0-9_.]{1,64}$`)

// Check reports mistakes in keys, all but their length.
func Check(keys []Key, report func(path, problem string)) {
	names, values := map[string]bool{}, map[string]bool{}
	for i, k := range keys {
		at := fmt.Sprintf("keys[%d].", i)
		switch {
		case !nameFormat.MatchString(k.Name):
			report(at+"name", "must have 1 to 64 letters, digits, dashes, underscores or dots")
		case names[k.Name]:
			report(at+"name", "is the same as another key's")
		}
		switch {
		case k.Key == "":
			report(at+"key", "is required")
		case values[k.Key.Value()]:
			report(at+"key", "is the same as another key")
		}
		if k.Scope != Admin && k.Scope != Publish && k.Scope != Read {
			report(at+"scope", "must be admin, publish or read")
		}
		names[k.Name], values[k.Key.Value()] = true, true
	}
}

// CheckLength reports keys shorter than MinLength.
func CheckLength(keys []Key, report func(path, problem string)) {
	for i, k := range keys {
		if n := len(k.Key.Value()); n > 0 && n < MinLength {
			report(fmt.Sprintf("keys[%d].key", i), fmt.Sprintf("must have at least %d bytes", MinLength))
		}
	}
}

// Keys tell who calls.
type Keys struct {
	entries []entry
}

type entry struct {
	sum         [sha256.Size]byte
	name, scope string
}

// New refuses what Check and, unless allowShort is set as dev does,
// CheckLength find. No keys at all let nobody in.
func New(keys []Key, allowShort bool) (*Keys, error) {
	var problems []error
	report := func(path, problem string) { problems = append(problems, errors.New("api."+path+": "+problem)) }
	Check(keys, report)
	if !allowShort {
		CheckLength(keys, report)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	k := &Keys{}
	for _, key := range keys {
		k.entries = append(k.entries, entry{sha256.Sum256([]byte(key.Key.Value())), key.Name, key.Scope})
	}
	return k, nil
}

// Authenticate finds the key in the three places in which Centrifugo takes it:
// "X-API-Key: KEY", "Authorization: apikey KEY" and "?api_key=KEY". The first
// of them that is there counts. How long it takes says nothing about keys.
func (k *Keys) Authenticate(r *http.Request) (name, scope string, ok bool) {
	return k.Find(given(r))
}

// Find is Authenticate for a key that came another way.
func (k *Keys) Find(key string) (name, scope string, ok bool) {
	sum := sha256.Sum256([]byte(key))
	for i := range k.entries {
		if e := &k.entries[i]; subtle.ConstantTimeCompare(sum[:], e.sum[:]) == 1 {
			name, scope, ok = e.name, e.scope, true // and goes on: as long for the first key as for the last
		}
	}
	return name, scope, ok
}

func given(r *http.Request) string {
	if key := r.Header.Get("X-Api-Key"); key != "" {
		return key
	}
	if scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "apikey") {
		return strings.TrimSpace(key)
	}
	return r.URL.Query().Get("api_key")
}

// Allows tells whether a key of the given scope may do what needs another.
func Allows(scope, needed string) bool { return scope == Admin || scope == needed }
