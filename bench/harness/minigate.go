package harness

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Key is the API key of minigate dev.
const Key = "dev"

// Minigate is a minigate that runs as make dev does: with a simulated WeChat.
type Minigate struct {
	*Process

	Public string // http://host:port of the listener for phones
	Ops    string // of the one for the backend
}

// Socket is where sockets connect.
func (m *Minigate) Socket() string {
	return "ws" + strings.TrimPrefix(m.Public, "http") + "/connection/websocket"
}

// channels has the namespace that benchmarks use: what the namespace feed of
// minigate dev offers, and history, for commands to ask for.
const channels = "MINIGATE_CHANNEL_NAMESPACES=[{name: feed, history_size: 100, history_ttl: 300s, force_recovery: true, " +
	"allow_subscribe_for_client: true, allow_history_for_client: true}]"

// unlimited lets everybody log in from one address, as load generators do. Users
// have a personal channel, but none for their unionid: the other servers have no
// such thing.
var unlimited = []string{
	"MINIGATE_SESSION_LOGIN_RATE=0", "MINIGATE_SESSION_LOGIN_APP_RATE=0", "MINIGATE_LOG_LEVEL=warn", "MINIGATE_CLIENT_UNIONID_CHANNEL_NAMESPACE=",
}

// StartMinigate runs the program with its data in the folder data of the run;
// with the same folder it knows the same logins again. environ is added to the
// settings.
func (r *Run) StartMinigate(ctx context.Context, program, data string, environ ...string) (*Minigate, error) {
	cmd := exec.Command(program, "dev", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--data", filepath.Join(r.Dir, data))
	cmd.Env = append(append(os.Environ(), append(unlimited, channels)...), environ...)
	out, wrote, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = wrote
	p, err := r.Start(cmd)
	_ = wrote.Close() // the child has its own
	if err != nil {
		return nil, err
	}
	m := &Minigate{Process: p}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if f := words(lines.Bytes()); len(f) == 4 && f[0] == "phones" {
			m.Public, m.Ops = f[1], strings.TrimSuffix(f[3], "/")
			go func() {
				_, _ = io.Copy(io.Discard, out) // until the process ends
				_ = out.Close()
			}()
			return m, nil
		}
	}
	_ = out.Close()
	r.Stop(p)
	return nil, fmt.Errorf("minigate: %w\n%s", errEmpty, p.Said())
}

// Login is a user who logged in.
type Login struct{ Token, User string }

// LogIn logs in n simulated users with names of their own, at once as many as
// workers.
func LogIn(ctx context.Context, public, name string, n, workers int) ([]Login, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	logins := make([]Login, n)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range next {
				var answer struct {
					Token string
					User  struct{ OpenID string }
				}
				err := Post(ctx, client, public+"/auth/login", "", map[string]any{"code": "sim:" + name + strconv.Itoa(i)}, &answer)
				if err != nil {
					cancel(fmt.Errorf("login: %w", err))
					return
				}
				logins[i] = Login{answer.Token, answer.User.OpenID}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	group.Wait()
	return logins, context.Cause(ctx)
}

// WriteLogins writes them as the load generator reads them: a token and its
// user on each line.
func WriteLogins(file string, logins []Login) error {
	var b bytes.Buffer
	for _, l := range logins {
		b.WriteString(l.Token + " " + l.User + "\n")
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}

// Post sends JSON and reads the answer, which has to be 200 and JSON.
func Post(ctx context.Context, client *http.Client, url, key string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	text, err := PostBytes(ctx, client, url, key, data)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// PostBytes sends bytes and returns the answer, whose status has to be one of
// success.
func PostBytes(ctx context.Context, client *http.Client, url, key string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("status %d: %.100s", res.StatusCode, text)
	}
	return text, err
}

// Programs builds the load generator, and minigate unless a program is given.
func (r *Run) Programs(ctx context.Context, minigate string) (load, program string, err error) {
	packages := []string{"./bench/load", "./cmd/minigate"}
	if minigate != "" {
		packages = packages[:1]
	}
	built, err := r.Build(ctx, packages...)
	if err != nil {
		return "", "", err
	}
	if minigate == "" {
		minigate = built[1]
	}
	return built[0], minigate, nil
}

// Timed is data of 128 bytes or so that tells the load generator how late it is.
func Timed(due time.Time) map[string]any {
	return map[string]any{"t": due.UnixNano(), "p": strings.Repeat("x", 96)}
}

// Call calls a method of the server API. An error in the answer is an error.
func (m *Minigate) Call(ctx context.Context, method string, body any) error {
	var answer struct {
		Error    *struct{ Message string }
		AllError *struct{ Message string } `json:"all_error"`
	}
	if err := Post(ctx, http.DefaultClient, m.Ops+"/api/"+method, Key, body, &answer); err != nil {
		return err
	}
	if e := cmp.Or(answer.Error, answer.AllError); e != nil {
		return fmt.Errorf("%s: %s", method, e.Message)
	}
	return nil
}
