package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/samplebackend"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/wxsim"
)

// What dev is configured with. Nothing here is a secret: it binds loopback
// addresses only.
const (
	devAppID  = "wx0000000000000dev"
	devSecret = "development-only"
	devKey    = "dev"
)

const devConfig = `
wechat:
  base_url: %q
  apps:
    - {appid: ` + devAppID + `, secret: ` + devSecret + `}
proxy:
  routes:
    - {prefix: /api/, upstream: %q}
files:
  max_size: 2GiB
client:
  shutdown_spread: 1s
  overload_delay: 0s
`

// devChannels are the two namespaces to play with.
const devChannels = `
channel:
  namespaces:
    - name: room
      presence: true
      join_leave: true
      force_push_join_leave: true
      history_size: 100
      history_ttl: 300s
      force_recovery: true
      allow_subscribe_for_client: true
      allow_publish_for_client: true
      allow_presence_for_client: true
      allow_history_for_client: true
    - name: feed
      history_size: 100
      history_ttl: 300s
      force_recovery: true
      allow_subscribe_for_client: true
`

func cmdDev(ctx context.Context, flags *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	listen := flags.String("listen", "127.0.0.1:8080", "public `address`, loopback only")
	ops := flags.String("ops", "127.0.0.1:9000", "ops `address`, loopback only")
	data := flags.String("data", "./data", "`directory` for sessions and files")
	if err := parse(flags, args); err != nil {
		return err
	}
	for name, addr := range map[string]string{"listen": *listen, "ops": *ops} {
		if !isLoopback(addr) {
			return fmt.Errorf("--%s %s: dev binds loopback addresses only, such as 127.0.0.1:8080", name, addr)
		}
	}
	sim := wxsim.New(wxsim.Options{Apps: []wxsim.App{{AppID: devAppID, Secret: devSecret}}})
	wechat, err := startSide(sim)
	if err != nil {
		return err
	}
	defer wechat.stop()
	backend, err := startSide(samplebackend.New())
	if err != nil {
		return err
	}
	defer backend.stop()

	cfg := new(Config)
	err = settings.Load(cfg, settings.Source{
		File:     fmt.Appendf(nil, devConfig+devChannels, wechat.url, backend.url),
		FileName: "the settings of dev", Environ: os.Environ(), Prefix: envPrefix,
	})
	if err != nil {
		return err
	}
	cfg.Listen, cfg.Ops.Listen, cfg.Data = *listen, *ops, *data
	// Added here since no configuration may have so short a key.
	cfg.API.Keys = append(cfg.API.Keys, apikey.Key{Name: "dev", Key: devKey, Scope: apikey.Admin})
	setLogger(cfg.Log, stderr)
	s, err := build(cfg, mode{dev: true})
	if err != nil {
		return err
	}
	s.onListening = func(public, ops string) {
		say(stdout, "%s", devBanner(public, ops, wechat.url, backend.url, *data))
	}
	return s.run(ctx)
}

// side is a small server beside the gateway, on a loopback port of its own.
type side struct {
	url    string
	server *http.Server
	done   chan struct{}
}

func startSide(h http.Handler) (*side, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &side{
		url:    "http://" + l.Addr().String(),
		server: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("a server of dev", "error", err)
		}
	}()
	return s, nil
}

func (s *side) stop() {
	_ = s.server.Close()
	<-s.done
}

// devBanner tells a newcomer what runs where and what to paste.
func devBanner(public, ops, wechat, backend, data string) string {
	ws := "ws" + strings.TrimPrefix(public, "http")
	return strings.NewReplacer("PUBLIC", public, "OPS", ops, "WECHAT", wechat, "BACKEND", backend, "WS", ws, "DATA", data).Replace(`
minigate runs, with a simulated WeChat and a sample backend.

  phones     PUBLIC      console    OPS/
  WeChat     WECHAT (simulated; the code sim:NAME logs in as NAME)
  backend    BACKEND (sample)
  data       DATA

Paste these into another terminal, the first one first:

  login      TOKEN=$(curl -s PUBLIC/auth/login -d '{"code":"sim:alice"}' | sed 's/.*"token":"\([^"]*\)".*/\1/'); echo $TOKEN
  request    curl -H "Authorization: Bearer $TOKEN" PUBLIC/api/whoami
  socket     (sleep 1; curl -s -H 'X-API-Key: dev' OPS/api/push -d '{"all":true,"data":"hello"}') & node --experimental-websocket -e 'const s=new WebSocket("WS/connection/websocket",["bearer."+process.argv[1]]);s.onopen=()=>s.send("{\"id\":1,\"connect\":{}}");s.onmessage=m=>m.data=="{}"?s.send("{}"):console.log(m.data)' $TOKEN
  upload     FILE=$(echo hello | curl -s -H "Authorization: Bearer $TOKEN" -F 'file=@-;filename=hello.txt' PUBLIC/files); echo $FILE
  download   curl -H "Authorization: Bearer $TOKEN" PUBLIC$(echo $FILE | sed 's/.*"url":"\([^"]*\)".*/\1/')

Press Ctrl-C to stop.
`)
}
