package redisclient

import (
	"net"
	"strconv"

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

	SentinelMaster   string          `yaml:"sentinel_master" doc:"Name of the master that the sentinels watch; the addresses are then those of the sentinels."`
	SentinelPassword settings.Secret `yaml:"sentinel_password" doc:"Password of the sentinels themselves, where they ask for one."`
}

// On tells whether Redis is configured.
func (s *Settings) On() bool { return len(s.Addresses) > 0 }

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
	if s.DB != 0 && s.SentinelMaster == "" && len(s.Addresses) > 1 {
		report("db", "must be 0 in a cluster")
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
