//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/minigate/minigate/bench/harness"
)

// channel is the one that all connections subscribe to.
const channel = "feed:load"

// verifyCache has minigate remember logins for as long as a scenario lasts.
// Where nobody comes back it would be memory for nothing.
const verifyCache = "MINIGATE_SESSION_VERIFY_CACHE=1m"

// bench is one run.
type bench struct {
	options
	limit     int // open files of a process
	begun     int // rounds
	servers   []server
	scenarios []scenario
	run       *harness.Run
	programs  map[string]string
	tokens    string // file of logins
	signed    string // file of JWTs for the same users
	results   map[string][]trial
}

// trial is what one server did in one round of a scenario.
type trial struct {
	harness.Result

	number int // of the round, or of the turn in all rounds
}

// lost tells whether something did not arrive, or arrived twice.
func (t trial) lost() bool { return t.Failed > 0 || t.Wanted > 0 && t.Deliveries != t.Wanted }

func (b *bench) close() {
	if b.run != nil {
		b.run.Close()
	}
}

func openFiles() (int, error) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return int(min(limit.Max, 1<<20)), err
}

// prepare builds all programs and logs everybody in: minigate keeps sessions,
// and knows them when it is started again.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.run, err = harness.New(); err != nil {
		return err
	}
	packages := []string{"./cmd/minigate", "./bench/load", "./bench/peers/centrifuge", "./bench/peers/gws", "./bench/peers/raw"}
	if b.minigate != "" {
		packages = packages[1:]
	}
	list, err := b.run.Build(ctx, packages...)
	if err != nil {
		return err
	}
	b.programs = map[string]string{thisBuild: b.minigate, otherBuild: b.other}
	for _, p := range list {
		b.programs[filepath.Base(p)] = p
	}
	if slices.ContainsFunc(b.servers, func(s server) bool { return s.jwt }) {
		b.progress("building Centrifugo, which takes minutes the first time")
		if b.programs["centrifugo"], err = b.run.BuildTool(ctx, "bench/peers/centrifugo", centrifugo); err != nil {
			return err
		}
	}
	return b.logIn(ctx)
}

// logIn logs in as many users as any scenario has, and keeps them for all servers.
func (b *bench) logIn(ctx context.Context) error {
	most := 0
	for _, s := range b.scenarios {
		most = max(most, s.n)
	}
	b.progress("logging in %d users", most)
	logins, err := b.newLogins(ctx, most)
	if err != nil {
		return err
	}
	if b.other != "" {
		err = os.CopyFS(filepath.Join(b.run.Dir, dataOf(otherBuild)), os.DirFS(filepath.Join(b.run.Dir, dataOf(thisBuild))))
	}
	b.tokens, b.signed = filepath.Join(b.run.Dir, "tokens"), filepath.Join(b.run.Dir, "signed")
	return errors.Join(err, writeSigned(b.signed, logins), harness.WriteLogins(b.tokens, logins))
}

// newLogins logs n users in at a minigate, whose folder remembers them.
func (b *bench) newLogins(ctx context.Context, n int) ([]harness.Login, error) {
	m, err := b.run.StartMinigate(ctx, b.programs[thisBuild], dataOf(thisBuild))
	if err != nil {
		return nil, err
	}
	defer b.run.Stop(m.Process)
	return harness.LogIn(ctx, m.Public, "load", n, 128)
}

func (b *bench) progress(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) // only for those who wait
}

// measure runs one scenario once with a server that runs. Trials of the same number
// are compared.
func (b *bench) measure(ctx context.Context, number int, s scenario, r *running) error {
	result, err := b.load(ctx, s, r)
	if err != nil {
		return err
	}
	if result.Failed > 0 {
		b.progress("%s: %s: %d connections failed, the first with: %s", r.of.name, s.name, result.Failed, result.FirstError)
	}
	line := make([]string, 0, len(s.metrics))
	for _, m := range s.metrics {
		line = append(line, m.what+" "+m.show(m.value(trial{Result: result})))
	}
	b.progress("%s %d  %-10s %-10s %s", s.unit(), number+1, s.name, r.of.name, strings.Join(line, ", "))
	key := s.name + " " + r.of.name
	b.results[key] = append(b.results[key], trial{result, number})
	return nil
}

// load runs the load generator on a server.
func (b *bench) load(ctx context.Context, s scenario, r *running) (harness.Result, error) {
	args, err := r.args(b)
	if err != nil {
		return harness.Result{}, err
	}
	result, err := b.run.Load(ctx, b.programs["load"], append(args, s.args()...)...)
	if err != nil {
		return result, fmt.Errorf("%w\n%s", err, r.Said())
	}
	return result, nil
}

// complete tells what was lost, and what was not done at all.
func (b *bench) complete() error {
	var errs []error
	for _, s := range b.scenarios {
		for _, of := range b.servers {
			for _, t := range b.results[s.name+" "+of.name] {
				silent := t.Wanted == 0 && t.Deliveries == 0 && t.Pings == 0 && t.Mode != "handshake"
				if t.lost() || silent || s.deflate && !s.compressed(t) {
					errs = append(errs, fmt.Errorf("%s: %s: %d deliveries of %d with %.0f bytes each, %d pings, %d connections failed %s",
						s.name, of.name, t.Deliveries, t.Wanted, t.Bytes, t.Pings, t.Failed, t.FirstError))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// compressed tells whether messages were: an agreement alone compresses
// nothing.
func (s scenario) compressed(t trial) bool { return t.Deflated && t.Bytes < float64(s.size) }
