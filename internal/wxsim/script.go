package wxsim

import (
	"encoding/json"
	"io"
	"net/http"
)

// Trouble is how one call to a WeChat API goes wrong. The first field that is
// set decides.
type Trouble struct {
	Hang  bool   // no answer until the caller gives up
	Reset bool   // the connection breaks
	HTTP  int    // this status, and Body
	Body  string // this instead of JSON
	Code  int    // this errcode, with Msg and a request id behind it
	Msg   string
}

// Script makes the next calls of an API (a path such as
// "/cgi-bin/stable_token") go wrong one after the other; then all is well.
func (s *Server) Script(path string, troubles ...Trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[path] = append(s.scripts[path], troubles...)
}

// Calls is how often an API was called, whatever came of it.
func (s *Server) Calls(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[path]
}

// scripted counts a call and answers it where it is to go wrong.
func (s *Server) scripted(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	s.calls[r.URL.Path]++
	next := s.scripts[r.URL.Path]
	if len(next) > 0 {
		s.scripts[r.URL.Path] = next[1:]
	}
	s.mu.Unlock()
	if len(next) == 0 {
		return false
	}
	switch t := next[0]; {
	case t.Hang:
		<-r.Context().Done()
	case t.Reset:
		panic(http.ErrAbortHandler)
	case t.HTTP != 0:
		w.WriteHeader(t.HTTP)
		_, _ = io.WriteString(w, t.Body) // the caller may be gone
	case t.Body != "":
		_, _ = io.WriteString(w, t.Body)
	default:
		w.Header().Set("Content-Type", "text/plain")
		_ = json.NewEncoder(w).Encode(s.failure(&apiError{t.Code, t.Msg}))
	}
	return true
}
