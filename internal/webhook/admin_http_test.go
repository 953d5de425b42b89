package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minigate/minigate/internal/rest"
	"github.com/minigate/minigate/internal/testdeps"
)

// desk is an operator in front of a Dispatcher.
type desk struct {
	*Dispatcher
	t *testing.T
}

// ask calls a handler, wants the status, and decodes what it says into v.
func (d desk) ask(h rest.Handler, body string, status int, v any) string {
	d.t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(d.t.Context(), "POST", "/", strings.NewReader(body)))
	raw := w.Body.String()
	if w.Code != status {
		d.t.Errorf("%s: status %d, want %d: %s", body, w.Code, status, raw)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(raw), v); err != nil {
			d.t.Errorf("%s: %v in %s", body, err, raw)
		}
	}
	return raw
}

func (d desk) ids(body string) (ids []string, all ListAnswer) {
	d.t.Helper()
	if raw := d.ask(d.ServeDead, body, 200, &all); strings.Contains(raw, marker) {
		d.t.Errorf("the list says %s", raw)
	}
	ids = []string{}
	for _, i := range all.Deliveries {
		ids = append(ids, i.ID)
	}
	return ids, all
}

// forDesks runs a test over both queues.
func forDesks(t *testing.T, test func(t *testing.T, d desk, again func(QueueOptions) Queue)) {
	s := contractSettings
	s.MaxDead = 10
	path := filepath.Join(t.TempDir(), "queue.db")
	file, db := openFileQueue(t, path, sealed(s))
	client := newRedisClient(t, testdeps.Redis(t))
	for name, q := range map[string]struct {
		Queue
		again func(QueueOptions) Queue
	}{
		"file": {file, func(o QueueOptions) Queue {
			q, err := NewFileQueue(db, o)
			must(t, err)
			return q
		}},
		"redis": {NewRedisQueue(client, "desk", sealed(s)), func(o QueueOptions) Queue { return NewRedisQueue(client, "desk", o) }},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, desk{NewDispatcher(q.Queue, s, nil), t}, q.again)
		})
	}
}

func (d desk) buried(ids ...string) {
	d.t.Helper()
	for _, id := range ids {
		must(d.t, d.queue.Put(d.t.Context(), marked(id)))
		c := wantTake(d.t, d.queue, id)
		c.Item.failed(errAnswer.Because(statusError(410)))
		must(d.t, d.queue.Bury(d.t.Context(), c))
		awaitNextMilli()
	}
}

func TestOperatorsList(t *testing.T) {
	forDesks(t, func(t *testing.T, d desk, _ func(QueueOptions) Queue) {
		if raw := d.ask(d.ServeDead, "{}", 200, nil); raw != `{"queue":{"pending":0,"dead":0,"dead_bytes":0},"deliveries":[]}` {
			t.Errorf("an empty queue is listed as %s", raw)
		}
		d.buried("1", "2", "3", "4")
		must(t, d.queue.Put(t.Context(), newItem("waits")))
		ids, all := d.ids(`{}`)
		if !slices.Equal(ids, []string{"4", "3", "2", "1"}) || all.Queue.Pending != 1 || all.Queue.Dead != 4 || all.Queue.DeadBytes == 0 || time.Since(all.Queue.Oldest) < 0 || all.Queue.Oldest.IsZero() {
			t.Errorf("listed %q, %+v", ids, all.Queue)
		}
		if i := all.Deliveries[0]; i.Status != 410 || i.Attempts != 1 || i.Hook != "news" || i.Event != "test.event" || !strings.Contains(i.Reason, "webhook_error") || i.Died.IsZero() || i.Queued.IsZero() || i.Body != nil || i.Key != "" {
			t.Errorf("listed as %+v", i)
		}
		for body, want := range map[string]string{
			`{"limit":2}`: "[4 3]", `{"skip":2,"limit":1}`: "[2]", `{"skip":3}`: "[1]", `{"skip":4}`: "[]",
		} {
			if ids, _ := d.ids(body); fmt.Sprint(ids) != want {
				t.Errorf("%s lists %q, want %s", body, ids, want)
			}
		}
		for _, body := range []string{`{"limit":0}`, `{"limit":101}`, `{"skip":-1}`, `{"skip":1000001}`} {
			if raw := d.ask(d.ServeDead, body, 400, nil); !strings.Contains(raw, "page_invalid") {
				t.Errorf("%s: %s", body, raw)
			}
		}
	})
}

// Only who asks for the body sees it, and that is noted.
func TestOperatorsShow(t *testing.T) {
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)
	forDesks(t, func(t *testing.T, d desk, again func(QueueOptions) Queue) {
		d.buried("1")
		log.Reset()
		var shown DeadInfo
		if raw := d.ask(d.ServeShow, `{"delivery":"1"}`, 200, &shown); strings.Contains(raw, marker) || shown.Status != 410 || log.Len() > 0 {
			t.Errorf("shown as %s; logged %s", raw, &log)
		}
		d.ask(d.ServeShow, `{"delivery":"1","body":true}`, 200, &shown)
		if string(shown.Body) != string(marked("1").Body) || shown.Key != marked("1").Key {
			t.Errorf("shown as %+v", shown)
		}
		if text := log.String(); !strings.Contains(text, "delivery=1") || strings.Contains(text, marker) {
			t.Errorf("logged %s", text)
		}
		d.ask(d.ServeShow, `{"delivery":"2"}`, 404, nil)
		d.ask(d.ServeShow, `{}`, 404, nil)
		d.queue = again(withKeys(2))
		if raw := d.ask(d.ServeShow, `{"delivery":"1"}`, 200, &shown); !strings.Contains(raw, "keys.sealing_old") {
			t.Errorf("shown as %s", raw)
		}
		if raw := d.ask(d.ServeShow, `{"delivery":"1","body":true}`, 409, nil); !strings.Contains(raw, "delivery_sealed") {
			t.Errorf("shown as %s", raw)
		}
	})
}

func TestOperatorsReplayAndDrop(t *testing.T) {
	forDesks(t, func(t *testing.T, d desk, again func(QueueOptions) Queue) {
		d.buried("1", "2", "3", "4")
		var answer ManyAnswer
		for _, body := range []string{`{}`, `{"delivery":"1","all":true}`} {
			for _, h := range []rest.Handler{d.ServeReplay, d.ServeDrop} {
				if raw := d.ask(h, body, 400, nil); !strings.Contains(raw, "delivery_missing") {
					t.Errorf("%s: %s", body, raw)
				}
			}
		}
		d.ask(d.ServeReplay, `{"delivery":"5"}`, 404, nil)
		d.ask(d.ServeDrop, `{"delivery":"5"}`, 404, nil)
		d.ask(d.ServeReplay, `{"delivery":"3"}`, 200, &answer)
		must(t, d.queue.Done(t.Context(), wantTake(t, d.queue, "3")))
		d.ask(d.ServeDrop, `{"delivery":"1"}`, 200, &answer)
		if ids, _ := d.ids(`{}`); fmt.Sprint(ids) != "[4 2]" || answer != (ManyAnswer{Done: 1}) {
			t.Errorf("%q are left, %+v", ids, answer)
		}
		d.ask(d.ServeReplay, `{"all":true}`, 200, &answer)
		if answer != (ManyAnswer{Done: 2}) {
			t.Errorf("replayed %+v", answer)
		}
		for _, id := range []string{"2", "4"} { // one lane, in the order in which they died
			must(t, d.queue.Done(t.Context(), wantTake(t, d.queue, id)))
		}

		d.buried("5")
		mine := d.queue
		d.queue = again(withKeys(2))
		d.ask(d.ServeReplay, `{"all":true}`, 409, nil) // nothing could be done
		d.buried("6", "7")
		answer = ManyAnswer{}
		d.ask(d.ServeReplay, `{"all":true}`, 200, &answer)
		if answer.Done != 2 || answer.Failed != 1 || !strings.HasPrefix(answer.Problem, "delivery_sealed: ") {
			t.Errorf("replayed %+v", answer)
		}
		d.queue = mine
		d.buried()
		answer = ManyAnswer{}
		d.ask(d.ServeDrop, `{"all":true}`, 200, &answer)
		d.ask(d.ServeDrop, `{"all":true}`, 200, nil)
		if answer != (ManyAnswer{Done: 1}) {
			t.Errorf("dropped %+v", answer)
		}
		wantSize(t, d.queue, 2, 0)
	})
}

// What does not fit into the queue stays dead.
func TestReplayIntoAFullQueue(t *testing.T) {
	forDesks(t, func(t *testing.T, d desk, again func(QueueOptions) Queue) {
		d.buried("1", "2", "3")
		s := contractSettings
		s.MaxPending = 2
		d.queue = again(sealed(s))
		var answer ManyAnswer
		d.ask(d.ServeReplay, `{"all":true}`, 200, &answer)
		if answer.Done != 2 || answer.Failed != 1 || !strings.HasPrefix(answer.Problem, "webhook_queue_full: ") {
			t.Errorf("replayed %+v", answer)
		}
		wantSize(t, d.queue, 2, 1)
		d.ask(d.ServeReplay, `{"delivery":"3"}`, 503, nil)
	})
}

// Replaying rouses the dispatcher, which would look a second later only.
func TestReplayIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		mustEnqueue(t, o.Queue(), "a-1")
		bury(t, o.Queue(), "a-1")
		stop := o.run()
		time.Sleep(pollEvery / 2)
		desk{o.Dispatcher, t}.ask(o.ServeReplay, `{"delivery":"a-1"}`, 200, nil)
		time.Sleep(pollEvery / 4)
		stop()
		if len(o.box.arrived) != 1 {
			t.Errorf("arrived %q", o.box.arrived)
		}
	})
}

// A replayed delivery reaches a real backend as the same delivery, signed
// anew, at once.
func TestReplayDelivers(t *testing.T) {
	type arrival struct {
		header http.Header
		body   string
		err    error
	}
	arrived := make(chan arrival, 10)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = Verify(r.Header, body, []Key{keyA}, time.Now())
		}
		arrived <- arrival{r.Header, string(body), err}
	}))
	defer backend.Close()
	forDesks(t, func(t *testing.T, d desk, _ func(QueueOptions) Queue) {
		e := newEndpoint(t, "news", backend.URL, time.Minute, nil)
		defer e.client.Close()
		d.Dispatcher = NewDispatcher(d.queue, d.settings, nil, e)
		d.buried("1", "2")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		before := time.Now().Unix()
		d.ask(d.ServeReplay, `{"all":true}`, 200, nil)
		for _, id := range []string{"1", "2"} {
			a := <-arrived
			signed, err := strconv.ParseInt(a.header.Get(HeaderTimestamp), 10, 64)
			if a.err != nil || err != nil || signed < before || a.header.Get(HeaderDelivery) != id || a.header.Get(HeaderEvent) != "test.event" || a.body != string(marked(id).Body) {
				t.Errorf("%s arrived as %+v, signed at %d, not before %d", id, a, signed, before)
			}
		}
		cancel()
		must(t, <-done)
		wantSize(t, d.queue, 0, 0)
	})
}
