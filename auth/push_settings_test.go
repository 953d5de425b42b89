package auth

import (
	"slices"
	"testing"

	"github.com/minigate/minigate/internal/settings"
)

func TestPushSettings(t *testing.T) {
	good := PushSettings{Token: pushToken, AESKey: pushKey}
	for name, tc := range map[string]struct {
		change func(*PushSettings)
		want   []string
	}{
		"good":      {func(*PushSettings) {}, nil},
		"off":       {func(s *PushSettings) { *s = PushSettings{} }, nil},
		"no token":  {func(s *PushSettings) { s.Token = "" }, []string{"token"}},
		"odd token": {func(s *PushSettings) { s.Token = "a b" }, []string{"token"}},
		"no key":    {func(s *PushSettings) { s.AESKey = "" }, []string{"encoding_aes_key"}},
		"short key": {func(s *PushSettings) { s.AESKey = "abc" }, []string{"encoding_aes_key"}},
		"plain":     {func(s *PushSettings) { s.AESKey, s.AllowPlain = "", true }, nil},
		"old": {func(s *PushSettings) {
			s.PreviousTokens, s.PreviousKeys = []settings.Secret{"OLD"}, []settings.Secret{otherKey}
		}, nil},
		"bad old ones": {func(s *PushSettings) {
			s.PreviousTokens, s.PreviousKeys = []settings.Secret{"OLD", "-"}, []settings.Secret{"x"}
		}, []string{"previous_tokens[1]", "previous_aes_keys[0]"}},
	} {
		s := good
		tc.change(&s)
		var got []string
		s.Check(func(path, _ string) { got = append(got, path) })
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: mistakes in %v, want %v", name, got, tc.want)
		}
	}
}

func TestOpenDataSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*OpenDataSettings)
		want   string
	}{
		"defaults": {func(*OpenDataSettings) {}, ""},
		"age":      {func(s *OpenDataSettings) { s.MaxAge = 1 }, "max_age"},
		"proof":    {func(s *OpenDataSettings) { s.ProofTTL = 0 }, "proof_ttl"},
		"rate":     {func(s *OpenDataSettings) { s.Rate = -1 }, "rate"},
		"burst":    {func(s *OpenDataSettings) { s.Burst = 0 }, "burst"},
		"no limit": {func(s *OpenDataSettings) { s.Rate, s.Burst = 0, 0 }, ""},
	} {
		var s OpenDataSettings
		settings.Defaults(&s)
		tc.change(&s)
		got := ""
		s.Check(func(path, _ string) { got += path })
		if got != tc.want {
			t.Errorf("%s: mistakes in %q, want %q", name, got, tc.want)
		}
	}
}
