package transfer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/minigate/minigate/internal/testdeps"
)

// A storage is believed only what it does. Each of these lets something in, or
// keeps something out, that it should not.
func TestDirectProbe(t *testing.T) {
	srv := testdeps.MinIO(t)
	isPost := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.RawQuery == "" }
	isPart := func(r *http.Request) bool {
		return r.Method == http.MethodPut && r.URL.Query().Get("X-Amz-Signature") != ""
	}
	torn := make(chan struct{}) // the part that broke off is stored
	isCopy := func(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }
	for name, test := range map[string]struct {
		front       func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler)
		form, parts bool
	}{
		"as it should be": {func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) { toMinIO.ServeHTTP(w, r) }, true, true},
		"no forms": {func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
			if isPost(r) {
				w.WriteHeader(http.StatusNotImplemented)
				return
			}
			toMinIO.ServeHTTP(w, r)
		}, false, true},
		"any form": {func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
			if isPost(r) {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			toMinIO.ServeHTTP(w, r)
		}, false, true},
		"copies whatever is there": {func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
			if isCopy(r) { // the header is signed, so that it cannot be taken out
				w.WriteHeader(http.StatusOK)
				_, _ = io.WriteString(w, `<CopyPartResult><ETag>"x"</ETag></CopyPartResult>`)
				return
			}
			toMinIO.ServeHTTP(w, r)
		}, false, true},
		"parts of any size": {func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
			if isPart(r) && r.ContentLength == 4 {
				return
			}
			toMinIO.ServeHTTP(w, r)
		}, true, false},
		"no parts": {func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
			if isPart(r) {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			toMinIO.ServeHTTP(w, r)
		}, true, false},
		"keeps torn parts": {func(w http.ResponseWriter, r *http.Request, toMinIO http.Handler) {
			switch n := r.URL.Query().Get("partNumber"); {
			case isPart(r) && n == "2":
				defer close(torn)
				body := make([]byte, r.ContentLength)
				_, _ = io.ReadFull(r.Body, body)                                      // with zeros behind the cut
				ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context())) // the client is gone
				defer cancel()
				r = r.WithContext(ctx)
				r.Body = io.NopCloser(bytes.NewReader(body))
			case isPart(r) && n == "3":
				<-torn
			}
			toMinIO.ServeHTTP(w, r)
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, newTestS3(t, inFront(t, srv, test.front)), newTestFileLedger(t), wantDirect)
			if err := h.direct.try(t.Context()); err != nil {
				t.Fatal(err)
			}
			if form, parts := h.direct.form.Load(), h.direct.parts.Load(); form != test.form || parts != test.parts {
				t.Errorf("form %v, parts %v; want %v, %v", form, parts, test.form, test.parts)
			}
			for mode, can := range map[string]bool{ModeForm: test.form, ModeParts: test.parts} {
				want := map[bool]string{true: "storage", false: "gateway"}[can]
				if d := h.reserve(`{"size":5,"mode":"` + mode + `"}`); d.Target != want {
					t.Errorf("%s goes to %s", mode, d.Target)
				} else if a := h.do("DELETE", "/files/direct/"+d.ID, nil); a.StatusCode != http.StatusNoContent {
					t.Errorf("%v", a)
				}
				if got := testutil.ToFloat64(h.metrics.direct.WithLabelValues(mode)); (got == 1) != can {
					t.Errorf("metric of %s: %v", mode, got)
				}
				if got := testutil.ToFloat64(h.metrics.reserved.WithLabelValues(mode, want)); got != 1 {
					t.Errorf("%v reservations of %s", got, mode)
				}
			}
			h.wantNothingLeft()
		})
	}
}

// A storage that is away is tried again; one that need not be tried is not.
func TestDirectProbeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tries := 0
		away := transportFunc(func(*http.Request) (*http.Response, error) {
			if tries++; tries > 20 {
				cancel()
			}
			return nil, io.ErrUnexpectedEOF
		})
		store, err := newS3(S3Settings{Endpoint: "127.0.0.1:1", Region: "r", Bucket: "bucket", AccessKey: "a", SecretKey: "s"}, partSize, away, func() {})
		if err != nil {
			t.Fatal(err)
		}
		d := newDirect(store, true, NewMetrics(prometheus.NewRegistry()))
		d.tryUntil(ctx)
		if tries <= 20 || d.form.Load() || d.parts.Load() {
			t.Errorf("%d tries, form %v, parts %v", tries, d.form.Load(), d.parts.Load())
		}
		before := tries
		newDirect(store, false, NewMetrics(prometheus.NewRegistry())).tryUntil(t.Context())
		newDirect(nil, true, NewMetrics(prometheus.NewRegistry())).tryUntil(t.Context())
		if tries != before {
			t.Error("tried what is not wanted")
		}
	})
}

type transportFunc func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whatever a client asks for, it gets a clear answer, and a policy that says
// what was asked for and nothing else.
func FuzzReserve(f *testing.F) {
	for _, seed := range []string{
		`{"size":5}`, `{"size":0,"mode":"parts"}`, `{"size":5,"type":"image/png; a=\"b\""}`, `{"size":-1}`, `{"size":1e3}`,
		`{"size":5,"type":"a/b\"],[\"starts-with\",\"$key\",\"\"]"}`, `{"size":5,"name":"../\u0000"}`, `{"size":9223372036854775807}`, `[]`, ``,
		`{"size":20000000,"mode":"parts","sha256":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		store, err := NewS3(S3Settings{Endpoint: "127.0.0.1:1", Region: "us-east-1", Bucket: "bucket", AccessKey: "a", SecretKey: "s"}, partSize)
		if err != nil {
			t.Fatal(err)
		}
		store.ready.Store(true)
		h := newHouse(t, store, newTestFileLedger(t), wantDirect)
		h.direct.form.Store(true) // and parts would ask the storage
		a := h.do("POST", "/files/direct", strings.NewReader(body), "Content-Type", "application/json")
		if a.StatusCode != http.StatusCreated {
			if a.StatusCode >= 500 && a.code() != "storage_unavailable" || a.code() == "" {
				t.Fatalf("%q: %v", body, a)
			}
			return
		}
		var d directAnswer
		if err := json.Unmarshal([]byte(a.body), &d); err != nil {
			t.Fatal(err)
		}
		if d.Target == "gateway" {
			return
		}
		file, err := h.ledger.Get(t.Context(), d.ID)
		if err != nil {
			t.Fatal(err)
		}
		wantPolicy(t, d.Upload, file)
	})
}

// wantPolicy checks that a form lets in what was reserved and nothing else.
func wantPolicy(t *testing.T, form *Form, f File) {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(form.Fields["policy"])
	if err != nil {
		t.Fatal(err)
	}
	var policy struct{ Conditions [][]any }
	if err := json.Unmarshal(text, &policy); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	want := map[string]any{
		"$bucket": "bucket", "$key": f.postKey(), "$Content-Type": form.Fields["Content-Type"], "$success_action_status": "200",
		"$x-amz-date": form.Fields["x-amz-date"], "$x-amz-algorithm": form.Fields["x-amz-algorithm"], "$x-amz-credential": form.Fields["x-amz-credential"],
	}
	for _, c := range policy.Conditions {
		if c[0] == "content-length-range" && c[1] == float64(f.Session.Size) && c[2] == float64(f.Session.Size) {
			delete(want, "size")
			continue
		}
		name, _ := c[1].(string)
		if c[0] != "eq" || want[name] == nil || want[name] != c[2] {
			t.Fatalf("the policy allows %v: %s", c, text)
		}
		delete(want, name)
	}
	if len(want) != 0 || len(policy.Conditions) != 8 {
		t.Fatalf("the policy misses %v: %s", want, text)
	}
}
