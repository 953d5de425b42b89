package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// entry is one call that a backend has put into a stream.
type entry struct {
	method  string
	payload []byte
	key     string // what it is in order with; "" for nothing
	size    int    // bytes of all its fields
	fields  []string
}

const (
	maxMethod = 64  // bytes
	maxKey    = 255 // bytes
)

var (
	errNoMethod  = errors.New("there is no field method, or it is longer than 64 bytes")
	errNoPayload = errors.New("there is no field payload")
	errTwice     = errors.New("a field is there twice")
	errKey       = errors.New("the key is longer than 255 bytes or not UTF-8")
)

// decode makes an entry of names and values in turn. Names it does not know
// are left alone.
func decode(fields []string) (*entry, error) {
	e := &entry{fields: fields}
	seen := make(map[string]bool, 3)
	for i := 0; i+1 < len(fields); i += 2 {
		name, value := fields[i], fields[i+1]
		e.size += len(name) + len(value)
		switch name {
		case "method", "payload", "key":
			if seen[name] {
				return e, errTwice
			}
			seen[name] = true
		}
		switch name {
		case "method":
			e.method = value
		case "payload":
			e.payload = []byte(value)
		case "key":
			e.key = value
		}
	}
	switch {
	case e.method == "" || len(e.method) > maxMethod:
		return e, errNoMethod
	case len(e.payload) == 0:
		return e, errNoPayload
	case len(e.key) > maxKey || !utf8.ValidString(e.key):
		return e, errKey
	}
	if e.key == "" {
		e.key = keyOf(e.payload)
	}
	return e, nil
}

// keyOf is the one user or channel that a request is about, "" where there are
// several or none.
func keyOf(payload []byte) string {
	var r struct {
		User     string
		Channel  string
		Users    []string
		UnionIDs []string
		Channels []string
		All      bool
	}
	if json.Unmarshal(payload, &r) != nil {
		return "" // it will be refused
	}
	if r.User != "" {
		return r.User
	}
	targets := append(append(r.Users, r.UnionIDs...), r.Channels...)
	if r.Channel != "" {
		targets = append(targets, r.Channel)
	}
	if len(targets) != 1 || r.All {
		return ""
	}
	return targets[0]
}

// shown is an entry as the scripts answer it.
type shown struct {
	id     string
	size   int // -1: it is gone
	fields []string
}

var errAnswer = errors.New("the answer of a script makes no sense")

// parseShown takes the answer of a script apart.
func parseShown(answer any) ([]shown, error) {
	list, ok := answer.([]any)
	if !ok {
		return nil, errAnswer
	}
	out := make([]shown, 0, len(list))
	for _, each := range list {
		triple, ok := each.([]any)
		if !ok || len(triple) != 3 {
			return nil, errAnswer
		}
		id, ok1 := triple[0].(string)
		size, ok2 := triple[1].(int64)
		values, ok3 := triple[2].([]any)
		if !ok1 || !ok2 || !ok3 {
			return nil, errAnswer
		}
		s := shown{id: id, size: int(size), fields: make([]string, 0, len(values))}
		for _, v := range values {
			text, ok := v.(string)
			if !ok {
				return nil, errAnswer
			}
			s.fields = append(s.fields, text)
		}
		out = append(out, s)
	}
	return out, nil
}

// open decodes what a script has shown. The error says why it can never be
// carried out; nothing at all means that the entry is gone.
func (s shown) open() (*entry, error) {
	switch {
	case s.size < 0:
		return nil, nil
	case len(s.fields) == 0:
		return &entry{}, fmt.Errorf("it has %d bytes, more than max_entry", s.size)
	}
	return decode(s.fields)
}
