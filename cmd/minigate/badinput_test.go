package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestBadInput sends every endpoint what it cannot use and wants the
// documented error, and the program alive afterwards.
func TestBadInput(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+"proxy: {routes: [{prefix: /api/, upstream: "+backend(t).URL+"}]}\n")
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	token := "Bearer " + me.Token
	unknown := "Bearer mg_" + strings.Repeat("A", 43)
	type headers = map[string]string
	multipart := func() headers {
		return headers{"Authorization": token, "Content-Type": "multipart/form-data; boundary=b"}
	}
	for _, c := range []struct {
		name, method, path string
		header             headers
		body               string
		status             int
		code               string
	}{
		{"login: no body", "POST", "/auth/login", nil, "", 400, "body_missing"},
		{"login: not JSON", "POST", "/auth/login", nil, "code=1", 400, "json_invalid"},
		{"login: wrong type", "POST", "/auth/login", nil, `{"code":7}`, 400, "json_invalid"},
		{"login: no code", "POST", "/auth/login", nil, `{}`, 400, "code_missing"},
		{"login: too long", "POST", "/auth/login", nil, `{"code":"` + strings.Repeat("c", 5000) + `"}`, 413, "body_too_large"},
		{"login: unknown code", "POST", "/auth/login", nil, `{"code":"nope"}`, 401, "code_invalid"},
		{"login: unknown app", "POST", "/auth/login", nil, `{"code":"x","appid":"wxffffffffffffffff"}`, 400, "appid_unknown"},
		{"login: GET", "GET", "/auth/login", nil, "", 405, "method_not_allowed"},
		{"session: no token", "GET", "/auth/session", nil, "", 401, "token_missing"},
		{"session: malformed token", "GET", "/auth/session", headers{"Authorization": "Bearer x"}, "", 401, "token_invalid"},
		{"session: unknown token", "GET", "/auth/session", headers{"Authorization": unknown}, "", 401, "token_expired"},
		{"request: no token", "GET", "/api/whoami", nil, "", 401, "token_missing"},
		{"request: malformed token", "GET", "/api/whoami", headers{"Authorization": "Basic eA=="}, "", 401, "token_invalid"},
		{"request: dots", "GET", "/api/../auth/session", headers{"Authorization": token}, "", 400, "path_invalid"},
		{"request: encoded dots", "GET", "/api/%2e%2e/admin", headers{"Authorization": token}, "", 400, "path_invalid"},
		{"request: double slash", "GET", "/api//admin", headers{"Authorization": token}, "", 400, "path_invalid"},
		{"request: encoded slash", "GET", "/api/a%2fb", headers{"Authorization": token}, "", 400, "path_invalid"},
		{"request: backslash", "GET", `/api/a%5cb`, headers{"Authorization": token}, "", 400, "path_invalid"},
		{"request: socket", "GET", "/api/ws", headers{"Authorization": token, "Connection": "Upgrade", "Upgrade": "websocket"}, "", 400, "upgrade_refused"},
		{"upload: no token", "POST", "/files", nil, "x", 401, "token_missing"},
		{"upload: not a form", "POST", "/files", headers{"Authorization": token, "Content-Type": "text/plain"}, "x", 415, "multipart_required"},
		{"upload: no file", "POST", "/files", multipart(), "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n", 400, "file_missing"},
		{"upload: cut", "POST", "/files", multipart(), "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\nhalf", 400, "upload_torn"},
		{"upload: too large", "POST", "/files?size=999999999999", multipart(), "--b--\r\n", 413, "file_too_large"},
		{"download: no token", "GET", "/files/x", nil, "", 401, "token_missing"},
		{"download: no such file", "GET", "/files/x", headers{"Authorization": token}, "", 404, "file_not_found"},
		{"download: hostile id", "GET", "/files/%00", headers{"Authorization": token}, "", 400, "path_invalid"},
		{"delete: no such file", "DELETE", "/files/x", headers{"Authorization": token}, "", 404, "file_not_found"},
		{"nothing there", "GET", "/nowhere", nil, "", 404, "not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, raw := callRaw(t, c.method, p.Public+c.path, c.header, c.body)
			var answer struct {
				Error struct {
					Code, Message string
					RequestID     string `json:"request_id"`
				}
			}
			if err := json.Unmarshal(raw, &answer); err != nil || status != c.status || answer.Error.Code != c.code {
				t.Errorf("status %d, want %d %s: %s", status, c.status, c.code, raw)
			}
			if answer.Error.RequestID == "" || answer.Error.Message == "" {
				t.Errorf("no message or request id: %s", raw)
			}
		})
	}
	for name, c := range map[string]struct {
		path   string
		header headers
		body   string
		status int
		want   string
	}{
		"api: no key":         {"/api/push", nil, `{}`, 401, ""},
		"api: wrong key":      {"/api/push", headers{"X-API-Key": "wrong"}, `{}`, 401, ""},
		"api: no body":        {"/api/publish", headers{"X-API-Key": testAPIKey}, ``, 400, ""},
		"api: not JSON":       {"/api/publish", headers{"X-API-Key": testAPIKey}, `{`, 400, ""},
		"api: unknown method": {"/api/nothing", headers{"X-API-Key": testAPIKey}, `{}`, 404, ""},
		"api: no data":        {"/api/publish", headers{"X-API-Key": testAPIKey}, `{"channel":"a"}`, 200, `"code":107`},
		"api: no namespace":   {"/api/publish", headers{"X-API-Key": testAPIKey}, `{"channel":"no:a","data":1}`, 200, `"code":102`},
		"api: no target":      {"/api/push", headers{"X-API-Key": testAPIKey}, `{"data":1}`, 200, `"code":107`},
	} {
		t.Run(name, func(t *testing.T) {
			status, raw := callRaw(t, "POST", p.Ops+c.path, c.header, c.body)
			if status != c.status || !strings.Contains(string(raw), c.want) {
				t.Errorf("status %d, want %d with %s: %s", status, c.status, c.want, raw)
			}
		})
	}
	if status, _ := callRaw(t, "GET", p.Public+"/auth/session", headers{"Authorization": token}, nil); status != http.StatusOK {
		t.Errorf("after all that: status %d", status)
	}
	noSecrets(t, p, me.Token)
}

// TestOpsListenerIsGuarded asks for what needs a key, and under a name that
// is not ours.
func TestOpsListenerIsGuarded(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, strings.Replace(baseConfig(t, wechatURL), "ops:\n", "ops:\n  hosts: [Console.Example.com]\n", 1))
	eventually(t, "everything was looked at once", func() bool {
		status, _ := callRaw(t, "GET", p.Ops+"/readyz", nil, nil)
		return status == 200
	})
	for path, want := range map[string]int{
		"/": 200, "/healthz": 200, "/readyz": 200, "/metrics": 200,
		"/console/events": 401, "/debug/pprof/": 401, "/debug/pprof/heap": 401,
	} {
		if status, _ := callRaw(t, "GET", p.Ops+path, nil, nil); status != want {
			t.Errorf("%s: status %d, want %d", path, status, want)
		}
	}
	if status, _ := callRaw(t, "GET", p.Ops+"/debug/pprof/", map[string]string{"X-API-Key": testAPIKey}, nil); status != 200 {
		t.Errorf("pprof with an admin key: status %d", status)
	}
	for host, want := range map[string]int{
		"evil.example.com": 403, "127.0.0.1.evil.example.com": 403, "evil.example.com:9000": 403,
		"localhost": 200, "LocalHost:9000": 200, "10.0.0.7": 200, "[::1]:9000": 200, "console.example.com:9000": 200,
	} {
		req, err := http.NewRequest("GET", p.Ops+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("under the name %s: status %d, want %d", host, res.StatusCode, want)
		}
	}
}
