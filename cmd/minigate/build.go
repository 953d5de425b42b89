package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/ask"
	"github.com/minigate/minigate/gateway/consumer"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/gateway/proxy"
	"github.com/minigate/minigate/gateway/serverapi"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/health"
	"github.com/minigate/minigate/internal/jws"
	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/tlsfiles"
	"github.com/minigate/minigate/transfer"
	"github.com/minigate/minigate/web"
)

// build makes every part of a node and connects them. Nothing runs yet, and
// nothing that is away is an error.
func build(cfg *Config, m mode) (_ *server, err error) {
	s := &server{cfg: cfg, registry: prometheus.NewRegistry(), runtime: prometheus.NewRegistry(), health: health.New()}
	s.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.runtime.MustRegister(collectors.NewGoCollector())
	s.health.Metrics = health.NewMetrics(s.registry)
	if s.stores, err = openStores(cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.stores.close()
		}
	}()
	if err := s.buildParts(m); err != nil {
		return nil, err
	}
	if err := s.buildListeners(m); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *server) buildParts(m mode) (err error) {
	cfg := s.cfg
	keys, err := sealingKeys(cfg)
	if err != nil {
		return err
	}
	tickets, err := ticketKeys(cfg)
	if err != nil {
		return err
	}
	signer, err := signer(cfg)
	if err != nil {
		return err
	}
	if err := s.buildHooks(keys); err != nil {
		return err
	}
	s.auth, err = auth.New(auth.Options{
		Settings: auth.Settings{WeChat: cfg.WeChat, Session: cfg.Session},
		Store:    s.stores.sessions, SealKeys: keys, TicketKeys: tickets, Signer: signer, AllowSim: m.dev,
		ForwardPush: s.forwardPush, ForwardData: s.forwardData, Webhooks: s.hooks.client, Metrics: auth.NewMetrics(s.registry),
	})
	if err != nil {
		return err
	}
	if err := s.buildLive(signer); err != nil {
		return err
	}
	if s.stores.files, err = transfer.OpenStore(cfg.Files, filepath.Join(cfg.Data, "files")); err != nil {
		return err
	}
	files := cfg.Files
	files.Notify.Owner = files.Notify.Owner && cfg.Client.PersonalChannel.Enabled
	s.files, err = transfer.New(transfer.Options{
		Settings: files, Store: s.stores.files, Ledger: s.stores.ledger, Metrics: transfer.NewMetrics(s.registry),
		Webhook: cfg.Webhooks.Upload, Webhooks: s.hooks.client, Tell: s.fileNews(), Notify: s.notify, SignLink: s.auth.SignLink,
		DownloadWebhook: cfg.Webhooks.Download, Member: s.member, Ticket: s.uploadTicket,
		WeChat: s.auth.WeChat, CheckWebhook: cfg.Webhooks.Check,
	})
	if err != nil {
		return err
	}
	s.auth.OnPush(wechat.EventMediaCheck, s.files.TakeMediaVerdict)
	s.watch()
	return nil
}

// buildLive makes what serves sockets and requests of the backend.
func (s *server) buildLive(signer *jws.Signer) (err error) {
	cfg := s.cfg
	s.proxy, err = proxy.New(cfg.Proxy, proxy.Options{
		Verify: s.verify, Reserved: reservedPaths, OwnCORS: len(cfg.CORS.AllowedOrigins) > 0, RPC: cfg.RPC.RPCSettings, Signer: signer, Metrics: proxy.NewMetrics(s.registry),
		Health: func(string, error) {}, // s.watch has the same news and tells everybody
	})
	if err != nil {
		return err
	}
	connectTokens, subscribeTokens, err := clientTokens(cfg, s.registry)
	if err != nil {
		return err
	}
	live := cfg.gateway()
	backend, err := ask.New(s.hooks.client, live.Hooks())
	if err != nil {
		return err
	}
	o := gateway.Options{
		Settings: live, Ask: backend, Engine: s.stores.engine(&cfg.Redis, s.registry), Verify: s.auth.Verify,
		VerifyTicket: s.verifySocketTicket, Alive: s.auth.Alive, ConnectTokens: connectTokens, SubscribeTokens: subscribeTokens,
		Blocked: s.auth.Blocked, RPC: s.rpc(), Metrics: gateway.NewMetrics(s.registry), Node: thisNode(cfg), Calm: func() { s.auth.Unburden(); giveBack() },
	}
	if err := s.buildStatus(&o); err != nil {
		return err
	}
	s.hub = gateway.New(o)
	s.auth.OnEnd(func(end auth.SessionEnd) {
		// A terminal code: the client does not come back with the same token.
		s.hub.EndSession(end.User.OpenID, end.Fingerprint, gateway.DisconnectForced.Code, goodbye(end.Reason))
	})
	s.auth.OnBlock(func(change auth.BlockChange) {
		if change.Blocked {
			s.hub.EndUser(change.OpenID, gateway.DisconnectBlocked)
		}
	})
	s.auth.OnResume(s.hub.VerifyAll)
	if cfg.Client.Insecure {
		slog.Warn("client.insecure is on: everybody may connect to the sockets and do everything there")
	}
	return nil
}

// rpc is how rpc commands of sockets reach the backend; nil: not at all.
func (s *server) rpc() gateway.RPCFunc {
	if !s.proxy.HasRPC() {
		return nil
	}
	return func(ctx context.Context, c gateway.RPC) (json.RawMessage, error) {
		data, err := s.proxy.Call(ctx, proxy.Call(c))
		if e, ok := errors.AsType[*proxy.BackendError](err); ok {
			return nil, &gateway.ReplyError{Code: e.Code, Message: e.Message, Temporary: e.Temporary}
		}
		return data, err
	}
}

// goodbye tells a socket why its session ended. It is never empty: SDKs take
// a terminal code without a reason as an invitation to come back.
func goodbye(why auth.EndReason) string {
	switch why {
	case auth.EndLogout:
		return "logged out"
	case auth.EndReplaced:
		return "replaced by a newer login"
	case auth.EndBlocked:
		return gateway.DisconnectBlocked.Reason
	}
	return "session " + string(why)
}

// verify finds out whose request it is.
func (s *server) verify(r *http.Request) (*auth.Session, error) {
	token, err := auth.BearerToken(r)
	if err != nil {
		return nil, err
	}
	return s.auth.Verify(r.Context(), token)
}

// verifySocketTicket finds out whose socket it is.
func (s *server) verifySocketTicket(ctx context.Context, ticket string) (*auth.Session, error) {
	return s.auth.VerifyTicket(ctx, ticket, auth.ScopeSocket)
}

// watch names what this node depends on.
func (s *server) watch() {
	if s.stores.redis != nil {
		s.health.Watch("redis", true, s.auth.Ping)
	}
	s.health.Watch("storage", false, s.stores.files.Ping)
	for _, t := range s.proxy.Targets() {
		s.health.Watch("backend "+t.Name, false, t.Check)
	}
	for _, e := range s.hooks.client.Endpoints() {
		s.health.Watch("webhook "+e.Info().Hook, false, e.Check)
	}
}

func (s *server) buildListeners(m mode) (err error) {
	cfg := s.cfg
	if s.keys, err = apikey.New(cfg.API.Keys, m.dev); err != nil {
		return err
	}
	s.keys.Count(apikey.NewMetrics(s.registry))
	api := serverapi.New(s.hub, s.keys, cfg.API, serverapi.NewMetrics(s.registry))
	s.api, s.consumers = api, s.buildConsumers(api)
	s.console = web.New(web.Options{
		Gatherer: s.registry, Health: s.health.Snapshot, Nodes: s.hub.Info, Connections: s.hub.Connections,
		Kick: s.kick, Users: s.userHandlers(), Webhooks: s.webhookHandlers(), Hooks: s.hooks.infos, Alerts: s.auth.Alerts, Keys: s.keys, Open: m.dev, Version: versionText(),
	})
	public, err := s.publicRoutes()
	if err != nil {
		return err
	}
	edge := rest.Edge{TrustedProxies: cfg.trusted(), AccessLog: cfg.Log.Access}
	s.public = newHTTPServer(edge.Wrap(cfg.CORS.Wrap(rest.RefuseOddPaths(refusals(public)))))
	if cfg.TLS.CertFile != "" {
		if s.certs, err = tlsfiles.Load(cfg.TLS.CertFile, cfg.TLS.KeyFile); err != nil {
			return err
		}
		s.certs.Guard(tlsfiles.NewGate(cfg.TLS.HandshakeLimit, s.hub.Overloaded, tlsfiles.NewMetrics(s.registry)))
		s.public.TLSConfig = s.certs.Config()
	}
	// A key may come in the query, and dev's is known to everybody: no page of
	// another site may use it through an operator's browser.
	ops := http.NewCrossOriginProtection().Handler(s.opsRoutes())
	s.ops = newHTTPServer(rest.Edge{}.Wrap(knownHost(cfg.Ops.Hosts, ops)))
	return nil
}

// newHTTPServer bounds what a peer can hold: headers in size and time, idle
// connections in time. A request must have arrived whole within ReadTimeout,
// unless whoever reads its body moves the deadline on, as uploads and proxied
// requests do while bytes come.
func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ConnState:         countUpgrades,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug), // handshake noise from the internet
	}
}

// buildConsumers makes what takes calls of the server API from streams.
func (s *server) buildConsumers(api *serverapi.API) *consumer.Consumers {
	blocked := consumer.Blocked(s.cfg.Consumers)
	if blocked > 0 {
		s.stores.waits = redisclient.OpenWaiting(s.cfg.Redis, blocked)
	}
	return consumer.New(consumer.Options{
		Settings: s.cfg.Consumers, Client: s.stores.waits, Prefix: s.cfg.Redis.Prefix,
		Call: api.Call, Metrics: consumer.NewMetrics(s.registry),
	})
}

func thisNode(cfg *Config) engine.Node {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return engine.Node{UID: rand.Text(), Name: host + " " + cfg.Listen, Version: versionText(), Started: time.Now()}
}

// stores are what a node keeps: in files of its own, or in Redis.
type stores struct {
	db    *bolt.DB           // nil with Redis
	redis redisclient.Client // nil alone
	live  redisclient.Client // of the engine, which nothing else may keep waiting; nil alone
	waits redisclient.Client // of consumers; nil without any
	files transfer.Store

	prefix   string
	sessions auth.Store
	ledger   transfer.Ledger
}

func openStores(cfg *Config) (*stores, error) {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	st := &stores{prefix: cfg.Redis.Prefix}
	if cfg.Redis.On() {
		st.redis, st.live = redisclient.Open(cfg.Redis), redisclient.Open(cfg.Redis)
		st.sessions = auth.NewRedisStore(st.redis, st.prefix)
		st.ledger = transfer.NewRedisLedger(st.redis, st.prefix)
		return st, nil
	}
	db, err := bolt.Open(filepath.Join(cfg.Data, "minigate.db"), 0o600, &bolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("data: another minigate is using %s", cfg.Data)
	}
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	st.db = db
	if st.sessions, err = auth.NewFileStore(db); err == nil {
		st.ledger, err = transfer.NewFileLedger(db)
	}
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("data: %w", err)
	}
	return st, nil
}

func (st *stores) engine(cfg *redisclient.Settings, reg prometheus.Registerer) engine.Engine {
	if st.redis == nil {
		return engine.NewMemory()
	}
	return engine.NewRedis(engine.RedisOptions{
		Client: st.live, Prefix: st.prefix, Metrics: engine.NewMetrics(reg),
		Partitions: cfg.ShardedPubSubPartitions, WaitReplicas: cfg.WaitReplicas, WaitTimeout: cfg.WaitTimeout,
	})
}

func (st *stores) close() {
	var errs []error
	if st.files != nil {
		errs = append(errs, st.files.Close())
	}
	if st.db != nil {
		errs = append(errs, st.db.Close())
	}
	for _, client := range []redisclient.Client{st.redis, st.live, st.waits} {
		if client != nil {
			errs = append(errs, client.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		slog.Error("closing the stores", "error", err)
	}
}

// sealingKeys are the one to seal with and those that open only.
func sealingKeys(cfg *Config) ([][32]byte, error) {
	current, err := sealingKey(cfg)
	if err != nil {
		return nil, err
	}
	keys := [][32]byte{current}
	for _, old := range cfg.Keys.SealingOld {
		key, err := sealing(old)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// sealingKey is the configured one, or one that is made once and kept beside
// the data it protects.
func sealingKey(cfg *Config) ([32]byte, error) {
	if cfg.Keys.Sealing.Value() != "" {
		return sealing(cfg.Keys.Sealing)
	}
	return dataKey(cfg.Data, "seal.key")
}
