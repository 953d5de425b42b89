package redisclient

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpen(t *testing.T) {
	server := testdeps.StartRedis(t)
	client := Open(Settings{Addresses: []string{server.Addr}, DB: 3})
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Fatal("a Redis that is away answers")
	}
	server.Restart()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
}

func TestPassword(t *testing.T) {
	s := Settings{Addresses: []string{testdeps.Redis(t)}}
	admin := Open(s)
	defer func() { _ = admin.Close() }()
	if err := admin.ConfigSet(t.Context(), "requirepass", "open sesame").Err(); err != nil {
		t.Fatal(err)
	}
	s.Password = "open sesame"
	friend := Open(s)
	defer func() { _ = friend.Close() }()
	if err := friend.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Password = "wrong secret"
	stranger := Open(s)
	defer func() { _ = stranger.Close() }()
	err := stranger.Ping(t.Context()).Err()
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Fatalf("with a wrong password: %v", err)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Settings)
		want   []string
	}{
		{"defaults", func(*Settings) {}, nil},
		{"one", func(s *Settings) { s.Addresses = []string{"127.0.0.1:6379"} }, nil},
		{"IPv6", func(s *Settings) { s.Addresses = []string{"[::1]:6379"} }, nil},
		{"no port", func(s *Settings) { s.Addresses = []string{"a:1", "b"} }, []string{"addresses[1]"}},
		{"empty port", func(s *Settings) { s.Addresses = []string{"b:"} }, []string{"addresses[0]"}},
		{"no prefix", func(s *Settings) { s.Prefix = "" }, []string{"prefix"}},
		{"braces", func(s *Settings) { s.Prefix = "{x}" }, []string{"prefix"}},
		{"long prefix", func(s *Settings) { s.Prefix = strings.Repeat("x", 65) }, []string{"prefix"}},
		{"database", func(s *Settings) { s.DB = -1 }, []string{"db"}},
		{"database of a cluster", func(s *Settings) { s.Addresses, s.DB = []string{"a:1", "b:1"}, 2 }, []string{"db"}},
		{"database behind sentinels", func(s *Settings) {
			s.Addresses, s.DB, s.SentinelMaster = []string{"a:1", "b:1"}, 2, "m"
		}, nil},
		{"database of a cluster with one address", func(s *Settings) { s.Addresses, s.DB, s.Cluster = []string{"a:1"}, 2, true }, []string{"db"}},
		{"cluster and sentinels", func(s *Settings) {
			s.Addresses, s.SentinelMaster, s.Cluster = []string{"a:1"}, "m", true
		}, []string{"cluster"}},
		{"partitions", func(s *Settings) { s.Addresses, s.ShardedPubSubPartitions = []string{"a:1", "b:1"}, 64 }, nil},
		{"too many partitions", func(s *Settings) {
			s.Addresses, s.ShardedPubSubPartitions = []string{"a:1", "b:1"}, 1025
		}, []string{"sharded_pub_sub_partitions"}},
		{"partitions without a cluster", func(s *Settings) {
			s.Addresses, s.ShardedPubSubPartitions = []string{"a:1"}, 64
		}, []string{"sharded_pub_sub_partitions"}},
		{"replicas", func(s *Settings) { s.WaitReplicas = -1 }, []string{"wait_replicas"}},
		{"long wait", func(s *Settings) { s.WaitTimeout = 3 * time.Second }, []string{"wait_timeout"}},
		{"no wait", func(s *Settings) { s.WaitTimeout = 0 }, []string{"wait_timeout"}},
		{"sentinels missing", func(s *Settings) { s.SentinelMaster = "m" }, []string{"sentinel_master"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Settings
			settings.Defaults(&s)
			tt.change(&s)
			var got []string
			s.Check(func(path, _ string) { got = append(got, path) })
			if !slices.Equal(got, tt.want) {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
		})
	}
}
