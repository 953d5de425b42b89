package serverapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
)

// Call carries out a method with the rights of an admin, for requests that
// come another way than over HTTP and whose caller waits for no result. Methods
// that only read are unknown here. once is the idempotency key of whatever the
// body publishes under none of its own; "" is no key.
//
// Nothing is wrong only where nothing within the result is: a request of which
// a part failed may succeed when repeated where the fault is Unavailable,
// `partly_failed`, and never will where it is Invalid, `partly_refused`.
func (a *API) Call(ctx context.Context, name string, body []byte, once string) error {
	m, known := methods[name]
	if !known || m.scope == apikey.Read {
		a.metrics.requests.WithLabelValues("unknown", "104").Inc()
		return gateway.ErrMethodNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, a.settings.Timeout)
	defer cancel()
	err := a.carryOut(ctx, m, body, name, once)
	said := "ok"
	if err != nil {
		said = strconv.FormatUint(uint64(gateway.CodeOf(err).Code), 10)
	}
	a.metrics.requests.WithLabelValues(name, said).Inc()
	return err
}

func (a *API) carryOut(ctx context.Context, m method, body []byte, name, once string) error {
	if len(body) > int(a.settings.MaxBody) {
		return badRequest("the request is too large")
	}
	if !isObject(body) || !utf8.Valid(body) || !json.Valid(body) {
		return badRequest("the request is not a JSON object in UTF-8")
	}
	result, err := a.do(ctx, nobody(ctx), name, m, withKey(name, body, once))
	if errors.Is(err, errMalformed) {
		return badRequest(err.Error())
	}
	if err != nil {
		return err
	}
	return failedWithin(result)
}

// inside is an admin without limits, for calls that come with no key.
var inside = sync.OnceValue(func() apikey.Caller {
	secret := rand.Text()
	keys, err := apikey.New([]apikey.Key{{Name: "consumer", Key: settings.Secret(secret), Scope: apikey.Admin}}, false)
	if err != nil {
		panic(err) // that key is always a good one
	}
	c, _ := keys.Find(secret)
	return c
})

// nobody is the caller of what came by no request.
func nobody(ctx context.Context) caller {
	return caller{Caller: inside(), r: new(http.Request).WithContext(ctx)}
}

// withKey gives an idempotency key to what the body of a method publishes. The
// rest of the body stays as it is; of two equal names in it the last one counts.
func withKey(name string, body []byte, key string) []byte {
	if key == "" {
		return body
	}
	switch name {
	case "publish", "broadcast", "push":
		var has struct {
			Key string `json:"idempotency_key"`
			All bool   `json:"all"` // a push to all takes none
		}
		if json.Unmarshal(body, &has) != nil || has.Key != "" || has.All && name == "push" {
			return body
		}
		open := trimRight(bytes.TrimSuffix(trimRight(body), []byte("}")))
		comma := ","
		if bytes.HasSuffix(open, []byte("{")) {
			comma = ""
		}
		quoted, _ := json.Marshal(key) // a string always encodes
		return fmt.Appendf(nil, `%s%s"idempotency_key":%s}`, open, comma, quoted)
	case "batch":
		return batchWithKey(body, key)
	}
	return body
}

func batchWithKey(body []byte, key string) []byte {
	req, err := decode[batchRequest](body)
	if err != nil {
		return body
	}
	for i, command := range req.Commands {
		for name, inner := range command {
			command[name] = withKey(name, inner, key+"."+strconv.Itoa(i))
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(map[string]any{"commands": req.Commands}) != nil {
		return body // which will be refused
	}
	return out.Bytes()
}

// failedWithin tells what failed in a request that was answered in parts. What
// can be mended by repeating comes first.
func failedWithin(result any) error {
	var refused error
	for e := range failures(result) {
		cause := fmt.Errorf("%d %s", e.Code, e.Message)
		if e.Code == codeInternal || e.Code == codeTooManyRequests {
			return fault.New(fault.Unavailable, "partly_failed", "A part of the request failed for now.").Because(cause)
		}
		if refused == nil {
			refused = fault.New(fault.Invalid, "partly_refused", "A part of the request was refused.").Because(cause)
		}
	}
	return refused
}

// What may be different the next time.
const codeInternal, codeTooManyRequests = 100, 111

// failures lists the errors within a result.
func failures(result any) func(yield func(*apiError) bool) {
	return func(yield func(*apiError) bool) {
		switch r := result.(type) {
		case broadcastResult:
			for _, one := range r.Responses {
				if one.Error != nil && !yield(one.Error) {
					return
				}
			}
		case pushResult:
			for _, list := range []map[string]target{r.Users, r.UnionIDs, r.Channels, {"": {Error: r.AllError}}} {
				for _, one := range list {
					if one.Error != nil && !yield(one.Error) {
						return
					}
				}
			}
		case batchReply:
			for _, replies := range r.Replies {
				for _, one := range replies {
					for e := range failures(one) {
						if !yield(e) {
							return
						}
					}
				}
			}
		case *apiError:
			yield(r)
		}
	}
}
