package difftest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"testing"
	"time"

	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/internal/settings"
)

const secret = "a secret of more than thirty-two bytes"

// labSettings are what both servers are configured with.
func labSettings(t testing.TB) gateway.Settings {
	var s gateway.Settings
	settings.Defaults(&s)
	s.Client.ShutdownSpread = 0
	s.Client.ChannelLimit = 8
	s.Client.HistoryLimit = 20
	s.Client.RecoveryLimit = 20
	s.Client.CommandRateLimit = 0
	s.Client.UnionIDNamespace = ""
	s.Client.Token.HMACSecretKey = secret
	everything := gateway.Access{
		Presence: true, JoinLeave: true, ForcePushJoinLeave: true,
		AllowSubscribeForClient: true, AllowSubscribeForAnonymous: true,
		AllowPublishForClient: true, AllowPublishForAnonymous: true,
		AllowPresenceForClient: true, AllowPresenceForAnonymous: true,
		AllowHistoryForClient: true, AllowHistoryForAnonymous: true,
	}
	subscriber := gateway.Access{
		Presence: true, JoinLeave: true, AllowSubscribeForClient: true,
		AllowPublishForSubscriber: true, AllowPresenceForSubscriber: true, AllowHistoryForSubscriber: true,
	}
	quiet := gateway.Access{AllowSubscribeForClient: true, AllowPublishForClient: true, AllowHistoryForClient: true}
	kept := gateway.History{HistorySize: 10, HistoryTTL: 20 * time.Second, ForceRecovery: true}
	small := gateway.History{HistorySize: 2, HistoryTTL: 20 * time.Second, ForceRecovery: true}
	latest := gateway.History{HistorySize: 10, HistoryTTL: 20 * time.Second, ForceRecovery: true, ForceRecoveryMode: "cache"}
	delta, filter := quiet, quiet
	delta.AllowedDeltaTypes, delta.DeltaPublish = []string{"fossil"}, true
	filter.AllowTagsFilter = true
	asked := gateway.History{HistorySize: 10, HistoryTTL: 20 * time.Second, AllowRecovery: true, AllowPositioning: true}
	s.Channel.Namespaces = []gateway.Namespace{
		{Name: "room", Access: everything, History: kept},
		{Name: "rec", Access: quiet, History: kept},
		{Name: "small", Access: quiet, History: small},
		{Name: "large", Access: quiet, History: gateway.History{HistorySize: 50, HistoryTTL: 20 * time.Second, ForceRecovery: true}},
		{Name: "asked", Access: quiet, History: asked},
		{Name: "pos", Access: quiet, History: gateway.History{HistorySize: 10, HistoryTTL: 20 * time.Second, ForcePositioning: true}},
		{Name: "plain", Access: gateway.Access{AllowSubscribeForClient: true, AllowPublishForSubscriber: true}},
		{Name: "member", Access: subscriber, History: asked},
		{Name: "locked", Access: gateway.Access{Presence: true}, History: asked},
		{Name: "dialog", Access: gateway.Access{AllowUserLimitedChannels: true, AllowHistoryForClient: true}, History: kept},
		{Name: "delta", Access: delta, History: kept},
		{Name: "filter", Access: filter, History: kept},
		{Name: "cache", Access: quiet, History: latest},
		{Name: "regex", Access: gateway.Access{AllowSubscribeForClient: true, ChannelRegex: `^[a-z]+$`}},
	}
	s.Check(func(path, problem string) { t.Fatalf("settings: %s %s", path, problem) })
	return s
}

func verifier(t testing.TB, s gateway.Settings) *connjwt.Verifier {
	v, err := connjwt.New(s.Client.Token, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// jwt signs claims, which are JSON, with HS256.
func jwt(claims string) string {
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + enc.EncodeToString(mac.Sum(nil))
}
