package auth

import (
	"fmt"
	"regexp"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/settings"
)

// PushSettings are what mp.weixin.qq.com shows for a mini-program's message
// push. XML and JSON are told apart by themselves.
type PushSettings struct {
	Token          settings.Secret   `yaml:"token" doc:"The Token of the message push: 3 to 32 letters and digits."`
	AESKey         settings.Secret   `yaml:"encoding_aes_key" doc:"The EncodingAESKey of the message push: 43 letters and digits."`
	PreviousTokens []settings.Secret `yaml:"previous_tokens" doc:"Tokens that are taken too, while a new one is introduced."`
	PreviousKeys   []settings.Secret `yaml:"previous_aes_keys" doc:"EncodingAESKeys that are tried too, while a new one is introduced."`
	AllowPlain     bool              `yaml:"allow_plain" default:"false" doc:"Take messages that are not encrypted. Their signature does not cover them: who sees one request can send another message with it."`
}

var (
	wellFormedPushToken = regexp.MustCompile(`^[0-9A-Za-z]{3,32}$`)
	wellFormedPushKey   = regexp.MustCompile(`^[0-9A-Za-z]{43}$`)
)

func (s *PushSettings) on() bool { return s.Token.Value() != "" }

// Check finds mistakes in the block push of a mini-program.
func (s *PushSettings) Check(report func(path, problem string)) {
	if !s.on() {
		if s.AESKey.Value() != "" || s.AllowPlain || len(s.PreviousTokens)+len(s.PreviousKeys) > 0 {
			report("token", "is missing: without it the message push is off")
		}
		return
	}
	const token, key = "must be 3 to 32 letters and digits", "must be 43 letters and digits"
	if !wellFormedPushToken.MatchString(s.Token.Value()) {
		report("token", token)
	}
	if !wellFormedPushKey.MatchString(s.AESKey.Value()) && (s.AESKey.Value() != "" || !s.AllowPlain) {
		report("encoding_aes_key", key)
	}
	for i, t := range s.PreviousTokens {
		if !wellFormedPushToken.MatchString(t.Value()) {
			report(fmt.Sprintf("previous_tokens[%d]", i), token)
		}
	}
	for i, k := range s.PreviousKeys {
		if !wellFormedPushKey.MatchString(k.Value()) {
			report(fmt.Sprintf("previous_aes_keys[%d]", i), key)
		}
	}
}

// keys makes what opens this mini-program's messages.
func (s *PushSettings) keys(appID string) (*wechat.PushKeys, error) {
	tokens, aesKeys := []string{s.Token.Value()}, []string(nil)
	for _, t := range s.PreviousTokens {
		tokens = append(tokens, t.Value())
	}
	if s.AESKey.Value() != "" {
		aesKeys = append(aesKeys, s.AESKey.Value())
	}
	for _, k := range s.PreviousKeys {
		aesKeys = append(aesKeys, k.Value())
	}
	return wechat.NewPushKeys(appID, tokens, aesKeys)
}
