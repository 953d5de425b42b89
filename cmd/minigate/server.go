package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/consumer"
	"github.com/minigate/minigate/gateway/proxy"
	"github.com/minigate/minigate/gateway/status"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/health"
	"github.com/minigate/minigate/internal/tlsfiles"
	"github.com/minigate/minigate/transfer"
	"github.com/minigate/minigate/web"
)

// mode is what only code can switch on: no setting reaches it, so that
// `serve` has no way into it.
type mode struct {
	dev bool // accept sim: codes, ask operators for nothing
}

// server is one node: every part, built and not yet running.
type server struct {
	cfg      *Config
	registry *prometheus.Registry
	runtime  *prometheus.Registry // of Go's own metrics: the console, which looks every second, does without them
	health   *health.Registry
	stores   *stores
	hooks    backendHooks

	auth    *auth.Service
	hub     *gateway.Hub
	status  *status.Tracker // nil: nobody wants to know
	proxy   *proxy.Proxy
	files   *transfer.Service
	keys    *apikey.Keys
	api     http.Handler
	console *web.Console
	certs   *tlsfiles.Files // nil without TLS

	consumers *consumer.Consumers

	public, ops *http.Server
	onListening func(public, ops string)  // nil: nobody wants to know
	reload      func(ctx context.Context) // waits for signals to read API keys again; nil: none come
}

// run listens, serves until ctx ends, and ends gracefully.
func (s *server) run(ctx context.Context) error {
	defer s.stores.close()
	public, err := listenTCP(s.cfg.Listen, keepAliveAfter(s.cfg.Client.PingInterval))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ops, err := net.Listen("tcp", s.cfg.Ops.Listen)
	if err != nil {
		_ = public.Close()
		return fmt.Errorf("ops.listen: %w", err)
	}
	publicURL, opsURL := "http://"+public.Addr().String(), "http://"+ops.Addr().String()
	if s.certs != nil {
		public = tls.NewListener(public, s.public.TLSConfig)
		publicURL = "https" + publicURL[len("http"):]
	}

	// The parts outlive ctx: they end after the listeners, in shutdown.
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	var running sync.WaitGroup
	all := s.parts()
	failed := make(chan error, 2+len(all)) // the first one ends the node
	serve := func(name string, srv *http.Server, l net.Listener) {
		running.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s listener: %w", name, err)
			}
		})
	}
	for name, run := range all {
		running.Go(func() {
			if err := run(parts); err != nil && parts.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	serve("public", s.public, public)
	serve("ops", s.ops, ops)
	slog.Info("listening", "public", publicURL, "ops", opsURL, "version", versionText())
	if s.onListening != nil {
		s.onListening(publicURL, opsURL)
	}

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.shutdown()
	stopParts() // which ends the console's streams, too
	s.closeOps()
	running.Wait()
	return err
}

// closeOps lets calls of the server API that are under way finish, briefly.
func (s *server) closeOps() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.ops.Shutdown(ctx) != nil {
		_ = s.ops.Close()
	}
}

// parts are the long-running jobs, each of which ends with its context.
func (s *server) parts() map[string]func(context.Context) error {
	parts := map[string]func(context.Context) error{
		"health":  func(ctx context.Context) error { s.health.Run(ctx); return nil },
		"auth":    s.auth.Run,
		"hooks":   s.hooks.run,
		"hub":     s.hub.Run,
		"proxy":   s.proxy.Run,
		"files":   s.files.Run,
		"console": s.console.Run,

		"consumers": s.consumers.Run,
	}
	if s.status != nil {
		parts["status"] = s.status.Run
	}
	if s.reload != nil {
		parts["reload"] = func(ctx context.Context) error { s.reload(ctx); return nil }
	}
	if s.certs != nil {
		parts["tls"] = func(ctx context.Context) error { s.certs.Run(ctx); return nil }
	}
	return parts
}

// shutdown ends what phones see, in the order that hurts them least: no new
// work, goodbye to the sockets while publications still flow, transfers.
func (s *server) shutdown() {
	began := time.Now()
	s.health.SetStopping()
	budget := s.cfg.Client.ShutdownSpread + s.cfg.Shutdown.Timeout
	slog.Info("stopping", "sockets", s.hub.Self().Clients, "budget", budget)
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()

	var group errgroup.Group
	group.Go(func() error { return s.public.Shutdown(ctx) }) // does not wait for sockets
	group.Go(func() error { return s.hub.Shutdown(ctx) })
	group.Go(func() error { return s.consumers.Shutdown(ctx) })
	if err := group.Wait(); err != nil {
		slog.Warn("stopped before everything was finished", "error", err)
		_ = s.public.Close()
	}
	s.proxy.Close()
	slog.Info("stopped", "after", time.Since(began).Round(time.Millisecond))
}
