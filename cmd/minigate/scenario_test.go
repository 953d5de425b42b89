package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/minigate/minigate/gateway/epoll"
)

// A scenarioGroup is a file of web/e2e/scenarios that drives the stock
// centrifuge SDK, on a node that is configured for it.
type scenarioGroup struct {
	name   string
	config string // namespaces of its own
}

var scenarioGroups = []scenarioGroup{
	{name: "connect"},
	{name: "subscribe"},
	{name: "presence"},
	{name: "recovery"},
	{name: "serverside"},
	{name: "history"},
	{name: "closes"},
	{name: "frames"},
	{name: "rpc"},
	{name: "apisubscribe"},
	{name: "protobuf"},
	{name: "cache", config: `
    - {name: cache, history_size: 1, history_ttl: 300s, force_recovery: true, force_recovery_mode: cache, allow_subscribe_for_client: true}`},
	{name: "delta", config: `
    - {name: delta, history_size: 100, history_ttl: 300s, force_recovery: true, allow_subscribe_for_client: true, allowed_delta_types: [fossil], delta_publish: true}`},
	{name: "filter", config: `
    - {name: filter, history_size: 100, history_ttl: 300s, force_recovery: true, allow_subscribe_for_client: true, allow_tags_filter: true}`},
	{name: "compact", config: `
    - {name: compact, history_size: 100, history_ttl: 300s, force_recovery: true, allow_subscribe_for_client: true}`},
}

const scenarioChannels = `
channel:
  namespaces:
    - name: room
      presence: true
      join_leave: true
      force_push_join_leave: true
      history_size: 100
      history_ttl: 300s
      force_recovery: true
      allow_subscribe_for_client: true
      allow_subscribe_for_anonymous: true
      allow_publish_for_client: true
      allow_presence_for_client: true
      allow_presence_for_anonymous: true
      allow_history_for_client: true
    - {name: recovery, history_size: 100, history_ttl: 300s, force_recovery: true, allow_subscribe_for_client: true, allow_publish_for_client: true, allow_history_for_client: true}
    - {name: smallhistory, history_size: 2, history_ttl: 300s, force_recovery: true, allow_subscribe_for_client: true}
    - {name: forgetful, history_size: 10, history_ttl: 1s, history_meta_ttl: 1s, force_recovery: true, allow_subscribe_for_client: true}
    - {name: live, allow_subscribe_for_client: true, allow_publish_for_subscriber: true}
    - {name: locked, presence: true, history_size: 10, history_ttl: 300s, force_recovery: true}
    - {name: dialog, allow_user_limited_channels: true}`

const scenarioSecret = "a secret of more than thirty-two bytes"

// scenarioNode runs groups on a node of their own over a transport of lab.mjs,
// with connections held by epoll, where there is one, or by goroutines.
func scenarioNode(t *testing.T, transport string, epoll bool) {
	t.Helper()
	var names []string
	channels := scenarioChannels
	for _, g := range scenarioGroups {
		if transport == "ws" || g.name != "frames" && g.name != "protobuf" { // which do not use it
			names = append(names, g.name)
		}
		channels += g.config
	}
	_, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "client:\n", `client:
  token: {hmac_secret_key: `+scenarioSecret+`}
  ping_interval: 2s
  pong_timeout: 1s
  stale_close_delay: 3s
  channel_limit: 16
  user_connection_limit: 4
  command_rate_burst: 200
  expired_close_delay: 3s
  expired_sub_close_delay: 3s
`, 1)
	p := startServe(t, config+channels+"\nrpc: {upstream: '"+rpcBackend(t)+"'}\nwebsocket: {epoll: "+strconv.FormatBool(epoll)+"}\n")
	t.Log(runNode(t, "scenario.mjs", append(clientEnv(t, p, wechatURL, p.Public),
		"JWT_SECRET="+scenarioSecret, "TRANSPORT="+transport, "GROUPS="+strings.Join(names, ","),
		"PID="+strconv.Itoa(p.cmd.Process.Pid))...))
	if strings.Contains(p.Output(), scenarioSecret) {
		t.Error("the secret was logged")
	}
	for _, line := range strings.Split(p.Output(), "\n") {
		if strings.Contains(line, `"level":"ERROR"`) {
			t.Errorf("clients that come and go are no error: %s", line)
		}
	}
}

// rpcBackend echoes rpc commands, or fails in its own words.
func rpcBackend(t *testing.T) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/rpc/fail" {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"error":{"code":1000,"message":"no stock"}}`)
			return
		}
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.NewEncoder(w).Encode(map[string]any{
				"method": strings.TrimPrefix(r.URL.Path, "/rpc/"), "data": json.RawMessage(data), "user": r.Header.Get("X-WX-OPENID"),
			})
		}
		if err != nil {
			t.Errorf("echo: %v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestScenarios drives the stock centrifuge SDK over ws.
func TestScenarios(t *testing.T) { t.Parallel(); scenarioNode(t, "ws", epoll.Supported) }

// TestScenariosOnGoroutines drives it as where there is no epoll.
func TestScenariosOnGoroutines(t *testing.T) { t.Parallel(); scenarioNode(t, "ws", false) }

// TestScenariosOverWx drives it over our adapter over uni-h5's wx.
func TestScenariosOverWx(t *testing.T) { t.Parallel(); scenarioNode(t, "wx", epoll.Supported) }
