package gateway

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

func TestDefaultsAreFine(t *testing.T) {
	var s Settings
	settings.Defaults(&s)
	s.Check(func(path, problem string) { t.Errorf("%s %s", path, problem) })
	h := History(s.Channel.WithoutNamespace.KeptHistory)
	if h.HistorySize != 100 || h.HistoryTTL != 300*time.Second || !h.ForceRecovery {
		t.Errorf("personal channels keep %+v", h)
	}
	if a := s.Channel.WithoutNamespace.Access; !reflect.DeepEqual(a, Access{}) {
		t.Errorf("clients may %+v", a)
	}
}

// What is wrong is reported under the name of the option.
func TestSettingsCheck(t *testing.T) {
	kept := History{HistorySize: 1, HistoryTTL: time.Second}
	for want, change := range map[string]func(*Settings){
		"client.pong_timeout":                           func(s *Settings) { s.Client.PongTimeout = s.Client.PingInterval },
		"client.ping_interval":                          func(s *Settings) { s.Client.PingInterval = 1500 * time.Millisecond; s.Client.PongTimeout = time.Second },
		"client.stale_close_delay":                      func(s *Settings) { s.Client.StaleCloseDelay = 0 },
		"client.channel_limit":                          func(s *Settings) { s.Client.ChannelLimit = 0 },
		"client.queue_max_size":                         func(s *Settings) { s.Client.QueueMaxSize = 1 },
		"client.channel_backlog_max_size":               func(s *Settings) { s.Client.ChannelBacklogMaxSize = 1 },
		"client.unionid_channel_namespace":              func(s *Settings) { s.Client.UnionIDNamespace = "a b" },
		"client.queue_total_max_size":                   func(s *Settings) { s.Client.QueueTotalMaxSize = 1 },
		"client.command_rate_limit":                     func(s *Settings) { s.Client.CommandRateLimit = -1 },
		"client.command_rate_burst":                     func(s *Settings) { s.Client.CommandRateBurst = 0 },
		"client.channel_tail":                           func(s *Settings) { s.Client.ChannelTail = 0 },
		"client.channel_linger":                         func(s *Settings) { s.Client.ChannelLinger = -1 },
		"client.channel_position_check_delay":           func(s *Settings) { s.Client.PositionCheckDelay = -1 },
		"channel.without_namespace.force_recovery_mode": func(s *Settings) { s.Channel.WithoutNamespace.ForceRecoveryMode = "both" },
		"channel.without_namespace.auto_cache_recover":  func(s *Settings) { s.Channel.WithoutNamespace.AutoCacheRecover = true },
		"client.connection_limit":                       func(s *Settings) { s.Client.ConnectionLimit = -1 },
		"client.ip_connection_limit":                    func(s *Settings) { s.Client.IPConnectionLimit = -1 },
		"client.handshake_limit":                        func(s *Settings) { s.Client.HandshakeLimit = -1 },
		"client.overload_delay":                         func(s *Settings) { s.Client.OverloadDelay = -1 },
		"client.memory_soft_limit":                      func(s *Settings) { s.Client.MemorySoftLimit = 32<<20 - 1 },
		"client.shutdown_spread":                        func(s *Settings) { s.Client.ShutdownSpread = -1 },
		"websocket.message_size_limit":                  func(s *Settings) { s.WebSocket.MessageSizeLimit = 100 },
		"websocket.write_timeout":                       func(s *Settings) { s.WebSocket.WriteTimeout = time.Minute },
		"websocket.allowed_origins":                     func(s *Settings) { s.WebSocket.AllowedOrigins = []string{"https://["} },
		"channel.max_length":                            func(s *Settings) { s.Channel.MaxLength = 256 },
		"channel.history_meta_ttl":                      func(s *Settings) { s.Channel.HistoryMetaTTL = 0 },
		"channel.without_namespace.history_ttl":         func(s *Settings) { s.Channel.WithoutNamespace.HistoryTTL = 1500 * time.Millisecond },
		"channel.namespaces[0].name":                    func(s *Settings) { s.Channel.Namespaces = []Namespace{{Name: "a"}} },
		"channel.namespaces[1].name":                    func(s *Settings) { s.Channel.Namespaces = []Namespace{{Name: "ab"}, {Name: "ab"}} },
		"channel.namespaces[0].history_size":            func(s *Settings) { s.Channel.Namespaces = []Namespace{{Name: "ab", History: History{HistorySize: 1}}} },
		"channel.namespaces[0].force_recovery": func(s *Settings) {
			s.Channel.Namespaces = []Namespace{{Name: "ab", History: History{ForceRecovery: true}}}
		},
		"channel.namespaces[0].history_meta_ttl": func(s *Settings) {
			s.Channel.HistoryMetaTTL = time.Second
			s.Channel.Namespaces = []Namespace{{Name: "ab", History: History{HistorySize: 1, HistoryTTL: time.Minute, HistoryMetaTTL: time.Second}}}
		},
		"channel.namespaces[0].force_push_join_leave": func(s *Settings) {
			s.Channel.Namespaces = []Namespace{{Name: "ab", Access: Access{ForcePushJoinLeave: true}, History: kept}}
		},
		"channel.namespaces[0].channel_regex": func(s *Settings) {
			s.Channel.Namespaces = []Namespace{{Name: "ab", Access: Access{ChannelRegex: "("}}}
		},
		"channel.namespaces[0].allowed_delta_types": func(s *Settings) {
			s.Channel.Namespaces = []Namespace{{Name: "ab", Access: Access{AllowedDeltaTypes: []string{"xdelta"}}}}
		},
		"channel.namespaces[0].delta_publish": func(s *Settings) {
			s.Channel.Namespaces = []Namespace{{Name: "ab", Access: Access{DeltaPublish: true}}}
		},
		"client.subscribe_to_user_personal_channel.personal_channel_namespace": func(s *Settings) {
			s.Client.PersonalChannel.Namespace = "nope"
		},
	} {
		var s Settings
		settings.Defaults(&s)
		change(&s)
		var got []string
		s.Check(func(path, problem string) {
			if problem == "" {
				t.Errorf("%s: nothing said", path)
			}
			got = append(got, path)
		})
		if !slices.Contains(got, want) {
			t.Errorf("%s not reported, but %v", want, got)
		}
	}
}

// The options carry Centrifugo's names.
func TestSettingsLoad(t *testing.T) {
	var s Settings
	err := settings.Load(&s, settings.Source{File: []byte(`
client:
  ping_interval: 10s
  subscribe_to_user_personal_channel: {enabled: true, personal_channel_namespace: personal}
channel:
  without_namespace: {history_size: 5, presence: true}
  namespaces:
    - name: personal
      history_size: 10
      history_ttl: 60s
      force_recovery: true
    - {name: chat, presence: true, join_leave: true, force_push_join_leave: true, allow_subscribe_for_client: true}
websocket: {message_size_limit: 1MiB, allowed_origins: ["https://h5.example.com"]}
`), FileName: "f", Prefix: "MINIGATE_", Environ: []string{"MINIGATE_CLIENT_PONG_TIMEOUT=3s"}})
	if err != nil {
		t.Fatal(err)
	}
	ns := s.Channel.Namespaces
	if s.Client.PongTimeout != 3*time.Second || len(ns) != 2 || !ns[0].ForceRecovery || !ns[1].ForcePushJoinLeave ||
		s.Channel.WithoutNamespace.HistorySize != 5 || !s.Channel.WithoutNamespace.ForceRecovery || s.WebSocket.MessageSizeLimit != 1<<20 {
		t.Errorf("%+v", s)
	}
}
