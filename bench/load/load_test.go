//go:build linux

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTargetsOtherMachinesNever(t *testing.T) {
	for _, bad := range []string{"ws://192.0.2.1:80/", "ws://example.com:80/", "wss://127.0.0.1:80/", "http://127.0.0.1:80/", "ws://[::1]:80/", "ws://127.0.0.1/"} {
		if _, _, err := target(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if to, path, err := target("ws://127.0.0.1:8080/connection/websocket?x=1"); err != nil || to.Port() != 8080 || path != "/connection/websocket?x=1" {
		t.Errorf("got %v %q %v", to, path, err)
	}
}

func TestFramesRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535} {
		want := bytes.Repeat([]byte{'x'}, n)
		b := text(want)
		b[1] &= 0x7f // as a server sends it: without a mask
		unmasked := append(bytes.Clone(b[:len(b)-n-4]), want...)
		for cut := range min(len(unmasked), 6) {
			if _, _, size := parse(unmasked[:cut]); size != 0 {
				t.Errorf("%d bytes of %d are taken for a frame", cut, len(unmasked))
			}
		}
		got, op, size := parse(append(unmasked, "rest"...))
		if !bytes.Equal(got, want) || op != 1 || size != len(unmasked) {
			t.Errorf("%d bytes: got %d, opcode %d, size %d", n, len(got), op, size)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1)*time.Millisecond, 1)
	}
	for q, want := range map[float64]time.Duration{.5: 500 * time.Millisecond, .99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want || got > want*104/100 {
			t.Errorf("quantile %v: %v, want about %v", q, got, want)
		}
	}
}

func TestStampFindsTheNewest(t *testing.T) {
	due := time.Now().Add(-time.Hour)
	b := []byte(`{"push":{"pub":{"data":{"t":1}}}}` + "\n" + `{"push":{"pub":{"data":{"t":` + strconv.FormatInt(due.UnixNano(), 10) + `,"p":"x"}}}}`)
	if d := stamp(b); d < time.Hour || d > 2*time.Hour {
		t.Errorf("got %v", d)
	}
	if d := stamp([]byte(`{}`)); d != 0 {
		t.Errorf("nothing was due %v ago", d)
	}
}

// Every mode measures a real minigate, and sees all that it should.
func TestModesAgainstMinigate(t *testing.T) {
	public, ops, pid := startMinigate(t)
	const n = 60
	for mode, deliveries := range map[string]int64{"idle": 0, "storm": 0, "fanout": 5 * n, "rate": 10 * n, "stall": 5 * (n - 10), "unicast": -1, "command": -1} {
		r, err := newRun(options{
			mode: mode, socket: "ws" + strings.TrimPrefix(public, "http") + "/connection/websocket", channel: "feed:load",
			publish: ops + "/api/publish", key: "dev", login: public + "/auth/login",
			n: n, count: 5, stalled: 10, publishers: 2, size: 128, rate: 100, length: 100 * time.Millisecond, loops: 2, pids: strconv.Itoa(pid), sources: 2,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.work(); err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		got := r.result
		if deliveries < 0 && got.Deliveries > 0 && (mode != "unicast" || got.Deliveries == got.Published) {
			deliveries = got.Deliveries // as many as there was time for
		}
		if got.Failed > 0 || got.Deliveries != deliveries || got.ConnectTime <= 0 {
			t.Errorf("%s: %+v, want %d deliveries", mode, got, deliveries)
		}
	}
}

// startMinigate starts the program of this repository as make dev does.
func startMinigate(t *testing.T) (public, ops string, pid int) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "minigate")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", program, "./cmd/minigate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "dev", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--data", t.TempDir())
	cmd.Env = append(os.Environ(), "MINIGATE_SESSION_LOGIN_BURST=1000", "MINIGATE_SESSION_LOGIN_RATE=1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for s := bufio.NewScanner(out); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 4 && f[0] == "phones" {
			return f[1], strings.TrimSuffix(f[3], "/"), cmd.Process.Pid
		}
	}
	t.Fatal("minigate did not say where it listens")
	return "", "", 0
}
