package auth

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

func TestSettingsCheck(t *testing.T) {
	app := AppSettings{AppID: appA, Secret: secretA}
	for name, tc := range map[string]struct {
		change func(*Settings)
		want   []string
	}{
		"defaults":        {func(*Settings) {}, nil},
		"loopback http":   {func(s *Settings) { s.WeChat.BaseURL = "http://127.0.0.1:9001" }, nil},
		"loopback v6":     {func(s *Settings) { s.WeChat.BaseURL = "http://[::1]:9001/wx" }, nil},
		"localhost":       {func(s *Settings) { s.WeChat.BaseURL = "http://localhost" }, nil},
		"plain http":      {func(s *Settings) { s.WeChat.BaseURL = "http://api.weixin.qq.com" }, []string{"base_url"}},
		"looks loopback":  {func(s *Settings) { s.WeChat.BaseURL = "http://127.0.0.1.example.com" }, []string{"base_url"}},
		"userinfo":        {func(s *Settings) { s.WeChat.BaseURL = "https://localhost@example.com" }, []string{"base_url"}},
		"no scheme":       {func(s *Settings) { s.WeChat.BaseURL = "api.weixin.qq.com" }, []string{"base_url"}},
		"query":           {func(s *Settings) { s.WeChat.BaseURL = "https://x/?a=b" }, []string{"base_url"}},
		"no app":          {func(s *Settings) { s.WeChat.Apps = nil }, []string{"apps"}},
		"same app twice":  {func(s *Settings) { s.WeChat.Apps = []AppSettings{app, app} }, []string{"apps[1].appid"}},
		"odd appid":       {func(s *Settings) { s.WeChat.Apps[0].AppID = "wx12" }, []string{"apps[0].appid"}},
		"no secret":       {func(s *Settings) { s.WeChat.Apps[0].Secret = "" }, []string{"apps[0].secret"}},
		"timeout":         {func(s *Settings) { s.WeChat.Timeout = 0 }, []string{"timeout"}},
		"ttl":             {func(s *Settings) { s.Session.TTL = time.Second }, []string{"ttl"}},
		"max age":         {func(s *Settings) { s.Session.MaxAge = s.Session.TTL - 1 }, []string{"max_age"}},
		"no max age":      {func(s *Settings) { s.Session.MaxAge = 0 }, nil},
		"app rate":        {func(s *Settings) { s.Session.LoginAppRate = -1 }, []string{"login_app_rate"}},
		"app burst":       {func(s *Settings) { s.Session.LoginAppBurst = 0 }, []string{"login_app_burst"}},
		"max per user":    {func(s *Settings) { s.Session.MaxPerUser = -1 }, []string{"max_per_user"}},
		"verify cache":    {func(s *Settings) { s.Session.VerifyCache = time.Hour }, []string{"verify_cache"}},
		"login rate":      {func(s *Settings) { s.Session.LoginRate = math.NaN() }, []string{"login_rate"}},
		"login burst":     {func(s *Settings) { s.Session.LoginBurst = 0 }, []string{"login_burst"}},
		"limits disabled": {func(s *Settings) { s.Session.LoginRate, s.Session.LoginBurst = 0, 0 }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var s Settings
			settings.Defaults(&s)
			s.WeChat.Apps = []AppSettings{app}
			tc.change(&s)
			var got []string
			report := func(path, _ string) { got = append(got, path) }
			s.WeChat.Check(report)
			s.Session.Check(report)
			if !slices.Equal(got, tc.want) {
				t.Errorf("reported %q, want %q", got, tc.want)
			}
		})
	}
}
