package rest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCORS(t *testing.T) {
	const origin = "https://h5.example.com"
	tests := []struct {
		name    string
		cors    CORS
		method  string
		headers []string // name, value, …
		status  int
		allowed string
		vary    string
	}{
		{"off", CORS{}, "GET", []string{"Origin", origin}, 418, "", ""},
		{"allowed", CORS{AllowedOrigins: []string{"https://a", origin}}, "GET", []string{"Origin", origin}, 418, origin, "Origin"},
		{"any", CORS{AllowedOrigins: []string{"*"}}, "GET", []string{"Origin", origin}, 418, origin, "Origin"},
		{"other", CORS{AllowedOrigins: []string{"https://a"}}, "GET", []string{"Origin", origin}, 418, "", "Origin"},
		{"suffix", CORS{AllowedOrigins: []string{"https://h5.example.com.evil"}}, "GET", []string{"Origin", origin}, 418, "", "Origin"},
		{"no origin", CORS{AllowedOrigins: []string{"*"}}, "GET", nil, 418, "", "Origin"},
		{"preflight", CORS{AllowedOrigins: []string{origin}}, "OPTIONS", []string{"Origin", origin, "Access-Control-Request-Method", "PUT"}, 204, origin, "Origin"},
		{"preflight of another", CORS{AllowedOrigins: []string{"https://a"}}, "OPTIONS", []string{"Origin", origin, "Access-Control-Request-Method", "PUT"}, 418, "", "Origin"},
		{"plain options", CORS{AllowedOrigins: []string{origin}}, "OPTIONS", []string{"Origin", origin}, 418, origin, "Origin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "/", nil)
			for pair := range slices.Chunk(tt.headers, 2) {
				r.Header.Set(pair[0], pair[1])
			}
			w := httptest.NewRecorder()
			tt.cors.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })).ServeHTTP(w, r)
			h := w.Header()
			if w.Code != tt.status || h.Get("Access-Control-Allow-Origin") != tt.allowed || h.Get("Vary") != tt.vary || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%d %v", w.Code, h)
			}
			if exposed := h.Get("Access-Control-Expose-Headers"); (exposed != "") != (tt.allowed != "" && tt.status != 204) {
				t.Errorf("exposed %q", exposed)
			}
		})
	}
}

func TestCORSPreflightHeaders(t *testing.T) {
	r := httptest.NewRequest("OPTIONS", "/", nil)
	r.Header.Set("Origin", "https://a")
	r.Header.Set("Access-Control-Request-Method", "PUT")
	w := httptest.NewRecorder()
	CORS{AllowedOrigins: []string{"https://a"}, AllowedHeaders: []string{"X-Tenant"}}.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	for _, name := range []string{"Authorization", "Content-Type", "X-HTTP-Method-Override", "Range", "X-Tenant"} {
		if !slices.Contains(strings.Split(w.Header().Get("Access-Control-Allow-Headers"), ", "), name) {
			t.Errorf("%s is not allowed: %v", name, w.Header())
		}
	}
}

func TestCORSCheck(t *testing.T) {
	var got []string
	c := CORS{AllowedOrigins: []string{"*", "https://a", "http://a:8080", "https://a/", "a.com", "https://u@a", "https://a?x", ""}}
	c.Check(func(path, _ string) { got = append(got, path) })
	want := []string{"allowed_origins[3]", "allowed_origins[4]", "allowed_origins[5]", "allowed_origins[6]", "allowed_origins[7]"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestVerificationFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("MP_verify_a-1.txt", "abc")
	handlers, err := VerificationFiles([]string{good, write("big.txt", strings.Repeat("x", 64<<10))})
	if err != nil || len(handlers) != 2 {
		t.Fatal(handlers, err)
	}
	w := httptest.NewRecorder()
	handlers["/MP_verify_a-1.txt"].ServeHTTP(w, httptest.NewRequest("GET", "/MP_verify_a-1.txt", nil))
	if w.Code != 200 || w.Body.String() != "abc" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	bad := []string{
		write("a.html", ""), write("a b.txt", ""), write(".txt", ""), write("中.txt", ""), write("larger.txt", strings.Repeat("x", 64<<10+1)),
		filepath.Join(dir, "missing.txt"), write("twice/MP_verify_a-1.txt", "x"), write("dir.txt/x", ""),
	}
	bad[len(bad)-1] = filepath.Join(dir, "dir.txt")
	_, err = VerificationFiles(append([]string{good}, bad...))
	if err == nil || strings.Count(err.Error(), "\n") != len(bad)-1 {
		t.Errorf("problems: %v", err)
	}
}
