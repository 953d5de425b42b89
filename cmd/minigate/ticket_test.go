package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// newTicket asks for a ticket as a phone does.
func newTicket(t *testing.T, base, token, scope string) string {
	t.Helper()
	var answer struct {
		Ticket    string
		ExpiresIn int `json:"expires_in"`
	}
	status := call(t, "POST", base+"/auth/ticket", bearer(token), fmt.Sprintf(`{"scope":%q}`, scope), &answer)
	if status != 200 || answer.Ticket == "" || answer.ExpiresIn != 300 {
		t.Fatalf("ticket for %s: status %d, %+v", scope, status, answer)
	}
	return answer.Ticket
}

// socketWith opens a socket with a ticket, sends a connect command without a
// token and returns the answer.
func socketWith(t *testing.T, base, ticket string) (*testSocket, frame) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+"/connection/websocket?ticket="+ticket, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	s := &testSocket{t: t, conn: conn}
	s.send(`{"id":1,"connect":{}}`)
	return s, s.read()
}

// TestTickets uses a ticket wherever one is taken; none of them is ever logged.
func TestTickets(t *testing.T) {
	sim, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL) + "log: {access: true, level: debug}\n"
	p := startServe(t, config)
	me, other := login(t, p.Public, sim.NewCode(testAppID, "alice")), login(t, p.Public, sim.NewCode(testAppID, "bob"))

	uploads := newTicket(t, p.Public, me.Token, "upload")
	const form = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--x--\r\n"
	var file fileAnswer
	status := call(t, "POST", p.Public+"/files?ticket="+uploads, map[string]string{"Content-Type": "multipart/form-data; boundary=x"}, form, &file)
	if status != 201 || file.Size != 5 {
		t.Fatalf("upload with a ticket: status %d, %+v", status, file)
	}

	reads := newTicket(t, p.Public, me.Token, "file:"+file.ID+":read")
	foreign := newTicket(t, p.Public, other.Token, "file:"+file.ID+":read")
	path := "/files/" + file.ID
	for name, tc := range map[string]struct {
		method, target string
		want           int
	}{
		"read":                   {"GET", path + "?ticket=" + reads, 200},
		"read again":             {"GET", path + "?ticket=" + reads, 200},
		"under its name":         {"GET", path + "/a.txt?ticket=" + reads, 200},
		"head":                   {"HEAD", path + "?ticket=" + reads, 200},
		"of somebody else":       {"GET", path + "?ticket=" + foreign, 404},
		"for uploads":            {"GET", path + "?ticket=" + uploads, 401},
		"delete":                 {"DELETE", path + "?ticket=" + reads, 401},
		"session":                {"GET", "/auth/session?ticket=" + reads, 401},
		"ticket from a ticket":   {"POST", "/auth/ticket?ticket=" + reads, 401},
		"logout with a ticket":   {"POST", "/auth/logout?ticket=" + reads, 401},
		"other file, not itself": {"GET", "/files/" + strings.Repeat("A", len(file.ID)) + "?ticket=" + reads, 401},
	} {
		if status, body := callRaw(t, tc.method, p.Public+tc.target, nil, nil); status != tc.want {
			t.Errorf("%s: status %d, want %d: %s", name, status, tc.want, body)
		}
	}

	socket := newTicket(t, p.Public, me.Token, "socket")
	s, f := socketWith(t, p.Public, socket)
	if f.Connect == nil {
		t.Fatalf("connect with a ticket was answered %+v", f)
	}
	if _, f := socketWith(t, p.Public, socket); f.Error == nil || f.Error.Code != 109 {
		t.Errorf("a used ticket was answered %+v", f)
	}
	if _, f := socketWith(t, p.Public, reads); f.Push == nil || f.Push.Disconnect == nil || f.Push.Disconnect.Code != 3500 {
		t.Errorf("a ticket for something else was answered %+v", f)
	}
	if status, _ := callRaw(t, "POST", p.Public+"/auth/logout", bearer(me.Token), nil); status != 204 {
		t.Fatalf("logout: status %d", status)
	}
	if f := s.read(); f.Push == nil || f.Push.Disconnect == nil {
		t.Errorf("after the logout the socket heard %+v", f)
	}
	if status, _ := callRaw(t, "GET", p.Public+path+"?ticket="+reads, nil, nil); status != 401 {
		t.Errorf("a ticket outlived its session: status %d", status)
	}
	for _, ticket := range []string{uploads, reads, foreign, socket} {
		if strings.Contains(p.Output(), ticket[strings.IndexByte(ticket, '.'):]) {
			t.Error("a ticket was logged")
		}
	}
}

// TestTicketKeyIsMadeOnce restarts a node: its tickets still work.
func TestTicketKeyIsMadeOnce(t *testing.T) {
	sim, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL)
	p := startServe(t, config)
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	file := upload(t, p.Public, me.Token, "a.txt", strings.NewReader("hello"))
	ticket := newTicket(t, p.Public, me.Token, "file:"+file.ID+":read")
	p.stop(t)
	_, data, _ := strings.Cut(config, "data: ")
	data, _, _ = strings.Cut(data, "\n")
	info, err := os.Stat(filepath.Join(data, "ticket.key"))
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 32 {
		t.Errorf("the key file: %v, %v", info, err)
	}
	p = startServe(t, config)
	if status, _ := callRaw(t, "GET", p.Public+"/files/"+file.ID+"?ticket="+ticket, nil, nil); status != 200 {
		t.Errorf("after a restart: status %d", status)
	}
}
