package serverapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/fault"
)

// errMalformed is a body that is not the JSON its method takes: 400.
var errMalformed = fault.New(fault.Invalid, "malformed", "The body is not the JSON of this method.")

// decode reads a request; keys it does not know are ignored.
func decode[T any](body []byte) (T, error) {
	var req T
	if err := json.Unmarshal(body, &req); err != nil {
		return req, errMalformed
	}
	return req, nil
}

// payload is the two ways of giving data.
type payload struct {
	Data    json.RawMessage `json:"data"`
	B64Data string          `json:"b64data"` // wins where both are there
}

// bytes returns the data as it was given but for line breaks, which separate
// messages in a WebSocket frame; in valid JSON they stand between tokens only,
// so taking them out changes nothing.
func (p payload) bytes(limit int) (json.RawMessage, error) {
	data := []byte(p.Data)
	if p.B64Data != "" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(p.B64Data); err != nil {
			return nil, badRequest("b64data is not base64")
		}
		if !json.Valid(data) || !utf8.Valid(data) {
			return nil, badRequest("b64data is not JSON in UTF-8")
		}
	}
	switch {
	case len(data) == 0:
		return nil, badRequest("no data")
	case len(data) > limit:
		return nil, badRequest("data is too large")
	}
	if bytes.IndexByte(data, '\n') >= 0 || bytes.IndexByte(data, '\r') >= 0 { // much faster than ContainsAny
		data = bytes.Map(func(c rune) rune {
			if c == '\r' || c == '\n' {
				return -1
			}
			return c
		}, data)
	}
	return data, nil
}
