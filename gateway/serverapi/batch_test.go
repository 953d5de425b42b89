package serverapi

import (
	"context"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/apikey"
)

// TestBatchInParallel: a parallel batch runs so many commands at a time, no
// more, and a batch in order only one.
func TestBatchInParallel(t *testing.T) {
	w := newWorld(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	methods["rpc"] = method{call: func(_ *API, ctx context.Context, _ caller, _ []byte) (any, error) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return empty{}, nil
	}}
	t.Cleanup(func() { methods["rpc"] = handle("", (*API).rpc) })
	const commands = 40
	body := strings.Repeat(`,{"rpc":{}}`, commands)[1:]
	for parallel, atATime := range map[string]int{"true": batchParallel, "false": 1} {
		done := make(chan int)
		go func() {
			c := caller{}
			c.Caller, _ = w.api.keys.Find(adminKey)
			result, err := w.api.batch(t.Context(), c, []byte(`{"commands":[`+body+`],"parallel":`+parallel+`}`))
			if err != nil {
				t.Error(err)
			}
			done <- len(result.(batchReply).Replies)
		}()
		running := 0
		for range atATime {
			<-arrived
			running++
		}
		for left := commands - running; left > 0; left-- {
			select {
			case <-arrived:
				t.Errorf("parallel %s: more than %d at a time", parallel, atATime)
			default:
			}
			release <- struct{}{}
			<-arrived
		}
		for range atATime {
			release <- struct{}{}
		}
		if n := <-done; n != commands {
			t.Errorf("parallel %s: %d replies", parallel, n)
		}
	}
}

// TestBatchRightsOfMethods: a batch may use what its key may use alone.
func TestBatchRightsOfMethods(t *testing.T) {
	w := newWorld(t)
	for name, key := range map[string]string{apikey.Admin: adminKey, apikey.Publish: publishKey, apikey.Read: readKey} {
		for m := range methods {
			if m == "batch" {
				continue
			}
			alone, _ := w.post(m, `{}`, "X-Api-Key", key)
			_, batched := w.post("batch", `{"commands":[{"`+m+`":{}}]}`, "X-Api-Key", key)
			if (alone == 403) != strings.Contains(batched, `"code":103`) {
				t.Errorf("%s with %s: alone %d, in a batch %s", m, name, alone, batched)
			}
		}
	}
}

// TestLooksOfABatchAreBounded: looks are refused once those before them have
// answered too much; what sends goes on.
func TestLooksOfABatchAreBounded(t *testing.T) {
	w := newWorld(t)
	w.must("publish", `{"channel":"room:a","data":"0123456789"}`)
	_, one := w.post("batch", `{"commands":[{"history":{"channel":"room:a","limit":1}}]}`)
	look := strings.TrimSuffix(strings.TrimPrefix(one, `{"replies":[`), `]}`)
	const refused, sent = `{"error":{"code":106,"message":"limit exceeded"}}`, `{"publish":{}}`
	w.api.maxLooks = 2 * int64(len(look)-len(`{"history":}`))
	const command = `{"history":{"channel":"room:a","limit":1}}`
	_, got := w.post("batch", `{"commands":[`+strings.Join([]string{command, command, command, `{"publish":{"channel":"plain:a","data":1}}`, command}, ",")+`]}`)
	if want := `{"replies":[` + strings.Join([]string{look, look, refused, sent, refused}, ",") + `]}`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	line := `{"method":"history","params":{"channel":"room:a","limit":1}}` + "\n"
	if _, got := w.postCommands(line + line + line); strings.Count(got, "publications") != 2 || !strings.HasSuffix(got, refused) {
		t.Errorf("got %s", got)
	}
	if _, again := w.post("batch", `{"commands":[`+command+`]}`); again != one {
		t.Errorf("the next batch: %s, want %s", again, one)
	}
}
