package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1024": 1024, "64KiB": 64 << 10, "5MB": 5e6, "1 GiB": 1 << 30, "2tib": 2 << 40, "7b": 7, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "+1", "1.5MB", "1k", "1M", "1  KB", "1KiBB", " 1", "1 ", "9223372036854775808", "8388608TiB", "0x10", "1_000", "٣"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestSizeString(t *testing.T) {
	for size, want := range map[Size]string{0: "0", 1: "1", 1000: "1KB", 1024: "1KiB", 64 << 20: "64MiB", 5e9: "5GB", 1025: "1025", -1: "-1"} {
		if got := size.String(); got != want {
			t.Errorf("%d: %q", int64(size), got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"1024", "64KiB", "5 MB", "9223372036854775807B", "1.5GB", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseSize(text)
		if err != nil {
			return
		}
		if back, err := ParseSize(n.String()); n < 0 || err != nil || back != n {
			t.Errorf("%q is %d, printed %q, read again %d, %v", text, int64(n), n, int64(back), err)
		}
	})
}

func TestSecretNeverShows(t *testing.T) {
	s := Secret("hush")
	type box struct{ S Secret }
	asJSON, err := json.Marshal(map[string]any{"a": s, "b": []Secret{s}, "c": box{s}, "d": &s})
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(map[string]any{"a": s, "b": []Secret{s}, "c": box{s}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "a", s, "b", box{s})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "a", s, "b", box{s})
	shown := []string{string(asJSON), string(asYAML), log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		shown = append(shown, fmt.Sprintf(verb+verb+verb, s, box{s}, []Secret{s}))
	}
	for _, text := range shown {
		if strings.Contains(text, "hush") || strings.Contains(text, fmt.Sprintf("%x", "hush")) || !strings.Contains(text, mask) {
			t.Errorf("shown: %s", text)
		}
	}
	if s.Value() != "hush" || Secret("").String() != "" {
		t.Error("a secret lost its value, or an empty one looks set")
	}
}
