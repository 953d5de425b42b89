// Package apikey knows the keys of the ops listener: who may push, look or
// change things, and how often. Keys are compared by their SHA-256, in constant
// time, and can be replaced while the node runs.
package apikey

import (
	"errors"
	"fmt"
	"regexp"

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

const maxRate = 1_000_000 // calls, per second or at once

// Key is one configured key.
type Key struct {
	Name  string          `yaml:"name" doc:"What the key is called in logs and metrics: letters, digits and - _ . only."`
	Key   settings.Secret `yaml:"key" doc:"The key itself, at least 16 bytes."`
	Scope string          `yaml:"scope" doc:"What the key may do: publish (send), read (look) or admin (everything)."`
	Rate  float64         `yaml:"rate" doc:"How many calls a second the key may make on each node, in the long run; more are refused with 429. Each command of a batch is a call. 0 sets no limit."`
	Burst int             `yaml:"burst" doc:"How many calls the key may make at once after a pause. 0 takes one second's worth, at least 1."`
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
		if !(k.Rate >= 0 && k.Rate <= maxRate) { // which NaN is not, either
			report(at+"rate", fmt.Sprintf("must be between 0 and %d calls per second", maxRate))
		}
		if k.Burst < 0 || k.Burst > maxRate {
			report(at+"burst", fmt.Sprintf("must be between 0 and %d calls", maxRate))
		}
		if k.Burst > 0 && k.Rate == 0 {
			report(at+"burst", "means nothing without rate")
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

// check is everything that is wrong with keys, as one error.
func check(keys []Key, allowShort bool) error {
	var problems []error
	report := func(path, problem string) { problems = append(problems, errors.New("api."+path+": "+problem)) }
	Check(keys, report)
	if !allowShort {
		CheckLength(keys, report)
	}
	return errors.Join(problems...)
}

// Allows tells whether a key of the given scope may do what needs another.
func Allows(scope, needed string) bool { return scope == Admin || scope == needed }
