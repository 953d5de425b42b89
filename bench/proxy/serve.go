package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// serve is a server of the benchmark, which ends with its standard input:
// "upstream", whose argument is the size of its answers, or "auth", whose
// argument is the token that it knows.
func serve(what, arg string) error {
	var h http.Handler
	switch what {
	case "upstream":
		size, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		h = upstream(size)
	case "auth":
		h = authenticator(arg)
	default:
		return fmt.Errorf("there is no server %q", what)
	}
	l, err := listen()
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the benchmark ends
		_ = l.Close()
	}()
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	_ = server.Serve(l) // until the listener is closed
	return nil
}

// upstream answers whom it was told to be talking to.
func upstream(size int) http.Handler {
	padding := strings.Repeat("x", max(0, size-64))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := r.Header.Get("X-WX-OPENID")
		if user == "" {
			http.Error(w, "nobody is calling", http.StatusForbidden)
			return
		}
		body := `{"user":"` + user + `","data":"` + padding + `"}`
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write([]byte(body))
	})
}

// session is what the authentication server knows of a token.
type session struct{ openID, unionID, appID string }

// authenticator is the simplest server that does for nginx what minigate does
// for itself: it looks a token's fingerprint up in memory and names its user.
func authenticator(token string) http.Handler {
	sessions := map[[sha256.Size]byte]session{sha256.Sum256([]byte(token)): {"o-bench", "u-bench", "wx0000000000000dev"}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s, known := sessions[sha256.Sum256([]byte(token))]
		if !bearer || !known {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h := w.Header()
		h.Set("X-Openid", s.openID)
		h.Set("X-Unionid", s.unionID)
		h.Set("X-Appid", s.appID)
		w.WriteHeader(http.StatusNoContent)
	})
}
