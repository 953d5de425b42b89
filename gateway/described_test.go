package gateway

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/apidoc/apidoctest"
)

// TestDescribedCommands sends every command there is: it and its reply are as
// described. (That all other replies and pushes are is looked at where the
// tests of this package read them.)
func TestDescribedCommands(t *testing.T) {
	h := startHub(t, nil)
	w := h.dial(dialOptions{})
	for i, c := range []struct{ command, reply string }{
		{`"connect":{"token":"alice","name":"js","version":"1","data":{},"headers":{"a":"b"},"subs":{"feed:a":{"recover":true,"offset":1,"epoch":"x"}}}`, `"connect":{"client":`},
		{`"subscribe":{"channel":"room:a","recoverable":true,"positioned":true,"join_leave":true,"flag":1}`, `"subscribe":{`},
		{`"subscribe":{"channel":"delta:a","delta":"fossil"}`, `"delta":true`},
		{`"subscribe":{"channel":"tags:a","tf":{"key":"lang","cmp":"eq","val":"en"}}`, `"subscribe":{`},
		{`"publish":{"channel":"room:a","data":{"n":1}}`, `"publish":{}`},
		{`"presence":{"channel":"room:a"}`, `"presence":{"presence":{"`},
		{`"presence_stats":{"channel":"room:a"}`, `"presence_stats":{"num_clients":1,"num_users":1}`},
		{`"history":{"channel":"room:a","limit":1,"since":{"offset":0,"epoch":""},"reverse":false}`, `"history":{"publications":[`},
		{`"rpc":{"method":"x","data":1}`, `"error":{"code":108`},
		{`"refresh":{"token":"alice"}`, `"refresh":{`},
		{`"sub_refresh":{"channel":"room:a","token":"x"}`, `"error":{"code":`},
		{`"unsubscribe":{"channel":"room:a"}`, `"unsubscribe":{}`},
	} {
		line := fmt.Sprintf(`{"id":%d,%s}`, i+1, c.command)
		if err := apidoctest.CheckCommand([]byte(line)); err != nil {
			t.Error(err)
		}
		w.send(line)
		reply := w.next()
		for ; !strings.HasPrefix(reply, fmt.Sprintf(`{"id":%d,`, i+1)); reply = w.next() {
			if !strings.HasPrefix(reply, `{"push":`) {
				t.Fatalf("%s was answered %s", line, reply)
			}
		}
		if !strings.Contains(reply, c.reply) {
			t.Errorf("%s was answered %s, want %s", line, reply, c.reply)
		}
	}
	const send = `{"send":{"data":1}}`
	if err := apidoctest.CheckCommand([]byte(send)); err != nil {
		t.Error(err)
	}
	w.send(send)
	w.wantEnd(DisconnectNotAvailable)
}

// TestDescribedCodes compares the description of the socket with the code.
func TestDescribedCodes(t *testing.T) {
	text, err := os.ReadFile("errors.go") // ends are variables of their own: only the source has them all
	if err != nil {
		t.Fatal(err)
	}
	var ends, errs []string
	for _, m := range regexp.MustCompile(`&Disconnect\{(\d+), "([^"]+)"\}`).FindAllStringSubmatch(string(text), -1) {
		ends = append(ends, m[1]+" "+m[2])
	}
	for _, c := range codes {
		errs = append(errs, fmt.Sprint(c.Code, " ", c.Message))
	}
	errs = append(errs, fmt.Sprint(internalError.Code, " ", internalError.Message))
	for kind, want := range map[string][]string{"close": ends, "error": errs} {
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(apidoctest.Codes(kind))); !slices.Equal(got, want) || len(want) < 10 {
			t.Errorf("%s codes: described\n%q, there are\n%q", kind, got, want)
		}
	}
	var unsubscribed []string
	for _, code := range []int{unsubscribedByServer, unsubscribedInsufficient, unsubscribedExpired} {
		unsubscribed = append(unsubscribed, fmt.Sprint(code))
	}
	for i, got := range apidoctest.Codes("unsubscribe") {
		if i >= len(unsubscribed) || !strings.HasPrefix(got, unsubscribed[i]+" ") {
			t.Errorf("unsubscribe codes %q, want %q", apidoctest.Codes("unsubscribe"), unsubscribed)
		}
	}
}
