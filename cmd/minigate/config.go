package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/ask"
	"github.com/minigate/minigate/gateway/consumer"
	"github.com/minigate/minigate/gateway/proxy"
	"github.com/minigate/minigate/gateway/serverapi"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/tlsfiles"
	"github.com/minigate/minigate/transfer"
)

// Config is the one list of settings: the file, the environment, `minigate
// check` and docs/configuration.md all come from it.
type Config struct {
	Listen            string    `yaml:"listen" default:":8080" doc:"Address of the public listener, where phones connect."`
	TLS               TLS       `yaml:"tls" doc:"Ending TLS here instead of in a proxy."`
	TrustedProxies    []string  `yaml:"trusted_proxies" doc:"Addresses or CIDR ranges of proxies whose X-Forwarded-For is believed, for limits and logs."`
	CORS              rest.CORS `yaml:"cors" doc:"Web pages that may call us. Phones need none of it."`
	VerificationFiles []string  `yaml:"verification_files" doc:"Local *.txt files to serve at the web root, for WeChat's proof of domain ownership."`
	Data              string    `yaml:"data" default:"./data" doc:"Directory for everything kept on this machine: sessions and file records (without Redis), files (without S3), keys."`

	Ops      Ops                       `yaml:"ops" doc:"The listener of operators and of your backend. Never make it public."`
	API      serverapi.Settings        `yaml:"api" doc:"The server API on the ops listener."`
	WeChat   auth.WeChatSettings       `yaml:"wechat" doc:"The mini-programs and how to reach WeChat."`
	Session  auth.SessionSettings      `yaml:"session" doc:"Login sessions."`
	Keys     Keys                      `yaml:"keys" doc:"Keys that protect what is stored."`
	Client   gateway.ClientSettings    `yaml:"client" doc:"Sockets, as seen by their clients. The names are Centrifugo's where the meaning is the same."`
	Channel  gateway.ChannelSettings   `yaml:"channel" doc:"Channels and their rules."`
	Socket   gateway.WebSocketSettings `yaml:"websocket" doc:"The WebSocket transport."`
	Proxy    proxy.Settings            `yaml:"proxy" doc:"wx.request: what goes to which backend."`
	RPC      RPC                       `yaml:"rpc" doc:"Calls over a socket: where they go."`
	Proxies  []ask.Named               `yaml:"proxies" doc:"Webhooks that namespaces choose by name, besides those of client.proxy, channel.proxy and rpc.proxy."`
	Files    transfer.Settings         `yaml:"files" doc:"wx.uploadFile and wx.downloadFile."`
	Redis    redisclient.Settings      `yaml:"redis" doc:"Shared sessions, file records and fan-out between nodes. Without addresses a node stands alone."`
	Webhooks Webhooks                  `yaml:"webhooks" doc:"Calls to your backend: how they are signed and delivered."`
	Shutdown Shutdown                  `yaml:"shutdown" doc:"The graceful end after SIGTERM."`
	Log      Log                       `yaml:"log" doc:"The log, on standard error."`

	Consumers []consumer.Consumer `yaml:"consumers" doc:"Calls of the server API that your backend puts into Redis Streams. The names are Centrifugo's where the meaning is the same."`
}

// RPC are the two ways of an rpc command to the backend.
type RPC struct {
	proxy.RPCSettings
	ask.RPCProxies
}

// TLS names the certificate of the public listener.
type TLS struct {
	CertFile string `yaml:"cert_file" doc:"PEM file with the certificate and its chain; read again when it changes."`
	KeyFile  string `yaml:"key_file" doc:"PEM file with the private key."`

	HandshakeLimit int `yaml:"handshake_limit" default:"500" doc:"How many TLS handshakes may wait for the private key at a time; connections beyond that are closed before anything is computed for them, and while this node is overloaded those beyond a tenth of it. 0 sets no limit."`
}

// Check wants both files, which it reads, or none.
func (t *TLS) Check(report func(path, problem string)) {
	if t.HandshakeLimit < 0 {
		report("handshake_limit", "must not be negative")
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
	case t.CertFile == "" || t.KeyFile == "":
		report("", "cert_file and key_file belong together")
	default:
		if _, err := tlsfiles.Load(t.CertFile, t.KeyFile); err != nil {
			report("", err.Error())
		}
	}
}

// Ops is the listener of operators.
type Ops struct {
	Listen string   `yaml:"listen" default:"127.0.0.1:9000" doc:"Address of the ops listener: console, server API, metrics, health."`
	Hosts  []string `yaml:"hosts" doc:"Host names under which operators open it, besides localhost and plain IP addresses. Other Host headers are refused."`
}

// Keys protect what is stored.
type Keys struct {
	Sealing settings.Secret `yaml:"sealing" doc:"Base64 of 32 bytes that seal what is stored about users: session_key, and what waits for your backend or could not be delivered; required with Redis, otherwise made once in the data directory. Make one with: openssl rand -base64 32"`

	SealingOld []settings.Secret `yaml:"sealing_old" doc:"Sealing keys of before, which still open what they sealed. To change keys on several nodes, first add the new one here on all of them, then swap; an old one can go after 72 hours, or webhooks.queue.give_up_after and max_dead_age together where webhooks are queued: what it sealed until then can never be opened again."`

	Signing []settings.Secret `yaml:"signing" doc:"Keys that sign what the backend can verify, who is calling (X-Minigate-Identity) and what phones carry to it (jws), each base64 of 32 bytes: the first one signs, all of them are published at /.well-known/jwks.json on the ops listener. Required with Redis, otherwise made once in the data directory. Make one with: openssl rand -base64 32"`

	Tickets []auth.TicketKey `yaml:"tickets" doc:"Keys that sign tickets, which stand for a login in URLs, and links to files: the first one signs, all of them verify. Required with Redis, otherwise made once in the data directory. To change keys on several nodes, first add the new one at the end on all of them, then move it to the front; an old one can go when its last link has expired (files.link_max_ttl), or ten minutes later where there are no links."`
}

// Check decodes the keys.
func (k *Keys) Check(report func(path, problem string)) {
	if k.Sealing.Value() != "" {
		if _, err := sealing(k.Sealing); err != nil {
			report("sealing", err.Error())
		}
	}
	checkSigning(k.Signing, report)
	auth.CheckTicketKeys(k.Tickets, func(path, problem string) { report("tickets"+path, problem) })
	for i, old := range k.SealingOld {
		if _, err := sealing(old); err != nil {
			report(fmt.Sprintf("sealing_old[%d]", i), err.Error())
		}
	}
}

func sealing(secret settings.Secret) (key [32]byte, err error) {
	raw, err := base64.StdEncoding.DecodeString(secret.Value())
	if err != nil || len(raw) != len(key) {
		return key, errors.New("must be base64 of exactly 32 bytes")
	}
	return [32]byte(raw), nil
}

// Shutdown says how long a node takes to end.
type Shutdown struct {
	Timeout time.Duration `yaml:"timeout" default:"30s" doc:"How long unfinished uploads and downloads may still take, beyond the time in which sockets are told goodbye (client.shutdown_spread)."`
}

// Log says what the log looks like.
type Log struct {
	Level  string `yaml:"level" default:"info" doc:"debug, info, warn or error."`
	Format string `yaml:"format" default:"text" doc:"text or json."`
	Access bool   `yaml:"access" default:"false" doc:"Log every request on the public listener, without its query string."`
}

// Check knows the few words allowed.
func (l *Log) Check(report func(path, problem string)) {
	if _, err := l.level(); err != nil {
		report("level", "must be debug, info, warn or error")
	}
	if l.Format != "text" && l.Format != "json" {
		report("format", "must be text or json")
	}
}

// Check holds what concerns more than one block.
func (c *Config) Check(report func(path, problem string)) {
	for path, addr := range map[string]string{"listen": c.Listen, "ops.listen": c.Ops.Listen} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			report(path, "must be host:port, such as 127.0.0.1:8080 or :8080")
		}
	}
	if !isLoopback(c.Ops.Listen) && len(c.API.Keys) == 0 {
		report("ops.listen", "is not a loopback address, which needs at least one key in api.keys")
	}
	if _, err := rest.ParseProxies(c.TrustedProxies); err != nil {
		report("trusted_proxies", err.Error())
	}
	for i, file := range c.VerificationFiles {
		if _, err := rest.VerificationFiles([]string{file}); err != nil {
			report(fmt.Sprintf("verification_files[%d]", i), err.Error())
		}
	}
	live := c.gateway()
	live.Check(report)
	if c.Client.Insecure && !isLoopback(c.Listen) {
		report("client.insecure", "lets everybody do everything, so listen must be a loopback address, such as 127.0.0.1:8080")
	}
	c.Proxy.CheckReserved(reservedPaths, func(path, problem string) { report("proxy."+path, problem) })
	c.Proxy.CheckRPC(&c.RPC.RPCSettings, func(path, problem string) { report("rpc."+path, problem) })
	apikey.CheckLength(c.API.Keys, func(path, problem string) { report("api."+path, problem) })
	c.checkWebhooks(report)
	for i, app := range c.WeChat.Apps {
		if c.Files.Inspect.WeChat.Enabled && app.Push.Token.Value() == "" {
			report(fmt.Sprintf("wechat.apps[%d].push.token", i), "is needed where files.check.wechat is enabled: its verdicts come by the message push")
		}
	}
	consumer.Check(c.Consumers, c.Redis.On(), report)
	if c.Redis.On() && c.Keys.Sealing.Value() == "" {
		report("keys.sealing", "is required with Redis, so that every node opens what another one sealed")
	}
	if c.Redis.On() && len(c.Keys.Signing) == 0 {
		report("keys.signing", "is required with Redis, so that the backend finds the key of every node at any of them")
	}
	if c.Redis.On() && len(c.Keys.Tickets) == 0 {
		report("keys.tickets", "is required with Redis, so that every node takes what another one signed")
	}
}

func (c *Config) trusted() []netip.Prefix {
	prefixes, _ := rest.ParseProxies(c.TrustedProxies) // Check has refused anything else
	return prefixes
}

// gateway joins the blocks of the live side.
func (c *Config) gateway() gateway.Settings {
	return gateway.Settings{Client: c.Client, Channel: c.Channel, WebSocket: c.Socket, Proxies: c.Proxies, RPC: c.RPC.RPCProxies}
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

const envPrefix = "MINIGATE_"

func loadConfig(file string, environ []string) (*Config, error) {
	yaml, err := os.ReadFile(file)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			return nil, fmt.Errorf("%s: %w", file, pathErr.Err)
		}
		return nil, err
	}
	cfg := new(Config)
	err = settings.Load(cfg, settings.Source{File: yaml, FileName: file, Environ: environ, Prefix: envPrefix})
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// writeReference writes docs/configuration.md.
func writeReference(w io.Writer) error {
	const intro = `# Configuration

*Generated by ` + "`minigate docs`" + `; do not edit.*

Settings come from defaults, then the YAML file, then the environment: what comes later wins.
An unknown key or MINIGATE_* variable refuses to start and names the nearest known one.
Lists and maps in a variable are written as YAML, for example ` + "`MINIGATE_TRUSTED_PROXIES='[10.0.0.0/8]'`" + `.
A secret may be given as ` + "`file:/path`" + `, which reads it from that file.
Try a configuration with ` + "`minigate check --config FILE`" + `.

`
	if _, err := io.WriteString(w, intro); err != nil {
		return err
	}
	return settings.Markdown(w, new(Config), envPrefix)
}
