package engine

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/fault"
)

var (
	errAway = fault.New(fault.Unavailable, "redis_unavailable", "Redis is away at the moment: try again.").After(time.Second)
	errBusy = fault.New(fault.Unavailable, "redis_overloaded", "Redis cannot keep up at the moment: try again.").After(time.Second)

	// errNotReplicated answers a publication that too few replicas have.
	errNotReplicated = fault.New(fault.Unavailable, "not_replicated", "The publication was delivered, but its replicas did not confirm it in time: repeat it with the same idempotency key.").After(time.Second)
)

// waitFor says how many replicas must have what was written; none if zero.
type waitFor struct {
	replicas int
	timeout  time.Duration
}

// command is one command on its way to Redis.
type command struct {
	cmd    redis.Cmder
	key    string  // decides which master of a cluster gets it
	script *script // where set, cmd is an EVALSHA whose hash is filled in when it is sent
}

func plain(key string, cmd redis.Cmder) command { return command{cmd: cmd, key: key} }

// eval makes a command that runs s with keys, of which there is at least one.
func (s *script) eval(keys []string, args ...any) (command, *redis.Cmd) {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", "", len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(context.Background(), append(all, args...)...)
	return command{cmd: cmd, key: keys[0], script: s}, cmd
}

// server is one Redis master as far as this node knows it.
type server struct {
	client  *redis.Client
	sharded bool
	changed func()                   // it is not the one we knew
	mu      sync.Mutex               // one at a time finds out who it is
	loaded  atomic.Pointer[identity] // nil: not known (any more)
	last    string                   // id; guarded by mu
}

// identity is a server in one reign as master, with the scripts it was given.
type identity struct {
	id    string
	texts map[*script]text
}

// known finds out which server this is, and gives it the scripts, unless that
// is known. stale is what turned out to be wrong, or nil.
func (s *server) known(ctx context.Context, stale *identity) (*identity, error) {
	if i := s.loaded.Load(); i != nil && i != stale {
		return i, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.loaded.Load(); i != nil && i != stale {
		return i, nil
	}
	conn := s.client.Conn() // all of it must reach the same server
	defer func() { _ = conn.Close() }()
	return s.introduce(ctx, conn, false)
}

// introduce asks for the server's identity and loads the scripts, with
// unlessSame only if the identity changed; mu is held.
func (s *server) introduce(ctx context.Context, conn *redis.Conn, unlessSame bool) (*identity, error) {
	id, err := identify(ctx, conn)
	if err != nil {
		return nil, err
	}
	i := s.loaded.Load()
	if unlessSame && i != nil && i.id == id {
		return i, nil
	}
	if i == nil || i.id != id {
		i = &identity{id: id, texts: make(map[*script]text, len(scripts))}
		for _, sc := range scripts {
			i.texts[sc] = sc.on(id, s.sharded)
		}
	}
	pipe := conn.Pipeline()
	for _, t := range i.texts {
		pipe.ScriptLoad(ctx, t.source)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	s.loaded.Store(i)
	if s.last != id {
		s.last = id
		s.changed()
	}
	return i, nil
}

// identify names a master and its reign: the process, and the replication
// history that began when it was made master.
func identify(ctx context.Context, conn *redis.Conn) (string, error) {
	pipe := conn.Pipeline()
	general, replication := pipe.Info(ctx, "server"), pipe.Info(ctx, "replication")
	if _, err := pipe.Exec(ctx); err != nil {
		return "", err
	}
	var run, history, role string
	for line := range strings.Lines(general.Val() + "\n" + replication.Val()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "run_id":
			run = value
		case "master_replid":
			history = value
		case "role":
			role = value
		}
	}
	if role == "slave" {
		return "", errReplica
	}
	sum := sha256.Sum256([]byte(run + " " + history))
	return base64.RawURLEncoding.EncodeToString(sum[:8]), nil
}

var errReplica = errors.New("engine: this Redis is a replica")

// renew looks again who the server is. Its replication history changes not
// only when it is made master.
func (s *server) renew(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn := s.client.Conn()
	defer func() { _ = conn.Close() }()
	if _, err := s.introduce(ctx, conn, true); err != nil {
		s.loaded.Store(nil)
	}
}

// run carries out commands in one round trip, and a second one for scripts
// that the server did not know: it was replaced, or has restarted. Each
// command ends up with its own error; wait fails those that had none.
func (s *server) run(ctx context.Context, cmds []*command, wait waitFor) {
	i, err := s.known(ctx, nil)
	if err != nil {
		fail(cmds, err)
		return
	}
	s.send(ctx, i, cmds, wait)
	var again []*command
	for _, c := range cmds {
		if c.script != nil && redis.HasErrorPrefix(c.cmd.Err(), "NOSCRIPT") {
			again = append(again, c)
		}
	}
	if len(again) == 0 {
		return
	}
	if i, err = s.known(ctx, i); err != nil {
		fail(again, err)
		return
	}
	s.send(ctx, i, again, wait)
}

// send makes one round trip. Whenever it fails the server may be another one
// the next time.
func (s *server) send(ctx context.Context, i *identity, cmds []*command, wait waitFor) {
	pipe := s.client.Pipeline()
	for _, c := range cmds {
		if c.script != nil {
			c.cmd.Args()[1] = i.texts[c.script].hash
		}
		c.cmd.SetErr(nil)
		_ = pipe.Process(ctx, c.cmd) // only queues; never fails
	}
	var waited *redis.IntCmd
	if wait.replicas > 0 {
		waited = redis.NewIntCmd(ctx, "wait", wait.replicas, wait.timeout.Milliseconds())
		_ = pipe.Process(ctx, waited)
	}
	_, err := pipe.Exec(ctx)
	var refused redis.Error
	if err != nil && !errors.As(err, &refused) || redis.HasErrorPrefix(err, "READONLY") {
		s.loaded.CompareAndSwap(i, nil)
	}
	if waited == nil || waited.Err() == nil && int(waited.Val()) >= wait.replicas {
		return
	}
	for _, c := range cmds {
		if c.cmd.Err() == nil {
			c.cmd.SetErr(errNotReplicated)
		}
	}
}

func fail(cmds []*command, err error) {
	for _, c := range cmds {
		c.cmd.SetErr(err)
	}
}

// translate turns an error of go-redis into ours. "ERR" and "WRONGTYPE" are
// Redis refusing a command of ours, a bug; all else (LOADING, READONLY, OOM, a
// broken connection) is Redis being away for us.
func translate(err error) error {
	if errors.Is(err, errNotReplicated) {
		return err
	}
	var refused redis.Error
	if errors.As(err, &refused) && (redis.HasErrorPrefix(err, "ERR") || redis.HasErrorPrefix(err, "WRONGTYPE")) {
		return fault.New(fault.Internal, "redis_refused", "Something went wrong on our side.").Because(err)
	}
	return errAway.Because(err)
}
