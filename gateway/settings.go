package gateway

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway/ask"
	"github.com/minigate/minigate/internal/settings"
)

// Settings are the blocks of the live side. Names and meanings are
// Centrifugo's where it has the same thing.
type Settings struct {
	Client    ClientSettings    `yaml:"client" doc:"Connections of the live side."`
	Channel   ChannelSettings   `yaml:"channel" doc:"Channels and their rules."`
	WebSocket WebSocketSettings `yaml:"websocket" doc:"The WebSocket transport."`
	Proxies   []ask.Named       `yaml:"proxies" doc:"Webhooks that namespaces choose by name."`
	RPC       ask.RPCProxies    `yaml:"rpc" doc:"Webhooks that answer rpc commands."`
}

// ClientSettings rule connections.
type ClientSettings struct {
	PingInterval           time.Duration `yaml:"ping_interval" default:"25s" doc:"How often the server pings a connection; 0 never does. TCP keep-alive asks who was silent for twice as long, or for between 1m and 10m."`
	PongTimeout            time.Duration `yaml:"pong_timeout" default:"8s" doc:"How long a client may take to answer a ping, shorter than ping_interval."`
	StaleCloseDelay        time.Duration `yaml:"stale_close_delay" default:"10s" doc:"How long a socket may stay without a successful connect command."`
	SessionCheckInterval   time.Duration `yaml:"session_check_interval" default:"5m" doc:"How often at most the session of a live connection is verified again, which also extends it."`
	ChannelLimit           int           `yaml:"channel_limit" default:"128" doc:"How many channels one connection may be subscribed to."`
	ConnectionLimit        int           `yaml:"connection_limit" default:"0" doc:"How many connections this node accepts before it answers 503; 0 sets no limit."`
	IPConnectionLimit      int           `yaml:"ip_connection_limit" default:"0" doc:"How many connections this node accepts from one IPv4 address, or one /64 of IPv6, before it answers 429; 0 sets no limit. Phones on mobile networks share addresses by the thousand, so it must be far above what one person has. Proxies in front have to be in trusted_proxies."`
	HandshakeLimit         int           `yaml:"handshake_limit" default:"2000" doc:"How many handshakes and connect commands this node handles at a time before it answers further handshakes with 503; 0 sets no limit."`
	OverloadDelay          time.Duration `yaml:"overload_delay" default:"100ms" doc:"This node is overloaded, and answers new handshakes with 503, while work has waited longer than this for a processor or for fan-out throughout a second; 0 never is."`
	MemorySoftLimit        settings.Size `yaml:"memory_soft_limit" default:"0" doc:"How many bytes may be alive in this process before new connections are refused, and if that does not help those that have left most unread for longest are closed. 0 takes nine tenths of GOMEMLIMIT where that is set. Where the control group has a limit, nine tenths of it hold as well, for all that is in it."`
	UserConnectionLimit    int           `yaml:"user_connection_limit" default:"0" doc:"How many connections one user may have on this node; 0 sets no limit."`
	ConnectionRateLimit    int           `yaml:"connection_rate_limit" default:"0" doc:"How many new connections per second this node accepts before it answers 503; 0 sets no limit."`
	CommandRateLimit       int           `yaml:"command_rate_limit" default:"100" doc:"How many commands per second one connection may send in the long run; more are answered with error 111, and whoever goes on is closed with 3013. 0 sets no limit."`
	CommandRateBurst       int           `yaml:"command_rate_burst" default:"1000" doc:"How many commands one connection may send at once before command_rate_limit holds, and how many are refused before it is closed."`
	QueueMaxSize           settings.Size `yaml:"queue_max_size" default:"1MiB" doc:"How many bytes may wait for one connection; beyond that its commands wait for their replies to be read, and messages it did not ask for close it as slow."`
	QueueTotalMaxSize      settings.Size `yaml:"queue_total_max_size" default:"256MiB" doc:"How many bytes of commands and replies may wait on this node for all connections together; beyond that those that have left most unread for longest are closed as slow. 0 sets no limit."`
	HistoryLimit           int           `yaml:"history_max_publication_limit" default:"300" doc:"How many publications one history request returns at most."`
	RecoveryLimit          int           `yaml:"recovery_max_publication_limit" default:"300" doc:"How many missed publications a reconnecting client gets at most before it is told that it was not recovered."`
	PersonalChannel        Personal      `yaml:"subscribe_to_user_personal_channel" doc:"The channel that every user is subscribed to by the server."`
	UnionIDNamespace       string        `yaml:"unionid_channel_namespace" default:"union" doc:"The namespace of the channel that reaches one person in all mini-programs of an owner; an empty name switches these channels off."`
	ShutdownSpread         time.Duration `yaml:"shutdown_spread" default:"5s" doc:"Over how long connections are told goodbye at shutdown, so that they do not all come back at once."`
	RequestTimeout         time.Duration `yaml:"request_timeout" default:"5s" doc:"How long one command may take in the engine or the session store."`
	IdempotentResultTTL    time.Duration `yaml:"idempotent_result_ttl" default:"5m" doc:"How long a publication with an idempotency key is remembered."`
	ChannelBacklog         int           `yaml:"channel_backlog" default:"512" doc:"How many messages of one channel a connection may be behind before it is repaired from history or closed as slow."`
	ChannelBacklogMaxSize  settings.Size `yaml:"channel_backlog_max_size" default:"2MiB" doc:"How many bytes of one channel's messages are kept for connections that are behind."`
	ChannelTail            int           `yaml:"channel_tail" default:"64" doc:"How many of the newest publications of a channel are kept in memory, never more than history_size, so that clients that come back are answered without asking the engine."`
	ChannelTailMaxSize     settings.Size `yaml:"channel_tail_max_size" default:"64KiB" doc:"How many bytes of payload channel_tail keeps per channel; the newest publication stays in any case."`
	ChannelLinger          time.Duration `yaml:"channel_linger" default:"10s" doc:"How long this node goes on hearing a channel after its last subscriber here left, so that clients that come back at once cost little; 0 ends it at once."`
	PositionCheckDelay     time.Duration `yaml:"channel_position_check_delay" default:"40s" doc:"After how long without a publication this node asks the engine whether it missed one in a channel whose subscribers need to know; 0 never does."`
	AllowChannelCompaction bool          `yaml:"allow_channel_compaction" default:"true" doc:"Clients that speak JSON and can do with it are sent a number instead of the name of a channel with each publication, join and leave."`

	SingleConnection   string        `yaml:"single_connection" default:"" doc:"How many connections a user may have in the whole cluster: user allows one, device one for each device label given at login (without a label, for each login); a newer one closes the older with 3504. Empty sets no limit. Connections without a user are never counted."`
	Concurrency        int           `yaml:"concurrency" default:"0" doc:"How many rpc commands of one connection may run at a time; 0 and 1 run all commands one after the other. Other commands always keep their order."`
	ExpiredDelay       time.Duration `yaml:"expired_close_delay" default:"25s" doc:"How long a connection that expired waits for a new token before it is closed."`
	ExpiredSubDelay    time.Duration `yaml:"expired_sub_close_delay" default:"25s" doc:"How long a subscription that expired waits for a new token before it is ended."`
	IncludeServerTime  bool          `yaml:"connect_include_server_time" default:"false" doc:"Tell clients the server's time when they connect."`
	AllowAnonymous     bool          `yaml:"allow_anonymous_connect_without_token" default:"false" doc:"Who connects without any token is let in as nobody: without a user, and with what channels allow for anonymous."`
	DisallowAnonTokens bool          `yaml:"disallow_anonymous_connection_tokens" default:"false" doc:"Refuse JSON Web Tokens without a user."`
	Insecure           bool          `yaml:"insecure" default:"false" doc:"For tests: whoever connects without a token is let in as nobody, and every client may subscribe, publish, and read presence and history anywhere but in private channels. Tokens that are sent are verified all the same, but connections do not expire. Refused unless listen is a loopback address."`

	Proxy             ask.ClientProxies            `yaml:"proxy" doc:"Webhooks that are asked about connections."`
	Token             connjwt.Settings             `yaml:"token" doc:"JSON Web Tokens of your backend with which its own users connect, instead of a login; off without a key."`
	SubscriptionToken connjwt.SubscriptionSettings `yaml:"subscription_token" doc:"JSON Web Tokens of your backend that admit to one channel."`
}

// Personal says where the personal channel of a user lives.
type Personal struct {
	Enabled   bool   `yaml:"enabled" default:"true" doc:"Subscribe every user to a personal channel."`
	Namespace string `yaml:"personal_channel_namespace" default:"" doc:"The namespace of personal channels; empty means channel.without_namespace."`

	SingleConnection bool `yaml:"single_connection" default:"false" doc:"The same as client.single_connection: user."`
}

// ChannelSettings are the rules of channels.
type ChannelSettings struct {
	Proxy            ask.ChannelProxies `yaml:"proxy" doc:"Webhooks that are asked about channels."`
	WithoutNamespace DefaultNamespace   `yaml:"without_namespace" doc:"Rules of channels whose name has no namespace, personal channels among them."`
	Namespaces       []Namespace        `yaml:"namespaces" doc:"Rules of channels called name:something."`
	MaxLength        int                `yaml:"max_length" default:"255" doc:"How many bytes a channel name may have."`
	HistoryMetaTTL   time.Duration      `yaml:"history_meta_ttl" default:"720h" doc:"How long the position of a stream outlives its publications."`
	DataFormat       string             `yaml:"publication_data_format" default:"" doc:"What publications may carry, where a namespace does not say: json, json_object, binary (also nothing at all), or empty: anything but nothing. Others are refused with 107."`
}

// Namespace is a named set of rules.
type Namespace struct {
	Name string `yaml:"name" doc:"What stands before the first colon of a channel name: two or more letters, digits, dashes, underscores or dots."`
	Access
	History
}

// DefaultNamespace are the rules of channels without a namespace. Unlike named
// namespaces it keeps history, so that what is pushed to a user's personal
// channel survives the moment in the background in which WeChat cuts sockets.
type DefaultNamespace struct {
	Access
	KeptHistory
}

// Access says what clients may do in a channel and who is told about them.
type Access struct {
	Presence                   bool     `yaml:"presence" doc:"Keep who is in the channel."`
	JoinLeave                  bool     `yaml:"join_leave" doc:"Publish when clients come and go; subscribers who may read presence can ask to be told."`
	ForcePushJoinLeave         bool     `yaml:"force_push_join_leave" doc:"Tell every subscriber who comes and goes, asked or not."`
	AllowSubscribeForClient    bool     `yaml:"allow_subscribe_for_client" doc:"Clients may subscribe without a token."`
	AllowSubscribeForAnonymous bool     `yaml:"allow_subscribe_for_anonymous" doc:"What allow_subscribe_for_client says is also for connections without a user, such as those of a JWT that names none."`
	AllowPublishForClient      bool     `yaml:"allow_publish_for_client" doc:"Clients may publish."`
	AllowPublishForSubscriber  bool     `yaml:"allow_publish_for_subscriber" doc:"Clients may publish while they are subscribed."`
	AllowPublishForAnonymous   bool     `yaml:"allow_publish_for_anonymous" doc:"What lets clients publish is also for connections without a user."`
	AllowPresenceForClient     bool     `yaml:"allow_presence_for_client" doc:"Clients may read presence."`
	AllowPresenceForSubscriber bool     `yaml:"allow_presence_for_subscriber" doc:"Clients may read presence while they are subscribed."`
	AllowPresenceForAnonymous  bool     `yaml:"allow_presence_for_anonymous" doc:"What lets clients read presence is also for connections without a user."`
	AllowHistoryForClient      bool     `yaml:"allow_history_for_client" doc:"Clients may read history."`
	AllowHistoryForSubscriber  bool     `yaml:"allow_history_for_subscriber" doc:"Clients may read history while they are subscribed."`
	AllowHistoryForAnonymous   bool     `yaml:"allow_history_for_anonymous" doc:"What lets clients read history is also for connections without a user."`
	AllowUserLimitedChannels   bool     `yaml:"allow_user_limited_channels" doc:"Users named after the # of a channel name may subscribe to it."`
	AllowTagsFilter            bool     `yaml:"allow_tags_filter" doc:"Clients may subscribe with a filter, and get only publications whose tags match it."`
	AllowedDeltaTypes          []string `yaml:"allowed_delta_types" doc:"Kinds of deltas that subscribers may ask for, to get only what changed since the last publication: fossil, or none."`
	DeltaPublish               bool     `yaml:"delta_publish" doc:"Every publication may be sent as a delta, not only those whose publisher says so."`
	ChannelRegex               string   `yaml:"channel_regex" doc:"Go regular expression that the part of the name after the namespace must match; without it names are ASCII."`
	DataFormat                 string   `yaml:"publication_data_format" default:"" doc:"What publications may carry: json, json_object, binary (also nothing at all); empty takes channel.publication_data_format."`

	SubscribeProxyEnabled  bool   `yaml:"subscribe_proxy_enabled" doc:"The subscribe proxy decides who may subscribe without a token, instead of allow_subscribe_for_client."`
	SubscribeProxyName     string `yaml:"subscribe_proxy_name" default:"" doc:"One of proxies; empty or default takes channel.proxy.subscribe."`
	PublishProxyEnabled    bool   `yaml:"publish_proxy_enabled" doc:"The publish proxy decides what clients may publish, instead of allow_publish_for_client and _subscriber."`
	PublishProxyName       string `yaml:"publish_proxy_name" default:"" doc:"One of proxies; empty or default takes channel.proxy.publish."`
	SubRefreshProxyEnabled bool   `yaml:"sub_refresh_proxy_enabled" doc:"The sub_refresh proxy is asked whether subscriptions that expire go on; clients are not told that they do."`
	SubRefreshProxyName    string `yaml:"sub_refresh_proxy_name" default:"" doc:"One of proxies; empty or default takes channel.proxy.sub_refresh."`
}

// History says what a channel keeps and how subscribers get what they missed.
type History struct {
	HistorySize      int           `yaml:"history_size" default:"0" doc:"How many publications the channel keeps; 0 keeps none."`
	HistoryTTL       time.Duration `yaml:"history_ttl" default:"0s" doc:"How long publications are kept after the last one, in whole seconds; set together with history_size."`
	HistoryMetaTTL   time.Duration `yaml:"history_meta_ttl" default:"0s" doc:"How long the position of the stream outlives its publications; 0 takes channel.history_meta_ttl."`
	ForceRecovery    bool          `yaml:"force_recovery" default:"false" doc:"Every subscriber gets after a reconnect what it missed."`
	AllowRecovery    bool          `yaml:"allow_recovery" default:"false" doc:"Subscribers that ask for it get after a reconnect what they missed."`
	ForcePositioning bool          `yaml:"force_positioning" default:"false" doc:"The server watches that no subscriber misses a publication."`
	AllowPositioning bool          `yaml:"allow_positioning" default:"false" doc:"The server watches that subscribers who ask for it miss no publication."`

	ForceRecoveryMode string `yaml:"force_recovery_mode" default:"" doc:"What subscribers get that recover: stream, everything they missed; cache, the latest publication alone. Empty means stream."`
	AutoCacheRecover  bool   `yaml:"auto_cache_recover" default:"false" doc:"With force_recovery_mode cache every new subscriber gets the latest publication, asked or not."`
}

// KeptHistory is History with the defaults of DefaultNamespace.
type KeptHistory struct {
	HistorySize      int           `yaml:"history_size" default:"100" doc:"How many publications the channel keeps; 0 keeps none."`
	HistoryTTL       time.Duration `yaml:"history_ttl" default:"300s" doc:"How long publications are kept after the last one, in whole seconds; set together with history_size."`
	HistoryMetaTTL   time.Duration `yaml:"history_meta_ttl" default:"0s" doc:"How long the position of the stream outlives its publications; 0 takes channel.history_meta_ttl."`
	ForceRecovery    bool          `yaml:"force_recovery" default:"true" doc:"Every subscriber gets after a reconnect what it missed."`
	AllowRecovery    bool          `yaml:"allow_recovery" default:"false" doc:"Subscribers that ask for it get after a reconnect what they missed."`
	ForcePositioning bool          `yaml:"force_positioning" default:"false" doc:"The server watches that no subscriber misses a publication."`
	AllowPositioning bool          `yaml:"allow_positioning" default:"false" doc:"The server watches that subscribers who ask for it miss no publication."`

	ForceRecoveryMode string `yaml:"force_recovery_mode" default:"" doc:"What subscribers get that recover: stream, everything they missed; cache, the latest publication alone. Empty means stream."`
	AutoCacheRecover  bool   `yaml:"auto_cache_recover" default:"false" doc:"With force_recovery_mode cache every new subscriber gets the latest publication, asked or not."`
}

// WebSocketSettings rule the transport.
type WebSocketSettings struct {
	MessageSizeLimit   settings.Size `yaml:"message_size_limit" default:"64KiB" doc:"How many bytes one message of a client may have; a larger one ends the connection with WebSocket code 1009, after which the SDKs do not come back."`
	WriteTimeout       time.Duration `yaml:"write_timeout" default:"5s" doc:"How long 64 KiB written to a client may take before its connection is given up, 1s to 10s."`
	SendBuffer         settings.Size `yaml:"send_buffer" default:"12KiB" doc:"How many bytes the system may keep of what a client has not read, twice that on Linux; more waits here, in its channels. 0 leaves it to the system, which takes up to some MiB for each."`
	Epoll              bool          `yaml:"epoll" default:"true" doc:"On Linux, hold connections without TLS under epoll, where an idle one costs next to nothing. With TLS ended here, on other systems, or where this is false each has a goroutine and buffers."`
	Compression        bool          `yaml:"compression" default:"false" doc:"Compress pushes to clients that offer permessage-deflate (RFC 7692), and read what they compress. A push is compressed once for all who get it. Off saves clients and this node the work; browsers offer it always, wx.connectSocket with perMessageDeflate."`
	CompressionMinSize settings.Size `yaml:"compression_min_size" default:"256" doc:"How many bytes a push must have to be compressed."`
	AllowedOrigins     []string      `yaml:"allowed_origins" doc:"Origins of web pages that may connect, such as https://h5.example.com, with * for any text but a slash; empty allows all, since logins travel in tokens and never in cookies. Mini-programs are always allowed."`
}

// Values of settings.
const (
	singleUser   = "user"   // client.single_connection
	singleDevice = "device" // client.single_connection

	recoverStream = "stream" // force_recovery_mode
	recoverCache  = "cache"  // force_recovery_mode

	formatJSON   = "json"        // publication_data_format
	formatObject = "json_object" // publication_data_format
	formatBinary = "binary"      // publication_data_format

	badFormat      = "must be json, json_object, binary or empty"
	maxConcurrency = 1000
)

var dataFormats = []string{"", formatJSON, formatObject, formatBinary}

// single is the rule about one connection per user that holds.
func (s *ClientSettings) single() string {
	if s.PersonalChannel.SingleConnection {
		return singleUser
	}
	return s.SingleConnection
}

var namespaceName = regexp.MustCompile(`^[-a-zA-Z0-9_.]{2,}$`)

// Check reports what does not fit together.
func (s *Settings) Check(report func(path, problem string)) {
	s.Client.check(func(path, problem string) { report("client."+path, problem) })
	s.Channel.check(func(path, problem string) { report("channel."+path, problem) })
	if s.WebSocket.MessageSizeLimit < 1<<10 {
		report("websocket.message_size_limit", "must be at least 1KiB")
	}
	if n := s.WebSocket.SendBuffer; n != 0 && (n < 4<<10 || n > 16<<20) {
		report("websocket.send_buffer", "must be 0 or between 4KiB and 16MiB")
	}
	if t := s.WebSocket.WriteTimeout; t < time.Second || t > 10*time.Second {
		report("websocket.write_timeout", "must be between 1s and 10s")
	}
	s.checkProxies(report)
	for _, o := range s.WebSocket.AllowedOrigins {
		if _, err := path.Match(o, ""); err != nil {
			report("websocket.allowed_origins", fmt.Sprintf("%q is not a pattern", o))
		}
	}
	if n := s.Client.PersonalChannel.Namespace; n != "" && s.Channel.find(n) == nil {
		report("client.subscribe_to_user_personal_channel.personal_channel_namespace",
			fmt.Sprintf("namespace %q is not in channel.namespaces", n))
	}
	if n := s.Client.UnionIDNamespace; n != "" && !namespaceName.MatchString(n) {
		report("client.unionid_channel_namespace", "must have two or more letters, digits, dashes, underscores or dots")
	}
}

func (s *ClientSettings) check(report func(path, problem string)) {
	if s.PingInterval > 0 && (s.PongTimeout <= 0 || s.PongTimeout >= s.PingInterval) {
		report("pong_timeout", "must be positive and shorter than ping_interval")
	}
	if s.PingInterval < 0 || s.PingInterval%time.Second != 0 {
		report("ping_interval", "must be whole seconds")
	}
	s.checkRanges(report)
	s.checkSingle(report)
	s.checkMemory(report)
}

// checkRanges looks at the settings that have a lower limit and nothing else.
func (s *ClientSettings) checkRanges(report func(path, problem string)) {
	for path, d := range map[string]time.Duration{
		"stale_close_delay":      s.StaleCloseDelay,
		"session_check_interval": s.SessionCheckInterval,
		"request_timeout":        s.RequestTimeout,
		"idempotent_result_ttl":  s.IdempotentResultTTL,
		// After a time of nothing a token that is on its way comes too late.
		"expired_close_delay":     s.ExpiredDelay,
		"expired_sub_close_delay": s.ExpiredSubDelay,
	} {
		if d <= 0 {
			report(path, "must be positive")
		}
	}
	for path, n := range map[string]int{
		"channel_limit":                  s.ChannelLimit,
		"history_max_publication_limit":  s.HistoryLimit,
		"recovery_max_publication_limit": s.RecoveryLimit,
		"channel_backlog":                s.ChannelBacklog,
		"channel_tail":                   s.ChannelTail,
		"command_rate_burst":             s.CommandRateBurst,
	} {
		if n < 1 {
			report(path, "must be at least 1")
		}
	}
	for path, n := range map[string]int{
		"connection_limit":      s.ConnectionLimit,
		"ip_connection_limit":   s.IPConnectionLimit,
		"handshake_limit":       s.HandshakeLimit,
		"overload_delay":        int(s.OverloadDelay),
		"user_connection_limit": s.UserConnectionLimit,
		"connection_rate_limit": s.ConnectionRateLimit,
		"shutdown_spread":       int(s.ShutdownSpread),
		"command_rate_limit":    s.CommandRateLimit,
		"channel_linger":        int(s.ChannelLinger),

		"channel_position_check_delay": int(s.PositionCheckDelay),
	} {
		if n < 0 {
			report(path, "must not be negative")
		}
	}
	if s.Concurrency < 0 || s.Concurrency > maxConcurrency {
		report("concurrency", fmt.Sprintf("must be between 0 and %d", maxConcurrency))
	}
}

func (s *ClientSettings) checkSingle(report func(path, problem string)) {
	if s.SingleConnection != "" && s.SingleConnection != singleUser && s.SingleConnection != singleDevice {
		report("single_connection", "must be user, device or empty")
	}
	if s.PersonalChannel.SingleConnection && s.SingleConnection == singleDevice {
		report("subscribe_to_user_personal_channel.single_connection", "contradicts client.single_connection: device")
	}
	if s.single() != "" && s.UserConnectionLimit == 1 {
		report("user_connection_limit", "must be 0 or at least 2: 1 refuses the newer connection, which single_connection is to keep")
	}
}

func (s *ClientSettings) checkMemory(report func(path, problem string)) {
	if s.QueueMaxSize < 64<<10 {
		report("queue_max_size", "must be at least 64KiB")
	}
	if s.QueueTotalMaxSize != 0 && s.QueueTotalMaxSize < s.QueueMaxSize {
		report("queue_total_max_size", "must be at least queue_max_size")
	}
	if n := s.MemorySoftLimit; n != 0 && n < 32<<20 {
		report("memory_soft_limit", "must be 0 or at least 32MiB")
	}
	if s.ChannelBacklogMaxSize < 64<<10 {
		report("channel_backlog_max_size", "must be at least 64KiB")
	}
}

func (s *ChannelSettings) check(report func(path, problem string)) {
	if s.MaxLength < 1 || s.MaxLength > 255 {
		report("max_length", "must be between 1 and 255")
	}
	if s.HistoryMetaTTL <= 0 {
		report("history_meta_ttl", "must be positive")
	}
	if !slices.Contains(dataFormats, s.DataFormat) {
		report("publication_data_format", badFormat)
	}
	def := s.WithoutNamespace
	checkRules(def.Access, History(def.KeptHistory), s.HistoryMetaTTL, func(path, problem string) {
		report("without_namespace."+path, problem)
	})
	seen := map[string]bool{}
	for i, n := range s.Namespaces {
		at := fmt.Sprintf("namespaces[%d].", i)
		switch {
		case !namespaceName.MatchString(n.Name):
			report(at+"name", "must have two or more letters, digits, dashes, underscores or dots")
		case seen[n.Name]:
			report(at+"name", fmt.Sprintf("%q is there twice", n.Name))
		}
		seen[n.Name] = true
		checkRules(n.Access, n.History, s.HistoryMetaTTL, func(path, problem string) { report(at+path, problem) })
	}
}

func checkRules(a Access, h History, metaTTL time.Duration, report func(path, problem string)) {
	keeps := h.HistorySize > 0 && h.HistoryTTL > 0
	switch {
	case h.HistorySize < 0:
		report("history_size", "must not be negative")
	case h.HistoryTTL < 0 || h.HistoryTTL%time.Second != 0:
		report("history_ttl", "must be whole seconds")
	case (h.HistorySize > 0) != (h.HistoryTTL > 0):
		report("history_size", "must be set together with history_ttl")
	}
	for path, on := range map[string]bool{
		"force_recovery":    h.ForceRecovery,
		"allow_recovery":    h.AllowRecovery,
		"force_positioning": h.ForcePositioning,
		"allow_positioning": h.AllowPositioning,
	} {
		if on && !keeps {
			report(path, "needs history_size and history_ttl")
		}
	}
	if h.HistoryMetaTTL > 0 {
		metaTTL = h.HistoryMetaTTL
	}
	if h.HistoryMetaTTL < 0 || h.HistoryMetaTTL%time.Second != 0 || metaTTL < h.HistoryTTL {
		report("history_meta_ttl", "must be whole seconds and at least history_ttl")
	}
	for _, t := range a.AllowedDeltaTypes {
		if t != fossil {
			report("allowed_delta_types", fmt.Sprintf("%q is not known, there is only %q", t, fossil))
		}
	}
	if a.DeltaPublish && len(a.AllowedDeltaTypes) == 0 {
		report("delta_publish", "needs allowed_delta_types")
	}
	if m := h.ForceRecoveryMode; m != "" && m != recoverStream && m != recoverCache {
		report("force_recovery_mode", "must be stream, cache or empty")
	}
	if h.AutoCacheRecover && (h.ForceRecoveryMode != recoverCache || !h.ForceRecovery && !h.AllowRecovery) {
		report("auto_cache_recover", "needs force_recovery_mode: cache, and force_recovery or allow_recovery")
	}
	if !slices.Contains(dataFormats, a.DataFormat) {
		report("publication_data_format", badFormat)
	}
	if a.ForcePushJoinLeave && !a.JoinLeave {
		report("force_push_join_leave", "needs join_leave")
	}
	if _, err := regexp.Compile(a.ChannelRegex); err != nil {
		report("channel_regex", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
}

func (s *ChannelSettings) find(name string) *Namespace {
	for i := range s.Namespaces {
		if s.Namespaces[i].Name == name {
			return &s.Namespaces[i]
		}
	}
	return nil
}
