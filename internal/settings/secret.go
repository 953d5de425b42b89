package settings

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
)

const mask = "•••"

// Secret is a password, key or token. However it is printed, logged or
// encoded it shows as "•••" (as "" where it is empty); only Value gives it.
//
// In a file or an environment variable a secret may be given as
// "file:/run/secrets/name": its value is then the content of that file
// without the line break at its end.
//
// fmt cannot call methods on unexported struct fields: keep a Secret in
// exported fields, or do not print the struct around it.
type Secret string

// Value is the secret itself.
func (s Secret) Value() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// GoString masks %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// Format masks every verb; with String alone a wrong one (%d) would show it.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || verb == 'v' && f.Flag('#') {
		text = strconv.Quote(text)
	}
	_, _ = io.WriteString(f, text) // fmt.State keeps its own errors
}

// MarshalJSON masks the secret in JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(s.String())), nil }

// MarshalYAML masks the secret in YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue masks the secret in structured logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
