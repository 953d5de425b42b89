// Package audit writes down what operators change: one line in the log for
// each attempt, always with the message "audit". It says who, what and whom,
// never the data, and nothing that opens a door.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// Message is that of every line.
const Message = "audit"

// Log writes one line. target is the body of the call, a JSON object, of which
// only those fields are shown that say who or what is meant. result is "ok" or
// the code of an error.
func Log(r *http.Request, key, method string, target []byte, result string) {
	slog.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelInfo, Message,
		slog.String("key", key), slog.String("method", method), slog.Attr{Key: "target", Value: Target(target)},
		slog.String("result", result), slog.String("remote", r.RemoteAddr), slog.String("request_id", rest.RequestID(r.Context())))
}

// maxBody is more than any body of an operator has.
const maxBody = 1 << 20 // bytes

// Handler audits each call of next. key says whose it is.
func Handler(method string, key func(*http.Request) string, next rest.Handler) rest.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
		r.Body = rejoin(body, err, r.Body)
		err = next(w, r)
		Log(r, key(r), method, body, Result(err))
		return err
	}
}

// Result is how a call ended, in one word.
func Result(err error) string {
	if err == nil {
		return "ok"
	}
	return fault.Of(err).Code
}

// rejoin puts what was read of a body, or the error of that, before its rest.
func rejoin(read []byte, err error, rest io.ReadCloser) io.ReadCloser {
	parts := []io.Reader{bytes.NewReader(read), rest}
	if err != nil {
		parts[1] = failing{err}
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(parts...), rest}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// shown are the fields that say who or what is meant.
type shown struct {
	User     field `json:"user"`
	AppID    field `json:"appid"`
	Client   field `json:"client"`
	Session  field `json:"session"`
	Channel  field `json:"channel"`
	Delivery field `json:"delivery"`
	File     field `json:"file"`
	All      bool  `json:"all"`
}

// field is a string of at most maxField bytes, or nothing.
type field string

const maxField = 255

func (f *field) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil { // whoever handles the call refuses anything else
		if len(s) > maxField {
			s = strings.ToValidUTF8(s[:maxField], "") + "…"
		}
		*f = field(s)
	}
	return nil
}

// Target is what a line shows of the body of a call.
func Target(body []byte) slog.Value {
	var s shown
	if err := json.Unmarshal(body, &s); err != nil {
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok {
			return slog.GroupValue()
		}
	}
	var attrs []slog.Attr
	for _, f := range []struct {
		name  string
		value field
	}{
		{"user", s.User},
		{"appid", s.AppID},
		{"client", s.Client},
		{"session", s.Session},
		{"channel", s.Channel},
		{"delivery", s.Delivery},
		{"file", s.File},
	} {
		if f.value != "" {
			attrs = append(attrs, slog.String(f.name, string(f.value)))
		}
	}
	if s.All {
		attrs = append(attrs, slog.Bool("all", true))
	}
	return slog.GroupValue(attrs...)
}
