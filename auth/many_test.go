package auth

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/internal/testdeps"
)

// fillVariable makes the test binary a child that fills the file it names and
// goes on writing until it is killed.
const fillVariable = "AUTH_TEST_FILL"

// manySessions is a million in the long form of the test.
func manySessions() int {
	if testdeps.Long() {
		return 1_000_000
	}
	return 20_000
}

// numbered is a session whose token follows from its number.
func numbered(i int) (token string, ses *Session) {
	raw := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
	token = tokenPrefix + strict.EncodeToString(raw[:])
	ses = newSession(fmt.Sprintf("oe2XtRXfTnmdacGy5es%09d", i), 720*time.Hour)
	ses.Fingerprint = sha256.Sum256([]byte(token))
	ses.Claims, ses.Channels = nil, nil
	return token, ses
}

// fill opens sessions from one number up to another, each of its own user, so
// many at a time.
func fill(ctx context.Context, s Store, atOnce, from, to int) error {
	sealed := make([]byte, 57) // of a session_key
	var next atomic.Int64
	next.Store(int64(from))
	var all sync.WaitGroup
	errs := make([]error, atOnce)
	for w := range errs {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < to && errs[w] == nil; i = int(next.Add(1)) - 1 {
				_, ses := numbered(i)
				_, errs[w] = s.Open(ctx, &Opening{Session: *ses, Key: SealedKey{Issued: ses.Created, Sealed: sealed}, Limit: 10})
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// fillUntilKilled is the child's main.
func fillUntilKilled(path string) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	s, err := NewFileStore(db)
	if err != nil {
		return err
	}
	for n := manySessions(); ; n += 1000 {
		from := 0
		if n > manySessions() {
			from = n - 1000
		}
		if err := fill(context.Background(), s, 256, from, n); err != nil {
			return err
		}
		fmt.Println("filled")
	}
}

func TestManySessionsInAFile(t *testing.T) {
	path, n := filepath.Join(t.TempDir(), "auth.db"), manySessions()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fillVariable+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	t.Logf("%d logins took %v", n, time.Since(start).Round(time.Millisecond))
	_ = child.Process.Kill() // in the middle of the next transactions
	_ = child.Wait()         // it was killed
	if line != "filled\n" {
		t.Fatalf("the child said %q, %v", line, readErr)
	}
	start = time.Now()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	store, err := NewFileStore(db)
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, store, func(o *Options) { o.Settings.Session.VerifyCache = 0 })
	token, _ := numbered(n / 2)
	e.wantVerify(token, "")
	t.Logf("the first token was verified %v after a kill -9", time.Since(start).Round(time.Microsecond))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of file per session, each of its own user with a keyring", info.Size()/int64(n))
	verifyMany(t, e, n)
}

func TestManySessionsInRedis(t *testing.T) {
	server, n := testdeps.StartRedis(t, "--appendonly", "yes"), manySessions()
	store := NewRedisStore(newRedisClient(t, server.Addr), "test")
	used := func() int {
		m := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(store.client.Info(t.Context(), "memory").Val())
		if m == nil {
			t.Fatal("redis does not say how much memory it uses")
		}
		bytes, _ := strconv.Atoi(m[1]) // digits
		return bytes
	}
	before, start := used(), time.Now()
	if err := fill(t.Context(), store, 16, 0, n); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d logins took %v", n, time.Since(start).Round(time.Millisecond))
	t.Logf("%d bytes of memory per session, each of its own user with a keyring", (used()-before)/n)
	e := newEnv(t, store, func(o *Options) { o.Settings.Session.VerifyCache = 0 })
	verifyMany(t, e, n)
	start = time.Now()
	server.Kill()
	server.Restart()
	token, _ := numbered(0)
	e.wantVerify(token, "")
	t.Logf("the first token was verified %v after a kill -9 of redis", time.Since(start).Round(time.Millisecond))
}

// verifyMany looks sessions up in the store, at random, and prints how long
// that takes.
func verifyMany(t *testing.T, e *env, n int) {
	t.Helper()
	took := make([]time.Duration, 2000)
	for i := range took {
		token, _ := numbered(rand.IntN(n))
		start := time.Now()
		if _, err := e.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	t.Logf("verify from the store: median %v, 99%% within %v", took[len(took)/2], took[len(took)*99/100])
}

// childMain runs the child and says whether this process is one.
func childMain(stderr io.Writer) bool {
	path := os.Getenv(fillVariable)
	if path == "" {
		return false
	}
	if err := fillUntilKilled(path); err != nil {
		_, _ = fmt.Fprintln(stderr, strings.TrimSpace(err.Error()))
	}
	return true
}
