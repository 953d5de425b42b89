package ask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/internal/fault"
)

// What the backend may say at most.
const (
	maxAnswer   = 256 << 10 // bytes of a whole answer
	maxInfo     = 16 << 10  // bytes of info, which everybody in a channel may get, and of meta
	maxUser     = 255       // bytes
	maxChannels = 1000      // client.channel_limit is usually less
	maxTags     = 32        // as the server API takes them, and what follows
	maxKey      = 256       // bytes of idempotency_key, of version_epoch, of a tag's name or value
	maxMessage  = 1 << 10   // bytes of an error's message
	maxReason   = 123       // bytes of a disconnect's reason
	maxTime     = 1 << 40   // seconds: far in the future
)

var (
	errAnswer   = fault.New(fault.Upstream, "webhook_answer_invalid", "The service behind this server gave an answer that makes no sense here.")
	errTooLong  = fault.New(fault.Upstream, "webhook_answer_too_long", "The service behind this server gave an answer that is too long.")
	errRedirect = fault.New(fault.Upstream, "webhook_redirect", "The service behind this server gave an answer that makes no sense here.")
	errStatus   = fault.New(fault.Upstream, "webhook_status", "The service behind this server gave an answer that makes no sense here.")
)

func bad(format string, args ...any) error { return errAnswer.Because(fmt.Errorf(format, args...)) }

// Error is an error in the backend's words, for the client.
type Error struct {
	Code      uint32 // 100 to 1999
	Message   string
	Temporary bool // the same may succeed later
}

// Error implements error.
func (e *Error) Error() string { return "error of the backend: " + e.Message }

// Disconnect is the end of the connection, as the backend wants it.
type Disconnect struct {
	Code   uint32 // 3000 to 4999
	Reason string
}

// Error implements error.
func (d *Disconnect) Error() string { return "disconnect of the backend: " + d.Reason }

func goodErrorCode(code int) bool      { return 100 <= code && code <= 1999 }
func goodDisconnectCode(code int) bool { return 3000 <= code && code <= 4999 }

// ConnectAnswer says who connects, and with what.
type ConnectAnswer struct {
	User    string    // "" is nobody
	Expires time.Time // of the connection; zero: never
	Info    json.RawMessage
	Data    json.RawMessage // for the client, in the connect reply
	Meta    json.RawMessage
	Subs    map[string]Sub // channels that the server subscribes the client to
}

// Sub says how one subscription differs from its namespace.
type Sub struct {
	connjwt.SubscribeOptions
	Expires      time.Time // zero: never
	CacheRecover bool      // in cache mode: send the latest publication, asked or not
}

// PublishAnswer says how something is published.
type PublishAnswer struct {
	Data           []byte // in place of what the client sent; nil leaves that
	SkipHistory    bool
	Tags           map[string]string
	IdempotencyKey string
	Delta          bool
	Version        uint64
	VersionEpoch   string
}

// RefreshAnswer says whether a connection or a subscription goes on.
type RefreshAnswer struct {
	Expired bool
	Expires time.Time       // zero: never
	Info    json.RawMessage // what others see from now on; nil leaves it
}

// result has all fields that a result of any kind may have.
type result struct {
	User     string                `json:"user"`
	Expired  bool                  `json:"expired"`
	Meta     json.RawMessage       `json:"meta"`
	Channels []string              `json:"channels"`
	Subs     map[string]*subResult `json:"subs"`
	subResult

	SkipHistory    bool              `json:"skip_history"`
	Tags           map[string]string `json:"tags"`
	IdempotencyKey string            `json:"idempotency_key"`
	Delta          bool              `json:"delta"`
	Version        uint64            `json:"version"`
	VersionEpoch   string            `json:"version_epoch"`
}

type subResult struct {
	ExpireAt     int64             `json:"expire_at"` // Unix seconds
	Info         json.RawMessage   `json:"info"`
	B64Info      string            `json:"b64info"`
	Data         json.RawMessage   `json:"data"`
	B64Data      string            `json:"b64data"`
	Override     connjwt.Overrides `json:"override"`
	CacheRecover bool              `json:"cache_recover"`
}

// decode reads an answer. It returns a nil result where there is none; errors
// are *Error, *Disconnect, or that it makes no sense. Should a backend say
// several things at once, the strictest counts.
func decode(body []byte) (*result, error) {
	var said struct {
		Result *result
		Error  *struct {
			Code      int
			Message   string
			Temporary bool
		}
		Disconnect *struct {
			Code   int
			Reason string
		}
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, bad("it is not the JSON that is documented: %w", placeOf(err))
	}
	switch d, e := said.Disconnect, said.Error; {
	case d != nil && !goodDisconnectCode(d.Code):
		return nil, bad("%d is no code of a disconnect", d.Code)
	case d != nil:
		return nil, &Disconnect{uint32(d.Code), clip(d.Reason, maxReason)}
	case e != nil && !goodErrorCode(e.Code):
		return nil, bad("%d is no code of an error", e.Code)
	case e != nil:
		return nil, &Error{uint32(e.Code), clip(e.Message, maxMessage), e.Temporary}
	}
	return said.Result, nil
}

// placeOf keeps what of a decoding error repeats nothing of the answer.
func placeOf(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the field %q has another type", clip(e.Field, 100))
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("no JSON at byte %d", e.Offset)
	}
	return errors.New("no JSON")
}

// clip shortens s to at most limit bytes of whole characters.
func clip(s string, limit int) string {
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// value is a payload given as JSON or in base64: on one line, since a line
// break would end a message.
func value(raw json.RawMessage, b64 string, limit int) (json.RawMessage, error) {
	if b64 != "" {
		var err error
		if raw, err = base64.StdEncoding.DecodeString(b64); err != nil {
			return nil, bad("base64 that is none")
		}
	}
	var line bytes.Buffer
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return nil, nil
	case json.Compact(&line, raw) != nil || !utf8.Valid(raw):
		return nil, bad("a payload that is no JSON in UTF-8")
	case line.Len() > limit:
		return nil, bad("a payload of more than %d bytes", limit)
	}
	return line.Bytes(), nil
}

// payload is data that in base64 may be anything.
func (s *subResult) payload() ([]byte, error) {
	if s.B64Data == "" {
		return value(s.Data, "", maxAnswer)
	}
	data, err := base64.StdEncoding.DecodeString(s.B64Data)
	if err != nil {
		return nil, bad("base64 that is none")
	}
	return data, nil
}

func moment(seconds int64) (time.Time, error) {
	switch {
	case seconds < 0 || seconds > maxTime:
		return time.Time{}, bad("%d is no time", seconds)
	case seconds == 0:
		return time.Time{}, nil
	}
	return time.Unix(seconds, 0), nil
}

func (s *subResult) sub() (o Sub, err error) {
	if s == nil { // "subs": {"news": null}
		return o, nil
	}
	var errs [3]error
	o.Info, errs[0] = value(s.Info, s.B64Info, maxInfo)
	o.Data, errs[1] = value(s.Data, s.B64Data, maxAnswer)
	o.Expires, errs[2] = moment(s.ExpireAt)
	o.Override, o.CacheRecover = s.Override.Override(), s.CacheRecover
	return o, errors.Join(errs[:]...)
}

func (r *result) connect() (*ConnectAnswer, error) {
	if r == nil {
		return nil, nil
	}
	if len(r.User) > maxUser {
		return nil, bad("a user of more than %d bytes", maxUser)
	}
	if len(r.Subs)+len(r.Channels) > maxChannels {
		return nil, bad("more than %d channels", maxChannels)
	}
	whole, err := r.sub() // its data is that of the connection
	if err != nil {
		return nil, err
	}
	a := &ConnectAnswer{User: r.User, Expires: whole.Expires, Info: whole.Info, Data: whole.Data, Subs: make(map[string]Sub, len(r.Subs)+len(r.Channels))}
	if a.Meta, err = value(r.Meta, "", maxInfo); err != nil {
		return nil, err
	}
	for _, name := range r.Channels {
		a.Subs[name] = Sub{}
	}
	for name, s := range r.Subs {
		if a.Subs[name], err = s.sub(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (r *result) subscribe() (*Sub, error) {
	if r == nil {
		return &Sub{}, nil
	}
	s, err := r.sub()
	return &s, err
}

func (r *result) publish() (*PublishAnswer, error) {
	if r == nil {
		return &PublishAnswer{}, nil
	}
	if len(r.IdempotencyKey) > maxKey || len(r.VersionEpoch) > maxKey {
		return nil, bad("idempotency_key or version_epoch of more than %d bytes", maxKey)
	}
	if len(r.Tags) > maxTags {
		return nil, bad("more than %d tags", maxTags)
	}
	for name, text := range r.Tags {
		if len(name) > maxKey || len(text) > maxKey {
			return nil, bad("a tag of more than %d bytes", maxKey)
		}
	}
	data, err := r.payload()
	if err != nil {
		return nil, err
	}
	return &PublishAnswer{
		Data: data, SkipHistory: r.SkipHistory, Tags: r.Tags, IdempotencyKey: strings.Clone(r.IdempotencyKey),
		Delta: r.Delta, Version: r.Version, VersionEpoch: r.VersionEpoch,
	}, nil
}

func (r *result) refresh() (*RefreshAnswer, error) {
	if r == nil || r.Expired {
		return &RefreshAnswer{Expired: true}, nil
	}
	s, err := r.sub()
	if err != nil {
		return nil, err
	}
	expired := !s.Expires.IsZero() && time.Until(s.Expires) <= 0
	return &RefreshAnswer{Expired: expired, Expires: s.Expires, Info: s.Info}, nil
}

func (r *result) rpc() ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	return r.payload()
}
