package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

const hookSecret = "a-webhook-secret-for-tests"

// askedBackend answers all six questions of sockets, and believes only what is
// signed and carries its own key.
func askedBackend(t *testing.T) string {
	refreshed, once := make(chan struct{}), sync.Once{}
	soon := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	mux := http.NewServeMux()
	mux.HandleFunc("/{hook}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(r.Header, body, []webhook.Key{{ID: "k", Secret: settings.Secret(hookSecret)}}, time.Now())
		}
		var q struct {
			User, Channel, Method string
			Data                  map[string]any
		}
		if err == nil {
			err = json.Unmarshal(body, &q)
		}
		if err != nil || r.Header.Get("X-Key") != "static" {
			t.Errorf("asked %s: %v", body, err)
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		result := map[string]any{}
		switch hook := r.PathValue("hook"); hook + " " + q.Channel + q.Method {
		case "connect ":
			if r.Header.Get("Authorization") != "Bearer of-the-backend" || q.Data["name"] != "ann" {
				http.NotFound(w, r)
				return
			}
			result = map[string]any{"user": "ann", "info": map[string]any{"name": "Ann"}, "data": map[string]any{"hello": 1}, "channels": []string{"feed:ann"}, "expire_at": soon(2 * time.Second)}
		case "refresh ":
			once.Do(func() { close(refreshed) })
			result = map[string]any{"expire_at": soon(time.Hour)}
		case "subscribe hook:closed":
			_, _ = w.Write([]byte(`{"error":{"code":1001,"message":"members only"}}`))
			return
		case "subscribe hook:open":
			result = map[string]any{"data": map[string]any{"topic": "open"}, "info": map[string]any{"role": q.Data["as"]}}
		case "publish hook:open":
			result = map[string]any{"data": map[string]any{"text": strings.ToUpper(q.Data["text"].(string))}}
		case "rpc shop:refreshed":
			select {
			case <-refreshed:
			case <-r.Context().Done():
			}
		case "rpc shop:price":
			result = map[string]any{"data": map[string]any{"of": q.Data["of"], "for": q.User}}
		default:
			http.Error(w, "no", http.StatusTeapot)
			return
		}
		answer, err := json.Marshal(map[string]any{"result": result})
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(answer)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestCentrifugeSDKWithProxies drives the stock centrifuge client, about which
// the backend is asked by all webhooks.
func TestCentrifugeSDKWithProxies(t *testing.T) {
	_, wechatURL := simulator(t)
	url := askedBackend(t)
	proxy := func(name, more string) string {
		return fmt.Sprintf(`{endpoint: '%s/%s?k=s3cret', timeout: 9s, http: {static_headers: {X-Key: static}, status_to_code_transforms: [{status_code: 404, to_disconnect: {code: 4504, reason: nobody}}, {status_code: 418, to_error: {code: 1418, message: teapot}}]}%s}`, url, name, more)
	}
	config := strings.Replace(baseConfig(t, wechatURL), "client:\n", fmt.Sprintf(`webhooks: {keys: [{id: k, secret: %s}]}
rpc:
  proxy: %s
  namespaces: [{name: shop, proxy_enabled: true}]
client:
  proxy:
    connect: %s
    refresh: %s
`, hookSecret, proxy("rpc", ""), proxy("connect", ", enabled: true, emulated_headers: [Authorization]"), proxy("refresh", ", enabled: true")), 1)
	channels := strings.Replace(devChannels, "channel:\n", fmt.Sprintf("channel:\n  proxy: {subscribe: %s, publish: %s}\n", proxy("subscribe", ""), proxy("publish", "")), 1)
	p := startServe(t, config+channels+"    - {name: hook, subscribe_proxy_enabled: true, publish_proxy_enabled: true, presence: true, allow_presence_for_subscriber: true}\n")
	t.Log(runNode(t, "proxies-sdk.mjs", clientEnv(t, p, wechatURL, p.Public)...))
	_, metrics := callRaw(t, "GET", p.Ops+"/metrics", nil, nil)
	for _, want := range []string{`minigate_webhook_breaker_open{hook="connect"} 0`, `minigate_webhook_requests_total{hook="refresh",result="ok"} 1`} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if out := p.Output(); strings.Contains(out, hookSecret) || strings.Contains(out, "s3cret") {
		t.Error("a secret was logged")
	}
}
