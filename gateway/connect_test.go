package gateway

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func TestConnectReply(t *testing.T) {
	h := startHub(t, nil)
	_, reply := h.login("alice")
	for _, part := range []string{
		`"version":"test"`, `"ping":25`, `"pong":true`,
		`"#alice":{"recoverable":true,"epoch":"`, `"union:#union-alice":{"recoverable":true,"epoch":"`,
	} {
		if !strings.Contains(reply, part) {
			t.Errorf("no %s in %s", part, reply)
		}
	}
	if strings.Contains(reply, "expires") {
		t.Errorf("login tokens slide, the connection must not expire: %s", reply)
	}
}

// Where a token may come from, and what comes of good and bad ones.
func TestCredentials(t *testing.T) {
	welcome := `{"id":1,"connect":{"client":*}`
	expired := `{"id":1,"error":{"code":109,"message":"token expired"}}`
	away := `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`
	for name, tc := range map[string]struct {
		dial    dialOptions
		token   string
		want    string
		wantEnd *Disconnect
	}{
		"command":                   {token: "alice", want: welcome},
		"header":                    {dial: dialOptions{header: bearer("alice")}, want: welcome},
		"subprotocol":               {dial: dialOptions{subprotocols: []string{"centrifuge-json", "bearer.alice"}}, want: welcome},
		"all of one user":           {dial: dialOptions{header: bearer("alice"), subprotocols: []string{"bearer.alice/2"}}, token: "alice/3", want: welcome},
		"other user in command":     {dial: dialOptions{header: bearer("alice")}, token: "bob", wantEnd: DisconnectInvalidToken},
		"other user in handshake":   {dial: dialOptions{header: bearer("alice"), subprotocols: []string{"bearer.bob"}}, wantEnd: DisconnectInvalidToken},
		"none":                      {wantEnd: DisconnectBadRequest},
		"malformed":                 {token: "malformed", wantEnd: DisconnectInvalidToken},
		"malformed header":          {dial: dialOptions{header: bearer("malformed")}, wantEnd: DisconnectInvalidToken},
		"malformed subprotocol":     {dial: dialOptions{subprotocols: []string{"bearer.malformed"}}, wantEnd: DisconnectInvalidToken},
		"expired":                   {token: "expired", want: expired},
		"expired header":            {dial: dialOptions{header: bearer("expired")}, want: expired},
		"sessions away":             {token: "away", want: away},
		"sessions away for header":  {dial: dialOptions{header: bearer("away")}, want: away},
		"protobuf in query":         {dial: dialOptions{query: "?format=protobuf", binary: true}, token: "alice", want: welcome},
		"protobuf as subprotocol":   {dial: dialOptions{protobuf: true}, token: "alice", want: welcome},
		"protocol version in query": {dial: dialOptions{query: "?cf_protocol_version=v2"}, token: "alice", want: welcome},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, nil)
			w := h.dial(tc.dial)
			if !strings.HasPrefix(name, "malformed ") && name != "other user in handshake" {
				w.send(`{"connect":{"token":"` + tc.token + `"},"id":1}`)
			}
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
			} else {
				w.want(tc.want)
			}
		})
	}
}

func TestSubprotocolEcho(t *testing.T) {
	h := startHub(t, nil)
	for name, tc := range map[string]struct {
		offered []string
		want    string
	}{
		"none":             {nil, ""},
		"json":             {[]string{"centrifuge-json"}, "centrifuge-json"},
		"json and token":   {[]string{"bearer.alice", "centrifuge-json"}, "centrifuge-json"},
		"token alone":      {[]string{"bearer.alice"}, "bearer.alice"},
		"unknown":          {[]string{"mqtt"}, ""},
		"unknown and json": {[]string{"mqtt", "centrifuge-json"}, "centrifuge-json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, resp, err := h.tryDial(dialOptions{subprotocols: tc.offered})
			if resp == nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestOrigin(t *testing.T) {
	listed := []string{"https://h5.example.com", "https://*.example.org"}
	for _, tc := range []struct {
		origin  string
		allowed []string
		want    bool
	}{
		{"https://anything.example", nil, true},
		{"", listed, true},
		{"weapp://wechat-game-runtime", listed, true},
		{"https://servicewechat.com", listed, true},
		{"https://H5.example.com", listed, true},
		{"https://a.example.org", listed, true},
		{"https://evil.example", listed, false},
		{"https://h5.example.com.evil.example", listed, false},
		{"null", listed, false},
	} {
		if got := originAllowed(tc.origin, tc.allowed); got != tc.want {
			t.Errorf("origin %q: got %v", tc.origin, got)
		}
	}
	h := startHub(t, func(s *Settings) { s.WebSocket.AllowedOrigins = listed })
	_, resp, err := h.tryDial(dialOptions{header: http.Header{"Origin": {"https://evil.example"}}})
	if err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("foreign origin: %v", err)
	}
}

func TestConnectionLimits(t *testing.T) {
	t.Run("node", func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.ConnectionLimit = 1 })
		h.login("alice")
		_, resp, err := h.tryDial(dialOptions{})
		if err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("second connection: %v %v", resp, err)
		}
	})
	t.Run("node, during the handshake", func(t *testing.T) {
		r := newRegistry(NewMetrics(prometheus.NewRegistry()))
		if r.admit(1) != nil || r.admit(1) != refusedLimit {
			t.Error("handshakes under way do not count")
		}
		if r.leave(); r.admit(1) != nil {
			t.Error("a handshake that failed counts")
		}
	})
	t.Run("handshakes", func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.ConnectionRateLimit = 1 })
		h.login("alice")
		if _, resp, err := h.tryDial(dialOptions{}); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("second handshake: %v", err)
		}
	})
	t.Run("user", func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.UserConnectionLimit = 1 })
		h.login("alice")
		h.login("bob")
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"alice"}}`)
		w.wantEnd(DisconnectConnectionLimit)
	})
	t.Run("server-side channels", func(t *testing.T) {
		h := startHub(t, func(s *Settings) { s.Client.ChannelLimit = 1 })
		w := h.dial(dialOptions{})
		w.send(`{"id":1,"connect":{"token":"alice"}}`)
		w.wantEnd(DisconnectChannelLimit)
	})
}

func TestEndSession(t *testing.T) {
	h := startHub(t, nil)
	one, _ := h.login("alice/1")
	two, _ := h.login("alice/2")
	session, err := h.verifyToken(t.Context(), "alice/1")
	if err != nil {
		t.Fatal(err)
	}
	h.EndSession("alice", session.Fingerprint, 3500, "logged out")
	one.wantEnd(&Disconnect{3500, "logged out"})
	two.sync()
	h.EndSession("alice", auth.Fingerprint{}, 3500, "nobody")
	two.sync()
}

// refresh has its own codes, see Centrifugo: 109 would end the SDK for good.
func TestRefresh(t *testing.T) {
	for name, tc := range map[string]struct {
		token   string
		want    string
		wantEnd *Disconnect
	}{
		"same session":  {token: "alice/1", want: `{"id":2,"refresh":{}}`},
		"other session": {token: "alice/2", want: `{"id":2,"refresh":{}}`},
		"other user":    {token: "bob", wantEnd: DisconnectInvalidToken},
		"malformed":     {token: "malformed", wantEnd: DisconnectInvalidToken},
		"empty":         {token: "", wantEnd: DisconnectBadRequest},
		"expired":       {token: "expired", wantEnd: DisconnectExpired},
		"sessions away": {token: "away", want: `{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}`},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, nil)
			w, _ := h.login("alice/1")
			w.send(`{"id":2,"refresh":{"token":"` + tc.token + `"}}`)
			if tc.wantEnd != nil {
				w.wantEnd(tc.wantEnd)
			} else {
				w.want(tc.want)
			}
		})
	}
	t.Run("shows the claims of the new session", func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice/1")
		w.send(`{"id":2,"refresh":{"token":"alice/vip"}}`)
		w.want(`{"id":2,"refresh":{}}`)
		if info := h.clients.list()[0].infoIn("room:a"); string(info.ConnInfo) != `{"vip":true}` {
			t.Errorf("others see %s", info.ConnInfo)
		}
	})
	t.Run("moves to the new session", func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice/1")
		w.send(`{"id":2,"refresh":{"token":"alice/2"}}`)
		w.want(`{"id":2,"refresh":{}}`)
		old, _ := h.verifyToken(t.Context(), "alice/1")
		now, _ := h.verifyToken(t.Context(), "alice/2")
		h.EndSession("alice", old.Fingerprint, 3500, "logged out")
		w.sync()
		h.EndSession("alice", now.Fingerprint, 3500, "logged out")
		w.wantEnd(&Disconnect{3500, "logged out"})
	})
}

// A session that ends while its connection is being made is noticed: by
// EndSession, or by the check right after.
func TestSessionEndsDuringConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil)
		w, _ := h.login("alice")
		h.setToken("alice", fault.New(fault.Unauthenticated, "token_expired", "Expired."))
		begin := time.Now()
		w.wantEnd(DisconnectExpired)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("noticed after %v", took)
		}
	})
}

// Some clients send their first frame together with the handshake.
func TestEarlyFrame(t *testing.T) {
	h := startHub(t, nil)
	conn, err := h.listener.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	command := `{"id":1,"connect":{"token":"alice"}}` + strings.Repeat(" ", 600) // more than the read buffer holds
	frame := []byte{0x81, 0x80 | 126, byte(len(command) >> 8), byte(len(command)), 0, 0, 0, 0}
	_, err = conn.Write([]byte("GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + string(frame) + command))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for buf := make([]byte, 4096); !strings.Contains(got, `"connect":{"client":`); {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got += string(buf[:n])
	}
}
