package ask

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/webhook"
)

// Kind is one of the six questions.
type Kind string

// The questions.
const (
	Connect    Kind = "connect"
	Refresh    Kind = "refresh"
	Subscribe  Kind = "subscribe"
	Publish    Kind = "publish"
	SubRefresh Kind = "sub_refresh"
	RPC        Kind = "rpc"
)

// Hook is a webhook in use.
type Hook struct {
	Kind      Kind
	Name      string // Default, or one of proxies
	At        string // where its settings are
	ForLogins bool   // connect: ask about logins, too
	Proxy     Proxy
}

// Backend asks. It is safe for concurrent use; nil has no webhooks.
type Backend struct {
	hooks            map[id]*hook
	wanted, emulated []string // names of headers
	forLogins        bool
	patience         time.Duration
}

type id struct {
	kind Kind
	name string
}

type hook struct {
	id
	endpoint         *webhook.Endpoint
	proxy            Proxy
	static           http.Header
	wanted, emulated []string
	verdicts         map[int]error // by status: *Error or *Disconnect
	failing          atomic.Bool
}

// New makes what asks by hooks whose settings passed their Check; nil if there
// are none.
func New(client *webhook.Client, hooks []Hook) (*Backend, error) {
	if len(hooks) == 0 {
		return nil, nil
	}
	b := &Backend{hooks: make(map[id]*hook, len(hooks))}
	for _, o := range hooks {
		h, err := newHook(client, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.At, err)
		}
		b.hooks[h.id] = h
		b.wanted = append(b.wanted, h.wanted...)
		b.emulated = append(b.emulated, h.emulated...)
		b.forLogins = b.forLogins || o.ForLogins
		b.patience = max(b.patience, o.Proxy.Timeout)
	}
	slices.Sort(b.wanted)
	b.wanted = slices.Compact(b.wanted)
	return b, nil
}

func newHook(client *webhook.Client, o Hook) (*hook, error) {
	label := string(o.Kind)
	if o.Name != Default {
		label += ":" + o.Name
	}
	endpoint, err := client.Endpoint(label, o.Proxy.Endpoint, o.Proxy.Timeout)
	if err != nil {
		return nil, err
	}
	h := &hook{
		id: id{o.Kind, o.Name}, endpoint: endpoint, proxy: o.Proxy, static: http.Header{},
		wanted: canonical(o.Proxy.HTTPHeaders), emulated: canonical(o.Proxy.EmulatedHeaders), verdicts: map[int]error{},
	}
	for name, v := range o.Proxy.HTTP.StaticHeaders {
		h.static.Set(name, v.Value())
	}
	for _, t := range o.Proxy.HTTP.Transforms {
		if t.ToError.Code != 0 {
			h.verdicts[t.Status] = &Error{uint32(t.ToError.Code), t.ToError.Message, t.ToError.Temporary}
		} else {
			h.verdicts[t.Status] = &Disconnect{uint32(t.ToDisconnect.Code), t.ToDisconnect.Reason}
		}
	}
	return h, nil
}

// find returns nil where there is no such webhook.
func (b *Backend) find(kind Kind, name string) *hook {
	if b == nil {
		return nil
	}
	if name == "" {
		name = Default
	}
	return b.hooks[id{kind, name}]
}

// Has tells whether there is a webhook of a kind.
func (b *Backend) Has(kind Kind, name string) bool { return b.find(kind, name) != nil }

// ForLogins tells whether connect is asked about logins, too.
func (b *Backend) ForLogins() bool { return b != nil && b.forLogins }

// Patience is how long an answer may take at most.
func (b *Backend) Patience() time.Duration {
	if b == nil {
		return 0
	}
	return b.patience
}

// Binary tells whether a webhook takes data that is not JSON.
func (b *Backend) Binary(kind Kind, name string) bool {
	h := b.find(kind, name)
	return h != nil && h.proxy.Binary
}

// Wants tells whether a header of the handshake is passed on to somebody.
// name is in canonical form.
func (b *Backend) Wants(name string) bool { return b != nil && slices.Contains(b.wanted, name) }

// Caller is the connection that a question is about. It is read only.
type Caller struct {
	Client   string // id of the connection
	Protocol string // json or protobuf
	User     string
	Login    *Login // nil: not one of ours
	Meta     json.RawMessage
	Headers  http.Header // as Backend.Headers keeps them
	Emulated http.Header // as Backend.Emulated keeps them
}

// Login is what is known of a user who logged in here.
type Login struct {
	AppID   string          `json:"appid"`
	UnionID string          `json:"unionid,omitempty"`
	Device  string          `json:"device,omitempty"`
	Claims  json.RawMessage `json:"claims,omitempty"` // as the login webhook said
}

// question is the body of a request: Centrifugo's fields, and login.
type question struct {
	Client    string          `json:"client"`
	Transport string          `json:"transport"`
	Protocol  string          `json:"protocol"`
	Encoding  string          `json:"encoding"`
	User      *string         `json:"user,omitempty"` // nil before connect
	Login     *Login          `json:"login,omitempty"`
	Name      string          `json:"name,omitempty"`
	Version   string          `json:"version,omitempty"`
	Channel   string          `json:"channel,omitempty"`
	Channels  []string        `json:"channels,omitempty"`
	Method    string          `json:"method,omitempty"`
	Token     string          `json:"token,omitempty"`
	Meta      json.RawMessage `json:"meta,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	B64Data   string          `json:"b64data,omitempty"`
}

// body encodes q with what all questions have in common.
func (h *hook) body(c *Caller, q question, data []byte) ([]byte, error) {
	q.Client, q.Transport, q.Protocol, q.Encoding = c.Client, "websocket", c.Protocol, "json"
	if h.kind != Connect || c.Login != nil {
		q.User = &c.User
	}
	if h.kind == Connect {
		q.Login = c.Login
	}
	if h.proxy.IncludeMeta {
		q.Meta = c.Meta
		if q.Meta == nil && c.Login != nil && h.kind != Connect {
			q.Meta, _ = json.Marshal(c.Login) // claims are JSON: they came out of it
		}
	}
	if h.proxy.Binary {
		q.Encoding, q.B64Data = "binary", base64.StdEncoding.EncodeToString(data)
	} else {
		q.Data = data
	}
	return json.Marshal(q)
}

var errOff = fault.New(fault.Invalid, "not_available", "This is switched off here.")

// ask makes one call. Errors are *Error and *Disconnect in the backend's own
// words; `not_available` where there is no such webhook; faults of the call;
// or Upstream `webhook_answer_invalid`, `webhook_answer_too_long`,
// `webhook_redirect`, `webhook_status`.
func ask[T any](ctx context.Context, h *hook, c *Caller, q question, data []byte, read func(*result) (T, error)) (answer T, err error) {
	if h == nil {
		return answer, errOff
	}
	body, err := h.body(c, q, data)
	if err != nil {
		return answer, err
	}
	call := webhook.Call{ID: webhook.NewID(), Event: string(h.kind), Body: body, Header: h.headers(c), MaxAnswer: maxAnswer}
	var verdict error // of the backend; the call was a success
	err = h.endpoint.Exchange(ctx, call, func(a *webhook.Answer) error {
		r, err := h.judge(a)
		if err == nil {
			answer, err = read(r)
		}
		if fault.Of(err).Kind == fault.Internal { // its own words
			verdict, err = err, nil
		}
		return err
	})
	if ctx.Err() == nil {
		h.observe(ctx, err)
	}
	if err == nil {
		err = verdict
	}
	return answer, err
}

// judge reads what came back by its status.
func (h *hook) judge(a *webhook.Answer) (*result, error) {
	verdict := h.verdicts[a.Status]
	switch {
	case verdict != nil:
		return nil, verdict
	case a.Status/100 == 3:
		return nil, errRedirect.Because(a.Fault())
	case a.Status >= http.StatusInternalServerError || a.Status == http.StatusTooManyRequests:
		return nil, a.Fault()
	case a.Status != http.StatusOK:
		return nil, errStatus.Because(a.Fault())
	case a.TooLong:
		return nil, errTooLong
	}
	return decode(a.Body)
}

// observe speaks up only when a webhook begins or ceases to fail.
func (h *hook) observe(ctx context.Context, err error) {
	failing := err != nil
	switch {
	case h.failing.Load() == failing || !h.failing.CompareAndSwap(!failing, failing):
	case failing:
		slog.WarnContext(ctx, "a webhook gives no usable answer", "hook", h.label(), "error", err)
	default:
		slog.InfoContext(ctx, "a webhook works again", "hook", h.label())
	}
}

func (h *hook) label() string {
	if h.name == Default {
		return string(h.kind)
	}
	return string(h.kind) + ":" + h.name
}

// ConnectQuestion is what the connect command says.
type ConnectQuestion struct {
	Name, Version string   // of the SDK
	Channels      []string // that the client asks for
	Data          []byte
}

// Connect asks who connects. A nil answer is nobody; one about a login names no
// other user.
func (b *Backend) Connect(ctx context.Context, c *Caller, q ConnectQuestion) (*ConnectAnswer, error) {
	read := func(r *result) (*ConnectAnswer, error) {
		if r != nil && c.Login != nil && r.User != "" && r.User != c.User {
			return nil, bad("it makes a user who logged in somebody else")
		}
		return r.connect()
	}
	return ask(ctx, b.find(Connect, ""), c, question{Name: q.Name, Version: q.Version, Channels: q.Channels}, q.Data, read)
}

// Refresh asks whether a connection goes on.
func (b *Backend) Refresh(ctx context.Context, c *Caller) (*RefreshAnswer, error) {
	return ask(ctx, b.find(Refresh, ""), c, question{}, nil, (*result).refresh)
}

// Subscribe asks whether a client may subscribe, and how.
func (b *Backend) Subscribe(ctx context.Context, name string, c *Caller, channel, token string, data []byte) (*Sub, error) {
	return ask(ctx, b.find(Subscribe, name), c, question{Channel: channel, Token: token}, data, (*result).subscribe)
}

// Publish asks whether a client may publish, and what.
func (b *Backend) Publish(ctx context.Context, name string, c *Caller, channel string, data []byte) (*PublishAnswer, error) {
	return ask(ctx, b.find(Publish, name), c, question{Channel: channel}, data, (*result).publish)
}

// SubRefresh asks whether a subscription goes on.
func (b *Backend) SubRefresh(ctx context.Context, name string, c *Caller, channel string) (*RefreshAnswer, error) {
	return ask(ctx, b.find(SubRefresh, name), c, question{Channel: channel}, nil, (*result).refresh)
}

// RPC asks for the answer to an rpc command.
func (b *Backend) RPC(ctx context.Context, name string, c *Caller, method string, data []byte) ([]byte, error) {
	return ask(ctx, b.find(RPC, name), c, question{Method: method}, data, (*result).rpc)
}
