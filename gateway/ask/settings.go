package ask

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

// Default is the name of the proxy that a namespace asks unless it names one.
const Default = "default"

const (
	minTimeout    = 10 * time.Millisecond
	maxTimeout    = 30 * time.Second
	maxNames      = 32      // headers in one list
	maxTransforms = 100     // of one proxy
	maxStatic     = 8 << 10 // bytes of static headers
)

// Proxy is one webhook.
type Proxy struct {
	Endpoint        string        `yaml:"endpoint" doc:"URL at your backend that is called with POST, signed with the keys in webhooks."`
	Timeout         time.Duration `yaml:"timeout" default:"1s" doc:"How long one call may take; between 10ms and 30s."`
	HTTPHeaders     []string      `yaml:"http_headers" doc:"Headers of the client's handshake that are passed on. X-Real-Ip and X-Forwarded-For carry the address that trusted_proxies leads to, whatever the client sent. Login tokens of ours are never passed on."`
	EmulatedHeaders []string      `yaml:"emulated_headers" doc:"Headers that clients may give in their connect command, as SDKs do that cannot set any; one of http_headers that is really there wins."`
	IncludeMeta     bool          `yaml:"include_connection_meta" default:"false" doc:"Send what the connection's token or the connect proxy said in meta; for a login: appid, unionid, device and claims."`
	Binary          bool          `yaml:"binary_encoding" default:"false" doc:"Send data in base64, as b64data."`
	HTTP            HTTP          `yaml:"http" doc:"More of HTTP."`
}

// HTTP is what proxies say about HTTP.
type HTTP struct {
	StaticHeaders map[string]settings.Secret `yaml:"static_headers" doc:"Headers that are always sent, such as a key of your own; headers of the client win where they are allowed."`
	Transforms    []Transform                `yaml:"status_to_code_transforms" doc:"What answers with a status other than 200 mean to the client; without a rule they are error 100."`
}

// Transform says what one status means.
type Transform struct {
	Status       int               `yaml:"status_code" doc:"The HTTP status; 200 has a meaning already."`
	ToError      TransformToError  `yaml:"to_error" doc:"The client is told an error."`
	ToDisconnect TransformToGoAway `yaml:"to_disconnect" doc:"The client is disconnected."`
}

// TransformToError is an error for the client.
type TransformToError struct {
	Code      int    `yaml:"code" default:"0" doc:"100 to 1999; yours begin at 1000."`
	Message   string `yaml:"message" default:"" doc:"For people, at most 1024 bytes."`
	Temporary bool   `yaml:"temporary" default:"false" doc:"The same may succeed later: SDKs try again."`
}

// TransformToGoAway is the end of the connection.
type TransformToGoAway struct {
	Code   int    `yaml:"code" default:"0" doc:"3000 to 4999; yours begin at 4000. Clients come back after 3000-3499 and 4000-4499."`
	Reason string `yaml:"reason" default:"" doc:"For people, at most 123 bytes."`
}

// ConnectProxy is asked who connects.
type ConnectProxy struct {
	Enabled   bool `yaml:"enabled" default:"false" doc:"Ask about connections that come without any token."`
	ForLogins bool `yaml:"for_logins" default:"false" doc:"Ask about logged in users, too: the answer may add channels, info, data and meta, or turn them away. It cannot make them somebody else."`
	Proxy
}

// RefreshProxy is asked whether connections go on.
type RefreshProxy struct {
	Enabled bool `yaml:"enabled" default:"false" doc:"Ask when a connection expires; its client is not told that it does."`
	Proxy
}

// ClientProxies are those about connections.
type ClientProxies struct {
	Connect ConnectProxy `yaml:"connect" doc:"Who connects."`
	Refresh RefreshProxy `yaml:"refresh" doc:"Whether a connection that expires goes on."`
}

// ChannelProxies are the default ones about channels.
type ChannelProxies struct {
	Subscribe  Proxy `yaml:"subscribe" doc:"Who may subscribe, where a namespace has subscribe_proxy_enabled."`
	Publish    Proxy `yaml:"publish" doc:"What clients publish, where a namespace has publish_proxy_enabled."`
	SubRefresh Proxy `yaml:"sub_refresh" doc:"Whether a subscription that expires goes on, where a namespace has sub_refresh_proxy_enabled."`
}

// Hint says what becomes of an option of Centrifugo that is none here.
func (*ChannelProxies) Hint(key string) string {
	if key == "subscribe_stream" {
		return "this proxy of Centrifugo speaks gRPC alone and is not offered"
	}
	return ""
}

// Named is a proxy that namespaces choose by its name.
type Named struct {
	Name string `yaml:"name" doc:"Two or more letters, digits, dashes, underscores or dots; default is the one of the block."`
	Proxy
}

// RPCProxies are those of rpc commands.
type RPCProxies struct {
	Proxy            Proxy          `yaml:"proxy" doc:"Webhook that answers rpc commands where proxy_enabled says so, in Centrifugo's shape. It wins over upstream."`
	WithoutNamespace RPCRules       `yaml:"without_namespace" doc:"Methods whose name has no namespace."`
	Namespaces       []RPCNamespace `yaml:"namespaces" doc:"Methods called name:something."`
}

// RPCRules say who answers the methods of a namespace.
type RPCRules struct {
	ProxyEnabled bool   `yaml:"proxy_enabled" default:"false" doc:"The webhook answers these."`
	ProxyName    string `yaml:"proxy_name" default:"" doc:"One of proxies; empty or default takes rpc.proxy."`
}

// RPCNamespace is a named set of rules.
type RPCNamespace struct {
	Name string `yaml:"name" doc:"What stands before the first colon of a method's name: two or more letters, digits, dashes, underscores or dots."`
	RPCRules
}

// Hint says what becomes of an option of Centrifugo that is none here.
func (*RPCProxies) Hint(key string) string {
	switch key {
	case "namespace_boundary":
		return "this option is Centrifugo's; here the namespace of a method always ends at its first colon"
	case "ping":
		return "this option is Centrifugo's and not offered yet"
	}
	return ""
}

var nameFormat = regexp.MustCompile(`^[-a-zA-Z0-9_.]{2,64}$`)

// GoodName tells whether a namespace or a proxy may be called that.
func GoodName(name string) bool { return nameFormat.MatchString(name) }

// Hint says what becomes of an option of Centrifugo that is none here.
func (*Proxy) Hint(key string) string {
	switch key {
	case "grpc", "grpc_metadata":
		return "this option is Centrifugo's for gRPC, which is not spoken here: use an endpoint with http:// or https://"
	case "static_http_headers", "static_headers":
		return "these are http.static_headers"
	case "status_to_code_transforms":
		return "these are http.status_to_code_transforms"
	}
	return ""
}

// Hint says what becomes of an option of Centrifugo that is none here.
func (*HTTP) Hint(key string) string {
	if key == "tls" {
		return "this option is Centrifugo's and not offered: certificates of backends are verified with the system's roots"
	}
	return ""
}

// Check finds mistakes in one proxy.
func (p *Proxy) Check(report func(path, problem string)) {
	if p.Endpoint != "" {
		if strings.HasPrefix(p.Endpoint, "grpc://") {
			report("endpoint", "must begin with http:// or https://: Centrifugo's gRPC proxies are not offered")
		} else if problem := webhook.CheckEndpoint(p.Endpoint); problem != "" {
			report("endpoint", problem)
		}
	}
	if p.Timeout < minTimeout || p.Timeout > maxTimeout {
		report("timeout", "must be between 10ms and 30s")
	}
	checkNames("http_headers", p.HTTPHeaders, report)
	checkNames("emulated_headers", p.EmulatedHeaders, report)
	size := 0
	for name, value := range p.HTTP.StaticHeaders {
		if problem := badHeader(name); problem != "" {
			report("http.static_headers", problem)
		}
		if !validValue(value.Value()) {
			report("http.static_headers", fmt.Sprintf("the value of %s has characters that no header may have", name))
		}
		size += len(name) + len(value.Value())
	}
	if size > maxStatic {
		report("http.static_headers", "must have at most 8KiB together")
	}
	p.checkTransforms(report)
}

func checkNames(path string, names []string, report func(path, problem string)) {
	if len(names) > maxNames {
		report(path, fmt.Sprintf("must be at most %d", maxNames))
	}
	for _, name := range names {
		if problem := badHeader(name); problem != "" {
			report(path, problem)
		}
	}
}

// reserved are headers that belong to the call itself, or to one connection.
var reserved = []string{
	"Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host",
	"Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// badHeader says why a header cannot be sent along, "" if it can.
func badHeader(name string) string {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !validName(name):
		return fmt.Sprintf("%q is not the name of a header", name)
	case slices.Contains(reserved, canonical), strings.HasPrefix(canonical, "X-Minigate-"), strings.HasPrefix(canonical, "Sec-Websocket-"):
		return fmt.Sprintf("%s belongs to the call itself and cannot be set", canonical)
	}
	return ""
}

func (p *Proxy) checkTransforms(report func(path, problem string)) {
	if len(p.HTTP.Transforms) > maxTransforms {
		report("http.status_to_code_transforms", fmt.Sprintf("must be at most %d", maxTransforms))
	}
	seen := map[int]bool{}
	for i, t := range p.HTTP.Transforms {
		at := fmt.Sprintf("http.status_to_code_transforms[%d]", i)
		switch {
		case t.Status < 100 || t.Status > 599 || t.Status == http.StatusOK:
			report(at+".status_code", "must be an HTTP status other than 200")
		case seen[t.Status]:
			report(at+".status_code", fmt.Sprintf("%d is there twice", t.Status))
		}
		seen[t.Status] = true
		switch toError, toDisconnect := t.ToError != (TransformToError{}), t.ToDisconnect != (TransformToGoAway{}); {
		case toError == toDisconnect:
			report(at, "must have either to_error or to_disconnect")
		case toError && !goodErrorCode(t.ToError.Code):
			report(at+".to_error.code", "must be between 100 and 1999")
		case toError && (len(t.ToError.Message) > maxMessage || t.ToError.Message == ""):
			report(at+".to_error.message", "must have 1 to 1024 bytes")
		case toDisconnect && !goodDisconnectCode(t.ToDisconnect.Code):
			report(at+".to_disconnect.code", "must be between 3000 and 4999")
		case toDisconnect && (len(t.ToDisconnect.Reason) > maxReason || t.ToDisconnect.Reason == ""):
			report(at+".to_disconnect.reason", "must have 1 to 123 bytes")
		}
	}
}

// Check finds mistakes in the block.
func (s *RPCProxies) Check(report func(path, problem string)) {
	seen := map[string]bool{}
	for i, n := range s.Namespaces {
		at := fmt.Sprintf("namespaces[%d].name", i)
		switch {
		case !GoodName(n.Name):
			report(at, "must have two or more letters, digits, dashes, underscores or dots")
		case seen[n.Name]:
			report(at, fmt.Sprintf("%q is there twice", n.Name))
		}
		seen[n.Name] = true
	}
}

// Rules finds the rules of a method; known is false for an unknown namespace.
func (s *RPCProxies) Rules(method string) (r RPCRules, known bool) {
	name, _, named := strings.Cut(method, ":")
	if !named {
		return s.WithoutNamespace, true
	}
	for _, n := range s.Namespaces {
		if n.Name == name {
			return n.RPCRules, true
		}
	}
	return r, false
}
