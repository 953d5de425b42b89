package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cli runs a command in this process and returns its exit status and output.
func cli(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // whatever starts is to end at once
	status = run(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

func writeConfig(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "minigate.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const goodConfig = `
wechat:
  apps:
    - appid: wx0123456789abcdef
      secret: 0123456789abcdef0123456789abcdef
api:
  keys:
    - {name: backend, key: a-key-of-enough-length, scope: publish}
`

func TestCommandLine(t *testing.T) {
	good := writeConfig(t, goodConfig)
	for name, c := range map[string]struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		"nothing":           {nil, 2, "minigate serve", ""},
		"help":              {[]string{"help"}, 0, "minigate check", ""},
		"help on a command": {[]string{"help", "push"}, 0, "", "the argument or standard input"},
		"help, flags":       {[]string{"push", "-h"}, 0, "", "-idempotency-key key"},
		"help on verbs":     {[]string{"help", "connections"}, 0, "", "minigate connections list|show"},
		"help on a verb":    {[]string{"connections", "list", "-h"}, 0, "", "-channel channel"},
		"help on nothing":   {[]string{"help", "srve"}, 2, "", `unknown command "srve"`},
		"unknown command":   {[]string{"srve"}, 2, "", `unknown command "srve"`},
		"version":           {[]string{"version"}, 0, "minigate ", ""},
		"extra argument":    {[]string{"version", "now"}, 2, "", `unexpected argument "now"`},
		"unknown flag":      {[]string{"serve", "--dev"}, 2, "", "not defined: -dev"},
		"no config":         {[]string{"serve"}, 2, "", "--config FILE is missing"},
		"no such file":      {[]string{"check", "--config", "/nowhere/x.yaml"}, 1, "", "/nowhere/x.yaml: no such file"},
		"check":             {[]string{"check", "--config", good}, 0, "appid: wx0123456789abcdef", ""},
		"dev off loopback":  {[]string{"dev", "--listen", "0.0.0.0:8080"}, 1, "", "loopback addresses only"},
		"dev ops":           {[]string{"dev", "--ops", ":9000"}, 1, "", "loopback addresses only"},
		"healthcheck, dead": {[]string{"healthcheck", "--ops", "127.0.0.1:1"}, 1, "", "127.0.0.1:1/readyz"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := cli(c.args...)
			if status != c.status || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("status %d, want %d\nstdout: %s\nstderr: %s", status, c.status, stdout, stderr)
			}
		})
	}
}

func TestCheckMasksSecrets(t *testing.T) {
	_, stdout, _ := cli("check", "--config", writeConfig(t, goodConfig))
	for _, secret := range []string{"0123456789abcdef0123456789abcdef", "a-key-of-enough-length"} {
		if strings.Contains(stdout, secret) {
			t.Errorf("check prints the secret %s", secret)
		}
	}
	if !strings.Contains(stdout, "•••") {
		t.Errorf("no masked secret in:\n%s", stdout)
	}
}

// TestCheckNamesEveryMistake gives one broken file per mistake.
func TestCheckNamesEveryMistake(t *testing.T) {
	for name, c := range map[string]struct{ config, want string }{
		"unknown key":           {goodConfig + "lisen: :8080\n", `minigate.yaml:9`},
		"nearest key":           {goodConfig + "lisen: :8080\n", `listen`},
		"bad duration":          {goodConfig + "client:\n  ping_interval: soon\n", "client.ping_interval"},
		"no app":                {"log: {level: info}\n", "wechat.apps"},
		"http to WeChat":        {strings.Replace(goodConfig, "wechat:\n", "wechat:\n  base_url: http://api.weixin.qq.com\n", 1), "wechat.base_url"},
		"short key":             {strings.Replace(goodConfig, "a-key-of-enough-length", "short", 1), "api.keys[0].key"},
		"open ops":              {"wechat:\n  apps: [{appid: wx0123456789abcdef, secret: s}]\nops: {listen: 0.0.0.0:9000}\n", "ops.listen"},
		"bad address":           {goodConfig + "listen: 8080\n", "listen"},
		"streams, no redis":     {goodConfig + "consumers: [{name: a, redis_stream: {streams: [x]}}]\n", "consumers[0].enabled"},
		"redis without a key":   {goodConfig + "redis: {addresses: ['127.0.0.1:6379']}\n", "keys.sealing"},
		"redis, no ticket key":  {goodConfig + "redis: {addresses: ['127.0.0.1:6379']}\nkeys: {sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}\n", "keys.tickets"},
		"redis, no signing key": {goodConfig + "redis: {addresses: ['127.0.0.1:6379']}\nkeys: {sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}\n", "keys.signing"},
		"bad signing key":       {goodConfig + "keys: {signing: [aGVsbG8=]}\n", "keys.signing[0]"},
		"short push key":        {strings.Replace(goodConfig, "      secret:", "      push: {token: AAAAA, encoding_aes_key: short}\n      secret:", 1), "wechat.apps[0].push.encoding_aes_key"},
		"bad ticket key":        {goodConfig + "keys: {tickets: [{id: a, secret: aGVsbG8=}]}\n", "keys.tickets[0].secret"},
		"short JWT secret":      {goodConfig + "client: {token: {hmac_secret_key: short}}\n", "client.token.hmac_secret_key"},
		"JWT keys over http":    {goodConfig + "client: {subscription_token: {enabled: true, jwks_public_endpoint: 'http://id.example.com/'}}\n", "client.subscription_token.jwks_public_endpoint"},
		"bad sealing key":       {goodConfig + "keys: {sealing: aGVsbG8=}\n", "keys.sealing"},
		"half of TLS":           {goodConfig + "tls: {cert_file: a.pem}\n", "belong together"},
		"a taken prefix":        {goodConfig + "proxy: {routes: [{prefix: /auth/, upstream: 'http://127.0.0.1:1'}]}\n", "proxy.routes[0].prefix"},
		"half of a history":     {goodConfig + "channel: {namespaces: [{name: room, history_size: 5}]}\n", "history_ttl"},
		"a bad proxy":           {goodConfig + "trusted_proxies: [everyone]\n", "trusted_proxies"},
		"log level":             {goodConfig + "log: {level: loud}\n", "log.level"},
		"s3 without a bucket":   {goodConfig + "files: {store: s3}\n", "files.s3"},
		"an unsigned question":  {goodConfig + "webhooks: {upload: {endpoint: 'https://b.example.com/'}}\n", "webhooks.upload.endpoint"},
		"unsigned news":         {goodConfig + "webhooks: {files: {endpoint: 'https://b.example.com/'}}\n", "webhooks.files.endpoint"},
		"an endless link":       {goodConfig + "files: {link_max_ttl: 10000h}\n", "files.link_max_ttl"},
		"an unsigned proxy":     {goodConfig + "client: {proxy: {connect: {enabled: true, endpoint: 'https://b.example.com/'}}}\n", "client.proxy.connect.endpoint: needs a key in webhooks.keys"},
		"a proxy of no name":    {goodConfig + "rpc: {upstream: 'http://b', without_namespace: {proxy_enabled: true, proxy_name: nn}}\n", `rpc.without_namespace.proxy_name: "nn" is none of proxies`},
		"an unsigned webhook":   {goodConfig + "webhooks: {wechat_push: {endpoint: 'https://b.example.com/'}}\n", "webhooks.wechat_push.endpoint"},
		"an unsigned status":    {goodConfig + "webhooks: {user_status: {endpoint: 'https://b.example.com/'}}\n", "webhooks.user_status.endpoint"},
		"a status too late":     {goodConfig + "webhooks: {user_status: {grace: 2h}}\n", "webhooks.user_status.grace"},
		"a status too large":    {goodConfig + "webhooks: {user_status: {batch: 101}}\n", "webhooks.user_status.batch"},
		"not YAML":              {"wechat: [\n", "minigate.yaml"},
		"no certificate":        {goodConfig + "tls: {cert_file: /nowhere/a.pem, key_file: /nowhere/a.key}\n", "minigate.yaml:9: tls: "},
		"no verification file":  {goodConfig + "verification_files: [/nowhere/MP_verify_a.txt]\n", "verification_files[0]"},
		"a text for a number":   {goodConfig + "redis: {db: 0123456789abcdef0123456789abcdef}\n", "redis.db"},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, stderr := cli("check", "--config", writeConfig(t, c.config))
			if status != 1 || !strings.Contains(stderr, c.want) {
				t.Errorf("status %d, want 1 and %q in:\n%s", status, c.want, stderr)
			}
			if strings.Contains(stderr, "a-key-of-enough-length") {
				t.Errorf("a secret stands in:\n%s", stderr)
			}
		})
	}
}

func TestUnknownVariableRefuses(t *testing.T) {
	t.Setenv("MINIGATE_LISTN", ":1")
	status, _, stderr := cli("check", "--config", writeConfig(t, goodConfig))
	if status != 1 || !strings.Contains(stderr, "MINIGATE_LISTN") || !strings.Contains(stderr, "MINIGATE_LISTEN") {
		t.Errorf("status %d:\n%s", status, stderr)
	}
}

func TestEnvironmentWins(t *testing.T) {
	t.Setenv("MINIGATE_LISTEN", "127.0.0.1:7777")
	t.Setenv("MINIGATE_CLIENT_PING_INTERVAL", "11s")
	_, stdout, stderr := cli("check", "--config", writeConfig(t, goodConfig+"listen: :1111\n"))
	if !strings.Contains(stdout, "listen: 127.0.0.1:7777") || !strings.Contains(stdout, "ping_interval: 11s") {
		t.Errorf("%s%s", stdout, stderr)
	}
}

// TestServeRefusesSimCodes makes sure that the simulator's codes work in dev
// alone, even where a simulator is what serve talks to.
func TestServeRefusesSimCodes(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL))
	status, raw := callRaw(t, "POST", p.Public+"/auth/login", nil, `{"code":"sim:alice"}`)
	if status != 401 || !strings.Contains(string(raw), "code_invalid") {
		t.Errorf("status %d: %s", status, raw)
	}
}

// TestDev starts what `make dev` starts and follows what it prints.
func TestDev(t *testing.T) {
	p := start(t, "dev", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--data", t.TempDir())
	banner := func() string { return p.Output() }
	eventually(t, "the banner", func() bool { return strings.Contains(banner(), "Ctrl-C") })
	for _, want := range []string{p.Public + "/auth/login", p.Ops + "/api/push", p.Public + "/api/whoami", p.Public + "/files"} {
		if !strings.Contains(banner(), want) {
			t.Errorf("the banner does not name %s:\n%s", want, banner())
		}
	}
	alice := login(t, p.Public, "sim:alice")
	again := login(t, p.Public, "sim:alice")
	if alice.User != again.User || alice.Token == again.Token || alice.User.UnionID == "" {
		t.Errorf("two logins of one user: %+v and %+v", alice, again)
	}
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/debug/pprof/"} {
		if status, _ := callRaw(t, "GET", p.Ops+path, nil, nil); status != 200 {
			t.Errorf("%s: status %d, want 200 without asking for anything", path, status)
		}
	}
	var answer struct{ Result struct{ Sockets int } }
	s := connect(t, p.Public, alice.Token)
	call(t, "POST", p.Ops+"/api/push", map[string]string{"X-API-Key": "dev"}, `{"users":["`+alice.User.OpenID+`"],"data":[1, 2]}`, &answer)
	if got := s.publication(); answer.Result.Sockets != 1 || got != "[1, 2]" {
		t.Errorf("push was meant for %d sockets and arrived as %s", answer.Result.Sockets, got)
	}
	foreign := map[string]string{"Origin": "https://evil.example.com", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
	if status, _ := callRaw(t, "POST", p.Ops+"/api/push?api_key=dev", foreign, `{"all":true,"data":1}`); status != 403 {
		t.Errorf("a page of another site pushes with dev's key: status %d, want 403", status)
	}
	if status := runHealthcheck(p); status != 0 {
		t.Errorf("healthcheck: status %d", status)
	}
	p.stop(t)
}

func runHealthcheck(p *program) int {
	status := run(context.Background(), []string{"healthcheck", "--ops", strings.TrimPrefix(p.Ops, "http://")}, new(bytes.Buffer), new(bytes.Buffer))
	return status
}

// TestReadmeConfiguration checks the example that newcomers start from.
func TestReadmeConfiguration(t *testing.T) {
	for _, readme := range []string{"../../README.md", "../../README.zh-CN.md"} {
		text, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		_, example, _ := strings.Cut(string(text), "```yaml\n")
		example, _, found := strings.Cut(example, "```")
		if !found {
			t.Fatalf("%s has no example", readme)
		}
		example = strings.ReplaceAll(example, "file:/run/secrets/", "a-secret-of-enough-length-")
		if status, _, stderr := cli("check", "--config", writeConfig(t, example)); status != 0 {
			t.Errorf("%s:\n%s", readme, stderr)
		}
	}
}
