package auth

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

// Settings are the two blocks this package reads from the configuration.
type Settings struct {
	WeChat  WeChatSettings  `yaml:"wechat" doc:"WeChat and the mini-programs served."`
	Session SessionSettings `yaml:"session" doc:"Login sessions."`
}

// WeChatSettings say how to reach WeChat and for which mini-programs.
type WeChatSettings struct {
	BaseURL  string           `yaml:"base_url" default:"https://api.weixin.qq.com" doc:"Where WeChat's server API is; https, unless it is a loopback address."`
	Timeout  time.Duration    `yaml:"timeout" default:"5s" doc:"Time for one call to WeChat including its retries; between 100ms and 60s."`
	OpenData OpenDataSettings `yaml:"open_data" doc:"Data that WeChat hands to phones, encrypted or signed, for us to open."`
	Apps     []AppSettings    `yaml:"apps" doc:"The mini-programs; the first one is meant where a login names none."`
}

// AppSettings are one mini-program's credentials.
type AppSettings struct {
	AppID  string          `yaml:"appid" doc:"The mini-program's AppID: wx and 16 letters or digits."`
	Secret settings.Secret `yaml:"secret" doc:"The mini-program's AppSecret."`
	Push   PushSettings    `yaml:"push" doc:"WeChat's message push to /wechat/push/APPID; without a token it is off."`
}

// SessionSettings say how long logins last and how many there may be.
type SessionSettings struct {
	TTL         time.Duration `yaml:"ttl" default:"720h" doc:"How long a session lasts after it was last used; between 1m and 8760h."`
	MaxAge      time.Duration `yaml:"max_age" default:"2160h" doc:"How long a session lasts at most, however often it is used; at least ttl. 0 sets no limit."`
	StoreIP     bool          `yaml:"store_ip" default:"true" doc:"Keep the address each session was last seen at, for operators. false also removes what was kept, as sessions are used."`
	MaxPerUser  int           `yaml:"max_per_user" default:"10" doc:"Sessions one user may have at a time; a login beyond that ends the oldest. 0 sets no limit."`
	VerifyCache time.Duration `yaml:"verify_cache" default:"3s" doc:"How long a node remembers a verified token, and whether a user is blocked; also how long a revoked one can still work where Redis lost the message. 0 asks the store each time, at most 1m."`
	TicketTTL   time.Duration `yaml:"ticket_ttl" default:"5m" doc:"How long a ticket of POST /auth/ticket works; between 10s and 10m."`
	LoginRate   float64       `yaml:"login_rate" default:"20" doc:"Logins per second from one client address in the long run; mobile carriers put thousands of phones behind one. 0 sets no limit."`
	LoginBurst  int           `yaml:"login_burst" default:"200" doc:"Logins from one client address that may come at once."`

	LoginWebhook LoginWebhookSettings `yaml:"login_webhook" doc:"Asking your backend at every login."`

	LoginAppRate  float64 `yaml:"login_app_rate" default:"500" doc:"Logins per second that a node takes to WeChat for one mini-program in the long run. 0 sets no limit."`
	LoginAppBurst int     `yaml:"login_app_burst" default:"2000" doc:"Logins for one mini-program that a node may take to WeChat at once."`
}

var wellFormedAppID = regexp.MustCompile(`^wx[0-9A-Za-z]{16}$`)

// Check finds mistakes in the block wechat.
func (s *WeChatSettings) Check(report func(path, problem string)) {
	if problem := checkBaseURL(s.BaseURL); problem != "" {
		report("base_url", problem)
	}
	if s.Timeout < 100*time.Millisecond || s.Timeout > time.Minute {
		report("timeout", "must be between 100ms and 60s")
	}
	if len(s.Apps) == 0 {
		report("apps", "must name at least one mini-program")
	}
	seen := make(map[string]bool, len(s.Apps))
	for i, app := range s.Apps {
		path := fmt.Sprintf("apps[%d]", i)
		if !wellFormedAppID.MatchString(app.AppID) {
			report(path+".appid", `must be "wx" and 16 letters or digits`)
		} else if seen[app.AppID] {
			report(path+".appid", "is there twice")
		}
		seen[app.AppID] = true
		if app.Secret.Value() == "" {
			report(path+".secret", "must not be empty")
		}
	}
}

// checkBaseURL refuses plain http except to this machine: the AppSecret and
// every session_key travel there.
func checkBaseURL(text string) (problem string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "must be a URL like https://api.weixin.qq.com"
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return ""
	}
	return "must begin with https://, or with http:// and a loopback address"
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Check finds mistakes in the block session.
func (s *SessionSettings) Check(report func(path, problem string)) {
	if s.TTL < time.Minute || s.TTL > 8760*time.Hour {
		report("ttl", "must be between 1m and 8760h")
	}
	if s.MaxAge < 0 || s.MaxAge > 0 && s.MaxAge < s.TTL {
		report("max_age", "must be 0 or at least ttl")
	}
	if s.MaxPerUser < 0 || s.MaxPerUser > 1000 {
		report("max_per_user", "must be between 0 and 1000")
	}
	if s.VerifyCache < 0 || s.VerifyCache > time.Minute {
		report("verify_cache", "must be between 0s and 1m")
	}
	if s.TicketTTL < 10*time.Second || s.TicketTTL > maxTicketTTL {
		report("ticket_ttl", "must be between 10s and 10m")
	}
	if !(s.LoginRate >= 0) { // also refuses NaN
		report("login_rate", "must not be negative")
	}
	if s.LoginRate > 0 && s.LoginBurst < 1 {
		report("login_burst", "must be at least 1")
	}
	if !(s.LoginAppRate >= 0) {
		report("login_app_rate", "must not be negative")
	}
	if s.LoginAppRate > 0 && s.LoginAppBurst < 1 {
		report("login_app_burst", "must be at least 1")
	}
}
