package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/testdeps"
)

// unreliable is a transport that does to requests what a rule says.
type unreliable struct {
	http.Transport
	mu   sync.Mutex
	rule func(r *http.Request) (*http.Response, error) // nil, or both nil: nothing
	seen []string
}

func (u *unreliable) RoundTrip(r *http.Request) (*http.Response, error) {
	u.mu.Lock()
	rule := u.rule
	u.seen = append(u.seen, r.Method)
	u.mu.Unlock()
	if rule != nil {
		if resp, err := rule(r); resp != nil || err != nil {
			return resp, err
		}
	}
	return u.Transport.RoundTrip(r)
}

func (u *unreliable) set(rule func(r *http.Request) (*http.Response, error)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rule, u.seen = rule, nil
}

var errWire = errors.New("the wire broke")

// cutBody lets only so much of a request's body through, and breaks then.
func cutBody(after int64) func(r *http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPut && r.Body != nil {
			body := r.Body
			r.Body = struct {
				io.Reader
				io.Closer
			}{cutAfter(body, after, errWire), body}
		}
		return nil, nil
	}
}

// busy answers 503 so many times to requests that match.
func busy(times int, match func(r *http.Request) bool) func(r *http.Request) (*http.Response, error) {
	var mu sync.Mutex
	return func(r *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if times == 0 || !match(r) {
			return nil, nil
		}
		times--
		if r.Body != nil {
			_ = r.Body.Close() // as transports do
		}
		return &http.Response{
			StatusCode: http.StatusServiceUnavailable, Status: "503 Slow Down", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Content-Type": {"application/xml"}},
			Body:   io.NopCloser(strings.NewReader(`<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>`)),
		}, nil
	}
}

func everyRequest(*http.Request) bool { return true }

func newUnreliableS3(t *testing.T) (*S3, *unreliable) {
	t.Helper()
	srv := testdeps.MinIO(t)
	u := &unreliable{}
	s, err := newS3(S3Settings{
		Endpoint: srv.Endpoint, Region: srv.Region, Bucket: srv.Bucket,
		AccessKey: srv.AccessKey, SecretKey: settings.Secret(srv.SecretKey), ConditionalWrites: true,
	}, 3*partSize, u, u.CloseIdleConnections)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, u
}

// puts are the ways in which bytes go to S3: at once from memory, streamed, and
// in parts.
var puts = map[string]struct{ size, announced int64 }{
	"at once":  {1000, 1000},
	"streamed": {partSize + 1000, partSize + 1000},
	"in parts": {2*partSize + 1000, -1},
}

// A connection that breaks half way leaves nothing that could be read.
func TestS3ConnectionCut(t *testing.T) {
	s, u := newUnreliableS3(t)
	for name, put := range puts {
		data := random(int(put.size))
		for _, after := range []int64{0, 1, 500, partSize / 2} {
			if after > put.size {
				continue
			}
			u.set(cutBody(after))
			_, err := s.Put(t.Context(), "cut", bytes.NewReader(data), put.announced)
			if !isKind(err, fault.Unavailable) {
				t.Errorf("%s, cut after %d: %v", name, after, err)
			}
			u.set(nil)
			wantNothing(t, s, "cut")
			if n := unfinishedParts(t, s, "cut"); n != 0 {
				t.Errorf("%s, cut after %d: %d unfinished uploads left", name, after, n)
			}
			if s.buffers.spare != 3*partChunks {
				t.Errorf("%s, cut after %d: %d chunks are back", name, after, s.buffers.spare)
			}
		}
		if _, err := s.Put(t.Context(), "whole "+name, bytes.NewReader(data), put.announced); err != nil {
			t.Errorf("%s, after all that: %v", name, err)
		}
	}
}

// A storage that is busy for a moment is asked again where the bytes are still
// at hand; one that stays so is told from one that lost something.
func TestS3Busy(t *testing.T) {
	s, u := newUnreliableS3(t)
	for name, put := range puts {
		data := random(int(put.size))
		u.set(busy(1, func(r *http.Request) bool { return r.Method == http.MethodPut }))
		_, err := s.Put(t.Context(), "once "+name, bytes.NewReader(data), put.announced)
		if streamed := name == "streamed"; streamed != isKind(err, fault.Unavailable) || !streamed && err != nil {
			t.Errorf("%s, busy once: %v", name, err)
		}
		u.set(busy(-1, everyRequest))
		if _, err := s.Put(t.Context(), "busy", bytes.NewReader(data), put.announced); !isKind(err, fault.Unavailable) || fault.Of(err).RetryAfter == 0 {
			t.Errorf("%s, busy: %v", name, err)
		}
		u.set(nil)
		wantNothing(t, s, "busy")
	}
	u.set(busy(-1, everyRequest))
	_, statErr := s.Stat(t.Context(), "once at once")
	_, openErr := s.Open(t.Context(), "once at once", 0, -1)
	_, _, listErr := s.List(t.Context(), "", 10)
	for name, err := range map[string]error{"Stat": statErr, "Open": openErr, "List": listErr, "Delete": s.Delete(t.Context(), "once at once"), "Ping": s.Ping(t.Context())} {
		if !isKind(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	u.set(nil)
	if n, err := s.Stat(t.Context(), "once at once"); err != nil || n != 1000 {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

// What comes back shorter than it should is an error and not an end.
func TestS3AnswerCut(t *testing.T) {
	s, u := newUnreliableS3(t)
	data := random(100_000)
	if _, err := s.Put(t.Context(), "k", bytes.NewReader(data), -1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ offset, length, after int64 }{{0, -1, 0}, {0, -1, 50_000}, {1000, 50_000, 49_999}, {99_999, 1, 0}} {
		for _, cause := range []error{errWire, io.ErrUnexpectedEOF} {
			u.set(func(r *http.Request) (*http.Response, error) {
				resp, err := u.Transport.RoundTrip(r)
				if err != nil {
					return nil, err
				}
				body := resp.Body
				resp.Body = section{cutAfter(body, tt.after, cause), body}
				return resp, nil
			})
			r, err := s.Open(t.Context(), "k", tt.offset, tt.length)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if !isKind(err, fault.Unavailable) || !storageFailed(err) || int64(len(got)) > tt.after {
				t.Errorf("%+v, %v: %d bytes, %v", tt, cause, len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A storage that does not answer is let go when the client is.
func TestS3Slow(t *testing.T) {
	s, u := newUnreliableS3(t)
	for name, call := range map[string]func(ctx context.Context) error{
		"Put":  func(ctx context.Context) error { _, err := s.Put(ctx, "slow", strings.NewReader("x"), 1); return err },
		"Open": func(ctx context.Context) error { _, err := s.Open(ctx, "slow", 0, -1); return err },
		"Stat": func(ctx context.Context) error { _, err := s.Stat(ctx, "slow"); return err },
		"List": func(ctx context.Context) error { _, _, err := s.List(ctx, "", 1); return err },
	} {
		ctx, leave := context.WithCancel(t.Context())
		u.set(func(r *http.Request) (*http.Response, error) {
			leave()
			<-r.Context().Done()
			if r.Body != nil {
				_ = r.Body.Close() // as transports do
			}
			return nil, r.Context().Err()
		})
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
