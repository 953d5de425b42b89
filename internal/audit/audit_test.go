package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

func capture(t testing.TB) *bytes.Buffer {
	var buf bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&buf, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	return &buf
}

// TestHandler: the handler gets the whole body, the log only whom it is about.
func TestHandler(t *testing.T) {
	long := strings.Repeat("x", maxBody)
	for name, c := range map[string]struct {
		body   string
		err    error
		result string
		target string
	}{
		"good":       {`{"user":"oAlice","session":"ab","reason":"private","data":{"user":"x"},"all":true}`, nil, "ok", `{"user":"oAlice","session":"ab","all":true}`},
		"refused":    {`{"delivery":"d1"}`, fault.New(fault.NotFound, "delivery_unknown", "No."), "delivery_unknown", `{"delivery":"d1"}`},
		"broken":     {`{"client":"c1","disconnect":{"reason":"a"}}`, errors.New("secret detail"), "internal", `{"client":"c1"}`},
		"no JSON":    {`{"user":`, nil, "ok", ``},
		"odd types":  {`{"user":["a"],"channel":"room:a","all":"yes"}`, nil, "ok", `{"channel":"room:a"}`},
		"long":       {`{"user":"` + long + `"}`, nil, "ok", ``},
		"long field": {`{"user":"` + long[:1000] + `"}`, nil, "ok", `{"user":"` + long[:maxField] + `…"}`},
	} {
		logged := capture(t)
		var got []byte
		h := Handler("users/block", func(*http.Request) string { return "ops" }, func(_ http.ResponseWriter, r *http.Request) error {
			got, _ = io.ReadAll(r.Body)
			return c.err
		})
		edge := rest.Edge{}.Wrap(rest.Handler(func(w http.ResponseWriter, r *http.Request) error {
			if err := h(w, r); !errors.Is(err, c.err) {
				t.Errorf("%s: %v became %v", name, c.err, err)
			}
			return nil
		}))
		edge.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(c.body)))
		if string(got) != c.body {
			t.Errorf("%s: of %d bytes %d arrived", name, len(c.body), len(got))
		}
		var line struct {
			Msg, Key, Method, Result, Remote string
			RequestID                        string `json:"request_id"`
			Target                           json.RawMessage
		}
		if err := json.Unmarshal(logged.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v in %s", name, err, logged)
		}
		if line.Msg != Message || line.Key != "ops" || line.Method != "users/block" || line.Result != c.result ||
			line.Remote == "" || line.RequestID == "" || string(line.Target) != c.target {
			t.Errorf("%s: %.400s", name, logged)
		}
		if strings.Contains(logged.String(), "private") || strings.Contains(logged.String(), "secret") {
			t.Errorf("%s: too much in %s", name, logged)
		}
	}
}

// TestUnreadableBody: the handler meets the error that the audit met.
func TestUnreadableBody(t *testing.T) {
	capture(t)
	broken := errors.New("cut")
	h := Handler("x", func(*http.Request) string { return "" }, func(_ http.ResponseWriter, r *http.Request) error {
		_, err := io.ReadAll(r.Body)
		return err
	})
	r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(`{"user"`), iotest.ErrReader(broken)))
	if err := h(nil, r); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{``, `{`, `{"user":"a","all":true}`, `{"user":1}`, `{"user":"` + strings.Repeat("é", 200) + `"}`, `[]`, `{"all":"x","file":"f"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, a := range Target(body).Group() {
			if text := a.Value.String(); len(text) > maxField+len("…") || !utf8.ValidString(text) {
				t.Errorf("%s is %q", a.Key, text)
			}
		}
	})
}
