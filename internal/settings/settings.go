// Package settings loads plain structs from defaults, a YAML file and the
// environment, and says about every mistake where it is.
//
// A setting is an exported struct field with three tags:
//
//	PingInterval time.Duration `yaml:"ping_interval" default:"25s" doc:"Time between two pings."`
//
// Its type is string, bool, int, int64, float64, [time.Duration], [Size] or
// [Secret], a slice of those, map[string]string, a struct of settings (a
// block), or a slice of such structs, each element of which starts with the
// defaults. Embedded structs are part of the struct around them. A pointer to
// a struct may have the method
//
//	Check(report func(path, problem string))
//
// which is called once everything is loaded; path is relative to the struct. It
// may also have the method
//
//	Hint(key string) string
//
// which says of a key that is none of its own, but known from another program,
// what to do about it, or nothing.
//
// A struct that breaks these rules is a bug in the program: every function
// here panics on it.
package settings

import (
	"fmt"
	"reflect"
	"strings"
)

// Source is where settings come from; what comes later wins: defaults, File,
// Environ.
type Source struct {
	File     []byte   // YAML, at most 1 MiB; empty sets nothing
	FileName string   // what mistakes call the file
	Environ  []string // "NAME=value" as os.Environ gives it
	Prefix   string   // of the variables that are ours, such as "MINIGATE_"
}

// Mistake is one thing wrong with the settings. It never contains the value
// of a Secret.
type Mistake struct {
	Place   string // "minigate.yaml:12" or the variable's name; "" for a default
	Path    string // such as "namespaces[1].history_ttl"; "" for all settings
	Problem string
}

func (m Mistake) String() string {
	parts := make([]string, 0, 3)
	for _, s := range []string{m.Place, m.Path, m.Problem} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Mistakes is everything wrong with the settings, as one error of a line each.
type Mistakes []Mistake

func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// Load fills dst, a pointer to a struct of settings. Its error is a [Mistakes]
// with everything that is wrong; dst is then not fit for use.
func Load(dst any, src Source) error {
	v := pointed(dst)
	l := &loader{places: map[string]string{}}
	setDefaults(v)
	l.file(v, src)
	l.environ(v, src)
	l.loaded = len(l.mistakes)
	l.check(v, "")
	if len(l.mistakes) > 0 {
		return l.mistakes
	}
	return nil
}

// Defaults sets every setting in the struct that ptr points to to its default.
func Defaults(ptr any) { setDefaults(pointed(ptr)) }

func pointed(ptr any) reflect.Value {
	v := reflect.ValueOf(ptr)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("settings: %T is not a pointer to a struct", ptr))
	}
	return v.Elem()
}

// loader remembers where values came from and what was wrong with them.
type loader struct {
	places   map[string]string // by path: where the value there came from
	mistakes Mistakes
	loaded   int // how many mistakes there were before the checks
}

func (l *loader) wrong(place, path, format string, args ...any) {
	l.mistakes = append(l.mistakes, Mistake{place, path, fmt.Sprintf(format, args...)})
}

// placeOf says where the value at path came from: its own place, or else that
// of the nearest block around it.
func (l *loader) placeOf(path string) string {
	for path != "" {
		if place, ok := l.places[path]; ok {
			return place
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return ""
}
