package auth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/rest"
)

func TestAdminHandlers(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	post := func(h rest.Handler, body string, status int) (string, map[string]any) {
		t.Helper()
		w, v := call(h, http.MethodPost, "", body)
		if w.Code != status {
			t.Errorf("%s answered %d %s, want %d", body, w.Code, w.Body, status)
		}
		return w.Body.String(), v
	}
	token, s := e.mustLogin("ann")
	user := `{"user":"` + s.User.OpenID + `"`
	body, v := post(e.ServeListSessions, user+"}", 200)
	list, _ := v["sessions"].([]any)
	if len(list) != 1 || strings.Contains(body, token) || strings.Contains(body, s.Fingerprint.String()) {
		t.Fatalf("listed %s", body)
	}
	id := list[0].(map[string]any)["id"].(string)
	post(e.ServeRevokeSessions, user+`}`, 400)
	post(e.ServeRevokeSessions, user+`,"session":"`+id+`","all":true}`, 400)
	post(e.ServeRevokeSessions, user+`,"session":"ffffffffffffffff"}`, 404)
	if body, _ := post(e.ServeRevokeSessions, user+`,"session":"`+id+`"}`, 200); body != `{"ended":1}` {
		t.Errorf("revoked %s", body)
	}
	e.wantVerify(token, "token_expired")
	e.mustLogin("ann")
	e.mustLogin("ann")
	if body, _ := post(e.ServeRevokeSessions, user+`,"all":true}`, 200); body != `{"ended":2}` {
		t.Errorf("revoked %s", body)
	}
	if body, _ := post(e.ServeListSessions, user+"}", 200); body != `{"sessions":[]}` {
		t.Errorf("listed %s", body)
	}

	for _, bad := range []string{
		`,"expires_in":-1}`, `,"expires_in":4000000000}`, `,"until":"2001-01-01T00:00:00Z"}`, `,"until":"tomorrow"}`,
		`,"until":"2999-01-01T00:00:00Z","expires_in":5}`,
	} {
		post(e.ServeBlock, user+bad, 400)
	}
	post(e.ServeBlock, user+`,"reason":"spam","expires_in":3600}`, 200)
	_, v = post(e.ServeUser, user+"}", 200)
	if block, _ := v["block"].(map[string]any); block["reason"] != "spam" || block["until"] == nil {
		t.Errorf("known of a blocked user: %v", v)
	}
	if body, _ := post(e.ServeUnblock, user+"}", 200); body != "{}" {
		t.Errorf("unblocked with %s", body)
	}
	if body, _ := post(e.ServeUser, user+"}", 200); body != user+`,"block":null,"sessions":[]}` {
		t.Errorf("known of nobody: %s", body)
	}
	if body, _ := post(e.ServeAlerts, "", 200); body != `{"alerts":[]}` {
		t.Errorf("alerts %s", body)
	}
	for _, h := range []rest.Handler{e.ServeListSessions, e.ServeRevokeSessions, e.ServeBlock, e.ServeUnblock, e.ServeUser} {
		for _, bad := range []string{"", "{", `{"user":7}`, `{"user":"","all":true}`, `{"user":"a b","all":true}`} {
			post(h, bad, 400)
		}
	}
}
