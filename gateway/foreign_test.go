package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

// A configuration of Centrifugo 6, as far as it is about what is here.
const centrifugoYAML = `
client:
  token:
    hmac_secret_key: a-secret-of-more-than-thirty-two-bytes
  allow_anonymous_connect_without_token: true
  disallow_anonymous_connection_tokens: true
  ping_interval: 25s
  pong_timeout: 8s
  expired_close_delay: 30s
  expired_sub_close_delay: 35s
  stale_close_delay: 10s
  channel_limit: 100
  queue_max_size: 2097152
  concurrency: 8
  connection_limit: 10000
  user_connection_limit: 5
  connection_rate_limit: 100
  connect_include_server_time: true
  history_max_publication_limit: 100
  recovery_max_publication_limit: 200
  subscribe_to_user_personal_channel:
    enabled: true
    personal_channel_namespace: personal
    single_connection: true
channel:
  history_meta_ttl: 48h
  max_length: 200
  publication_data_format: json
  without_namespace:
    allow_subscribe_for_client: true
    history_size: 10
    history_ttl: 300s
    force_recovery: true
  namespaces:
    - name: personal
      force_recovery: true
      history_size: 50
      history_ttl: 600s
      history_meta_ttl: 24h
    - name: chat
      presence: true
      join_leave: true
      force_push_join_leave: true
      history_size: 100
      history_ttl: 1h
      allow_positioning: true
      allow_recovery: true
      allow_subscribe_for_client: true
      allow_subscribe_for_anonymous: true
      allow_publish_for_client: true
      allow_publish_for_subscriber: true
      allow_publish_for_anonymous: true
      allow_presence_for_client: true
      allow_presence_for_subscriber: true
      allow_presence_for_anonymous: true
      allow_history_for_client: true
      allow_history_for_subscriber: true
      allow_history_for_anonymous: true
      allow_user_limited_channels: true
      channel_regex: ^[a-z]+$
      publication_data_format: json_object
    - name: price
      history_size: 1
      history_ttl: 24h
      force_recovery: true
      force_recovery_mode: cache
      auto_cache_recover: true
      force_positioning: true
websocket:
  message_size_limit: 65536
  write_timeout: 1000ms
`

func loadSettings(t *testing.T, text string) (s Settings, err error) {
	t.Helper()
	err = settings.Load(&s, settings.Source{File: []byte(text), FileName: "f"})
	return s, err
}

func TestCentrifugoSettings(t *testing.T) {
	s, err := loadSettings(t, centrifugoYAML)
	if err != nil {
		t.Fatal(err)
	}
	c, ns := s.Client, s.Channel.Namespaces
	if !c.AllowAnonymous || !c.DisallowAnonTokens || c.ExpiredDelay != 30*time.Second || c.ExpiredSubDelay != 35*time.Second ||
		c.Concurrency != 8 || !c.IncludeServerTime || c.QueueMaxSize != 2<<20 || c.single() != singleUser {
		t.Errorf("client: %+v", c)
	}
	if s.Channel.DataFormat != formatJSON || len(ns) != 3 || ns[1].DataFormat != formatObject ||
		ns[2].ForceRecoveryMode != recoverCache || !ns[2].AutoCacheRecover || !ns[2].ForcePositioning {
		t.Errorf("channel: %+v", s.Channel)
	}
	b := newRulebook(s)
	for channel, want := range map[string]string{"personal:#a": formatJSON, "chat:a": formatObject, "a": formatJSON} {
		if r, err := b.find(channel); err != nil || r.DataFormat != want {
			t.Errorf("%s takes %q, want %q (%v)", channel, r.DataFormat, want, err)
		}
	}
}

// An option that is Centrifugo's and not ours is named, with what to do.
func TestForeignOptions(t *testing.T) {
	for text, want := range map[string]string{
		"client: {allowed_origins: [a]}":                                                                     "client: unknown key allowed_origins: what Centrifugo calls client.allowed_origins is websocket.allowed_origins here",
		"client: {proxy: {connect: {enabled: true}}}":                                                        "client.proxy.connect.endpoint: is required where it is enabled",
		"client: {proxy: {connect: {endpoint: 'grpc://a:1'}}}":                                               "client.proxy.connect.endpoint: must begin with http:// or https://: Centrifugo's gRPC proxies are not offered",
		"client: {proxy: {connect: {grpc_metadata: [a]}}}":                                                   "unknown key grpc_metadata: this option is Centrifugo's for gRPC, which is not spoken here",
		"client: {proxy: {connect: {http: {tls: {}}}}}":                                                      "unknown key tls: this option is Centrifugo's and not offered",
		"client: {proxy: {connect: {enabled: true, endpoint: 'http://b', timeout: 10s}}}":                    "client.proxy.connect.timeout: must be shorter than client.stale_close_delay",
		"client: {proxy: {refresh: {timeout: 1m}}}":                                                          "client.proxy.refresh.timeout: must be between 10ms and 30s",
		"client: {proxy: {connect: {http_headers: [content-type]}}}":                                         "client.proxy.connect.http_headers: Content-Type belongs to the call itself",
		"client: {proxy: {connect: {emulated_headers: ['a b']}}}":                                            "client.proxy.connect.emulated_headers: a b is not the name of a header",
		"client: {proxy: {connect: {http: {static_headers: {X-Minigate-Event: a}}}}}":                        "static_headers: X-Minigate-Event belongs to the call itself",
		"channel: {proxy: {publish: {http: {status_to_code_transforms: [{status_code: 200}]}}}}":             "channel.proxy.publish.http.status_to_code_transforms[0].status_code: must be an HTTP status other than 200",
		"channel: {proxy: {publish: {http: {status_to_code_transforms: [{status_code: 404}]}}}}":             "status_to_code_transforms[0]: must have either to_error or to_disconnect",
		"proxies: [{name: default}]":                                                                         "proxies[0].name: must not be default",
		"proxies: [{name: ab}, {name: ab}]":                                                                  "proxies[1].name: ab is there twice",
		"rpc: {namespaces: [{name: a}]}":                                                                     "rpc.namespaces[0].name: must have two or more",
		"rpc: {without_namespace: {proxy_enabled: true}}":                                                    "rpc.proxy.endpoint: is required: rpc.without_namespace.proxy_enabled is on",
		"rpc: {namespaces: [{name: ab, proxy_enabled: true, proxy_name: x1}]}":                               "rpc.namespaces[0].proxy_name: x1 is none of proxies",
		"proxies: [{name: x1}]\nrpc: {namespaces: [{name: ab, proxy_enabled: true, proxy_name: x1}]}":        "proxies[0].endpoint: is required: rpc.namespaces[0].proxy_enabled is on",
		"client: {presence_update_interval: 27s}":                                                            "not needed",
		"channel: {private_prefix: $}":                                                                       "always $",
		"channel: {proxy: {subscribe_stream: {}}}":                                                           "speaks gRPC alone and is not offered",
		"channel: {without_namespace: {subscribe_proxy_enabled: true}}":                                      "channel.proxy.subscribe.endpoint: is required: channel.without_namespace.subscribe_proxy_enabled is on",
		"channel: {namespaces: [{name: ab, publish_proxy_enabled: true}]}":                                   "channel.proxy.publish.endpoint: is required: channel.namespaces[0].publish_proxy_enabled is on",
		"channel: {namespaces: [{name: ab, sub_refresh_proxy_enabled: true, sub_refresh_proxy_name: x1}]}":   "channel.namespaces[0].sub_refresh_proxy_name: x1 is none of proxies",
		"channel: {namespaces: [{name: ab, subscribe_stream_proxy_enabled: true}]}":                          "this option is Centrifugo's and not offered yet",
		"channel: {namespaces: [{name: ab, shared_poll: {}}]}":                                               "not offered yet",
		"channel: {namespaces: [{name: ab, prescence: true}]}":                                               "did you mean presence?",
		"client: {pong_timout: 1s}":                                                                          "did you mean pong_timeout?",
		"client: {single_connection: each}":                                                                  "client.single_connection: must be user, device or empty",
		"client: {single_connection: user, user_connection_limit: 1}":                                        "client.user_connection_limit: must be 0 or at least 2",
		"client: {single_connection: device, subscribe_to_user_personal_channel: {single_connection: true}}": "contradicts client.single_connection",
		"client: {concurrency: -1}":                                                                          "client.concurrency: must be between",
		"client: {expired_close_delay: 0s}":                                                                  "client.expired_close_delay: must be positive",
		"channel: {publication_data_format: xml}":                                                            "channel.publication_data_format: must be json, json_object, binary or empty",
		"channel: {without_namespace: {publication_data_format: xml}}":                                       "channel.without_namespace.publication_data_format: must be",
		"channel: {without_namespace: {force_recovery_mode: both}}":                                          "channel.without_namespace.force_recovery_mode: must be stream, cache or empty",
		"channel: {without_namespace: {auto_cache_recover: true}}":                                           "channel.without_namespace.auto_cache_recover: needs force_recovery_mode: cache",
	} {
		if _, err := loadSettings(t, text); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), `"`, ""), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}
