// Package redisclient opens the one Redis client that every part of the
// program shares.
package redisclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A dependency that is away must show within seconds: callers answer 503 and
// recover, they do not hang.
const (
	dialTimeout = time.Second
	ioTimeout   = 3 * time.Second
	poolTimeout = time.Second
)

// Client is what all Redis files of the program share, so that the program
// itself need not name the library.
type Client = redis.UniversalClient

// Open returns a client for s. It does not connect: an unreachable Redis shows
// in the first command. The caller closes it.
//
// Commands are never repeated by the client: a publication whose answer was
// lost may have happened. Contexts bound every command.
func Open(s Settings) redis.UniversalClient { return OpenWaiting(s, 0) }

// OpenWaiting is Open for a client that so many commands at a time make wait
// in Redis: they get connections beside those of all others.
func OpenWaiting(s Settings, waiting int) redis.UniversalClient {
	o := &redis.UniversalOptions{
		Addrs:            slices.Clone(s.Addresses), // a cluster client appends to it
		Username:         s.Username,
		Password:         s.Password.Value(),
		DB:               s.DB,
		MasterName:       s.SentinelMaster,
		IsClusterMode:    s.IsCluster(),
		SentinelPassword: s.SentinelPassword.Value(),

		DialTimeout:           dialTimeout,
		DialerRetries:         1,
		ReadTimeout:           ioTimeout,
		WriteTimeout:          ioTimeout,
		PoolTimeout:           poolTimeout,
		PoolSize:              waiting + 16*runtime.GOMAXPROCS(0),
		MaxRetries:            -1,
		ContextTimeoutEnabled: true,

		// RESP2 needs no handshake that a Redis 6 refuses, and pushes nothing
		// but what was subscribed.
		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if s.TLS {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.NewUniversalClient(o)
}

// go-redis has one logger for all clients, and no lock around it.
func init() { redis.SetLogger(quietLogger{}) }

// quietLogger sends what go-redis says about its pool to the debug log: each
// failure reaches a caller as an error anyway.
type quietLogger struct{}

func (quietLogger) Printf(ctx context.Context, format string, v ...any) {
	if slog.Default().Enabled(ctx, slog.LevelDebug) {
		slog.DebugContext(ctx, "go-redis: "+fmt.Sprintf(format, v...))
	}
}
