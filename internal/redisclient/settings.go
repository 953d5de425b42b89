package redisclient

import (
	"net"
	"strconv"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

// Settings say how to reach Redis. Without an address there is no Redis.
type Settings struct {
	Addresses []string        `yaml:"addresses" doc:"Redis servers as host:port: one server, or several nodes of a cluster, or the sentinels if sentinel_master is set. Empty runs minigate alone, without Redis."`
	Username  string          `yaml:"username" doc:"ACL user name; empty for the default user."`
	Password  settings.Secret `yaml:"password" doc:"Password of the user."`
	DB        int             `yaml:"db" default:"0" doc:"Number of the database, 0 to 1000; a cluster has only 0."`
	Prefix    string          `yaml:"prefix" default:"minigate" doc:"What every key and pub/sub channel starts with: 1 to 64 letters, digits, '-', '_', '.' or ':'."`
	TLS       bool            `yaml:"tls" default:"false" doc:"Talk TLS to Redis and verify its certificate against the system's authorities."`

	Cluster bool `yaml:"cluster" default:"false" doc:"The one address given is that of a Redis Cluster. With several addresses and no sentinel_master it always is one."`

	ShardedPubSubPartitions int `yaml:"sharded_pub_sub_partitions" default:"0" doc:"Spread channels over so many partitions, each heard at its own master of a Redis Cluster of version 7 or newer, instead of sending every publication to every master. About 16 for each master you may ever have, at most 1024; the same on every node. Another number begins all histories anew. 0 is off."`

	WaitReplicas int           `yaml:"wait_replicas" default:"0" doc:"Publications with history are acknowledged once so many replicas have them: then a failover to one of those does not lose them. Where too few confirm in time the publisher is told not_replicated, 503. 0 waits for none, at most 16."`
	WaitTimeout  time.Duration `yaml:"wait_timeout" default:"1s" doc:"How long to wait for replicas, 10ms to 2s."`

	SentinelMaster   string          `yaml:"sentinel_master" doc:"Name of the master that the sentinels watch; the addresses are then those of the sentinels."`
	SentinelPassword settings.Secret `yaml:"sentinel_password" doc:"Password of the sentinels themselves, where they ask for one."`
}

// On tells whether Redis is configured.
func (s *Settings) On() bool { return len(s.Addresses) > 0 }

// IsCluster tells whether the addresses are those of a Redis Cluster.
func (s *Settings) IsCluster() bool {
	return s.SentinelMaster == "" && (s.Cluster || len(s.Addresses) > 1)
}

// Check reports what cannot work.
func (s *Settings) Check(report func(path, problem string)) {
	for i, addr := range s.Addresses {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			report("addresses["+strconv.Itoa(i)+"]", "must be host:port")
		}
	}
	if !validPrefix(s.Prefix) {
		report("prefix", "must be 1 to 64 letters, digits, '-', '_', '.' or ':'")
	}
	if s.DB < 0 || s.DB > 1000 {
		report("db", "must be between 0 and 1000")
	}
	if s.DB != 0 && s.IsCluster() {
		report("db", "must be 0 in a cluster")
	}
	if s.Cluster && s.SentinelMaster != "" {
		report("cluster", "cannot be combined with sentinel_master")
	}
	if s.ShardedPubSubPartitions < 0 || s.ShardedPubSubPartitions > 1024 {
		report("sharded_pub_sub_partitions", "must be between 0 and 1024")
	} else if s.ShardedPubSubPartitions > 0 && !s.IsCluster() {
		report("sharded_pub_sub_partitions", "needs a Redis Cluster")
	}
	if s.WaitReplicas < 0 || s.WaitReplicas > 16 {
		report("wait_replicas", "must be between 0 and 16")
	}
	if s.WaitTimeout < 10*time.Millisecond || s.WaitTimeout > 2*time.Second {
		report("wait_timeout", "must be between 10ms and 2s")
	}
	if s.SentinelMaster != "" && !s.On() {
		report("sentinel_master", "needs the addresses of the sentinels")
	}
}

// validPrefix keeps braces out above all: in a cluster they would move every
// key to one slot.
func validPrefix(prefix string) bool {
	if prefix == "" || len(prefix) > 64 {
		return false
	}
	for _, c := range []byte(prefix) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return true
}
