package transfer

import (
	"net/url"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
	"github.com/minigate/minigate/transfer/clamd"
)

// What becomes of files about which nobody can say anything.
const (
	decidePass  = "pass"
	decideBlock = "block"
)

// CheckSettings say who looks at what is in files.
type CheckSettings struct {
	WeChat      WeChatCheckSettings `yaml:"wechat" doc:"WeChat's check of pictures and sound (media_check_async)."`
	Clamd       ClamdSettings       `yaml:"clamd" doc:"ClamAV's daemon, which looks for viruses."`
	Timeout     time.Duration       `yaml:"timeout" default:"2m" doc:"How long clamd may take to look at one file, and WeChat to take an order; between 1s and 30m. Whoever cannot say by then is asked again."`
	GiveUp      time.Duration       `yaml:"give_up" default:"2h" doc:"After which time files are not waited for any longer: then undecided says what becomes of them. Between 1m and 72h; a verdict that comes later still blocks."`
	Undecided   string              `yaml:"undecided" default:"block" doc:"What becomes of a file about which somebody could not say anything until give_up: block or pass."`
	Workers     int                 `yaml:"workers" default:"4" doc:"How many files this node has looked at at the same time."`
	KeepBlocked time.Duration       `yaml:"keep_blocked" default:"168h" doc:"How long it is remembered why a file is blocked; its bytes are gone at once. At least 1h."`
}

// WeChatCheckSettings are those of WeChat's check.
type WeChatCheckSettings struct {
	Enabled    bool          `yaml:"enabled" default:"false" doc:"Have WeChat check pictures and sound of up to 10 MB; video it does not take. It fetches them from files.public_url, and answers by the message push, which has to be set up for each mini-program."`
	Scene      int           `yaml:"scene" default:"2" doc:"Where files are going to be seen, in WeChat's words: 1 profiles, 2 comments, 3 a forum, 4 a social log."`
	Answer     time.Duration `yaml:"answer" default:"40m" doc:"How long its answer may take until it is asked again; it means to answer within 30 minutes. Between 1m and 24h. For so long WeChat, and nobody else, can fetch the file."`
	Review     string        `yaml:"review" default:"block" doc:"What becomes of files that, it says, a person should look at: block or pass."`
	Unsuitable string        `yaml:"unsuitable" default:"pass" doc:"What becomes, as far as WeChat is concerned, of files that it does not check, of other types or larger: block or pass."`
	Inactive   string        `yaml:"inactive" default:"block" doc:"What becomes of files of users whom it has not seen in the mini-program for two hours, whose files it does not check either: block or pass. With pass, who kept a token and does not open the mini-program gets round the check."`
}

// ClamdSettings say where clamd is.
type ClamdSettings struct {
	Address    string        `yaml:"address" doc:"Where clamd listens: unix:/run/clamav/clamd.ctl, or host:port in a network that is trusted, since it is not encrypted. Empty asks nobody."`
	MaxStream  settings.Size `yaml:"max_stream" default:"25MiB" doc:"The largest file that it is sent. Its own StreamMaxLength has to be as large."`
	Unsuitable string        `yaml:"unsuitable" default:"block" doc:"What becomes of larger files: block or pass."`
}

// CheckWebhookSettings say whom to ask about what is in files.
type CheckWebhookSettings struct {
	Endpoint string        `yaml:"endpoint" doc:"URL at your backend that is asked about each file before others can read it. Empty asks nobody."`
	Timeout  time.Duration `yaml:"timeout" default:"30s" doc:"Time the backend has to fetch the file and to answer; between 50ms and 10m. Then it is asked again."`
}

// Check finds mistakes in the block.
func (s *CheckWebhookSettings) Check(report func(path, problem string)) {
	if s.Endpoint != "" {
		if problem := webhook.CheckEndpoint(s.Endpoint); problem != "" {
			report("endpoint", problem)
		}
	}
	if s.Timeout < 50*time.Millisecond || s.Timeout > 10*time.Minute {
		report("timeout", "must be between 50ms and 10m")
	}
}

// Check finds mistakes in the block.
func (s *CheckSettings) Check(report func(path, problem string)) {
	for path, v := range map[string]string{
		"undecided": s.Undecided, "wechat.review": s.WeChat.Review, "wechat.inactive": s.WeChat.Inactive,
		"wechat.unsuitable": s.WeChat.Unsuitable, "clamd.unsuitable": s.Clamd.Unsuitable,
	} {
		if v != decidePass && v != decideBlock {
			report(path, "must be pass or block")
		}
	}
	for path, d := range map[string]struct{ is, least, most time.Duration }{
		"timeout":       {s.Timeout, time.Second, 30 * time.Minute},
		"give_up":       {s.GiveUp, time.Minute, 72 * time.Hour},
		"wechat.answer": {s.WeChat.Answer, time.Minute, 24 * time.Hour},
	} {
		if d.is < d.least || d.is > d.most {
			report(path, "must be between "+d.least.String()+" and "+d.most.String())
		}
	}
	if s.KeepBlocked < time.Hour {
		report("keep_blocked", "must be at least 1h")
	}
	if s.Workers < 1 {
		report("workers", "must be more than 0")
	}
	if s.WeChat.Scene < 1 || s.WeChat.Scene > 4 {
		report("wechat.scene", "must be between 1 and 4")
	}
	if _, ok := clamd.At(s.Clamd.Address); s.Clamd.Address != "" && !ok {
		report("clamd.address", "must be unix:PATH or host:port")
	}
	if s.Clamd.MaxStream <= 0 {
		report("clamd.max_stream", "must be more than 0")
	}
}

// checkPublic wants an address where WeChat can fetch files.
func (s *Settings) checkPublic(report func(path, problem string)) {
	if !s.Inspect.WeChat.Enabled {
		return
	}
	if u, err := url.Parse(s.PublicURL); err != nil || u.Scheme != "https" {
		report("public_url", "must be an https address where files.check.wechat is enabled: WeChat fetches files from there")
	}
}
