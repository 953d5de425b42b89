package harness

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net"
	"os/exec"
)

// Redis is a redis-server that stores nothing on disk.
type Redis struct {
	*Process

	Addr string
}

// StartRedis starts one.
func (r *Run) StartRedis(ctx context.Context) (*Redis, error) {
	addr, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p, err := r.Start(exec.Command("redis-server", "--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", r.Dir))
	if err != nil {
		return nil, err
	}
	return &Redis{p, addr}, p.Await(ctx, addr)
}

// Shared are the settings of nodes that share r: where it is, and keys of this
// run.
func (r *Redis) Shared() []string {
	key := func() string {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails
		return base64.StdEncoding.EncodeToString(b)
	}
	return []string{
		"MINIGATE_REDIS_ADDRESSES=[" + r.Addr + "]",
		"MINIGATE_KEYS_SEALING=" + key(),
		"MINIGATE_KEYS_SIGNING=[" + key() + "]",
		"MINIGATE_KEYS_TICKETS=[{id: bench, secret: " + key() + "}]",
	}
}
