//go:build linux

package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/minigate/minigate/bench/harness"
)

// centrifugo is built as the module in bench/peers/centrifugo says: it has far
// too many dependencies to share one with the others.
const centrifugo = "github.com/centrifugal/centrifugo/v6"

// tokenKey signs the tokens that Centrifugo knows its users by.
const tokenKey = "load"

// object is one of JSON.
type object = map[string]any

// startCentrifugo starts the whole server, set up to do what minigate does: a
// personal channel of each user, and namespaces with history, positions and
// recovery. All else is as it comes.
func (b *bench) startCentrifugo(ctx context.Context, s scenario) (*running, error) {
	addr, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	followed := object{"history_size": 100, "history_ttl": "300s", "force_recovery": true, "force_positioning": true}
	personal, feed := object{"allow_user_limited_channels": true}, object{"name": "feed", "allow_subscribe_for_client": true, "allow_history_for_client": true}
	for name, value := range followed {
		personal[name], feed[name] = value, value
	}
	config, err := json.Marshal(object{
		"http_server": object{"address": host, "port": port},
		"log":         object{"level": "error"},
		"usage_stats": object{"disabled": true},
		"http_api":    object{"key": harness.Key},
		"websocket":   object{"compression": s.deflate},
		"client": object{
			"token":                              object{"hmac_secret_key": tokenKey},
			"subscribe_to_user_personal_channel": object{"enabled": true},
			"ping_interval":                      s.ping.String(), "pong_timeout": (s.ping / 3).String(),
		},
		"channel": object{"without_namespace": personal, "namespaces": []object{feed}},
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.run.Dir, "centrifugo-"+port+".json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	p, err := b.run.Start(exec.Command(b.programs["centrifugo"], "--config", file))
	if err != nil {
		return nil, err
	}
	return &running{
		Process: p, socket: "ws://" + addr + "/connection/websocket", publish: "http://" + addr + "/api/publish",
	}, p.Await(ctx, addr)
}

// writeSigned writes tokens for the same users as logins are of: Centrifugo
// knows no logins, but tokens that its owner's backend has signed.
func writeSigned(file string, logins []harness.Login) error {
	var b []byte
	for _, l := range logins {
		b = fmt.Appendf(b, "%s %s\n", signed(l.User), l.User)
	}
	return os.WriteFile(file, b, 0o600)
}

// signed is a JSON Web Token with HMAC and SHA-256 (RFC 7519).
func signed(user string) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(`{"sub":`+strconv.Quote(user)+`}`))
	sum := hmac.New(sha256.New, []byte(tokenKey))
	sum.Write([]byte(text))
	return text + "." + encode(sum.Sum(nil))
}
