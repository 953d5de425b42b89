package serverapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// postCommands sends a body to POST /api.
func (w *world) postCommands(body string, header ...string) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.URL+"/api", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "apikey "+adminKey)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return w.do(r)
}

// TestCommands goes through what SDKs of the older generations send.
func TestCommands(t *testing.T) {
	w := newWorld(t)
	epoch := w.epochOf("room:a")
	many := strings.Repeat(`{"method":"presence_stats","params":{"channel":"room:a"}}`+"\n", maxTargets)
	for name, c := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"one":         {`{"method":"presence","params":{"channel":"room:a"}}`, 200, `{"result":{"presence":{}}}`},
		"with an id":  {`{"id":7,"method":"channels","params":{}}`, 200, `{"id":7,"result":{"channels":{}}}`},
		"no params":   {`{"method":"channels"}`, 200, `{"result":{"channels":{}}}`},
		"null params": {`{"method":"channels","params":null}`, 200, `{"result":{"channels":{}}}`},
		"extras":      {`{"uid":"x","method":"rpc","params":{}}`, 200, `{"error":{"code":104,"message":"method not found"}}`},
		"several": {
			`{"id":1,"method":"publish","params":{"channel":"room:a","data":{"a": 1}}}` + "\n" +
				`{"id":2,"method":"nope","params":{}}` + "\r\n" + ` {"id":3,"method":"publish","params":{"channel":"nope:a","data":1}}` +
				`{"id":4,"method":"publish","params":7}` + "\n\n" + `{"id":5,"method":"history","params":{"channel":"room:a","limit":5}}` + "\n" +
				`{"id":6,"method":"batch","params":{}}`,
			200,
			`{"id":1,"result":{"offset":1,"epoch":"EPOCH"}}` + "\n" + `{"id":2,"error":{"code":104,"message":"method not found"}}` + "\n" +
				`{"id":3,"error":{"code":102,"message":"unknown channel"}}` + "\n" + `{"id":4,"error":{"code":107,"message":"bad request"}}` + "\n" +
				`{"id":5,"result":{"publications":[{"data":{"a":1},"offset":1}],"epoch":"EPOCH","offset":1}}` + "\n" +
				`{"id":6,"error":{"code":104,"message":"method not found"}}`,
		},
		"empty":          {``, 400, "Bad Request\n"},
		"broken":         {`{"method":"channels"}` + "\n" + `{"method":`, 400, "Bad Request\n"},
		"a list":         {`[{"method":"channels"}]`, 400, "Bad Request\n"},
		"then a list":    {`{"method":"channels"}[]`, 400, "Bad Request\n"},
		"id no number":   {`{"id":"x","method":"channels"}`, 400, "Bad Request\n"},
		"id too large":   {`{"id":4294967296,"method":"channels"}`, 400, "Bad Request\n"},
		"negative id":    {`{"id":-1,"method":"channels"}`, 400, "Bad Request\n"},
		"not UTF-8":      {"{\"method\":\"channels\",\"params\":{\"pattern\":\"\xff\"}}", 400, "Bad Request\n"},
		"too many":       {many + `{"method":"channels"}`, 400, "Bad Request\n"},
		"many":           {many, 200, strings.TrimSuffix(strings.Repeat(`{"result":{"num_clients":0,"num_users":0}}`+"\n", maxTargets), "\n")},
		"too many bytes": {strings.Repeat(many, 9), 413, "Request Entity Too Large\n"},
	} {
		if status, answer := w.postCommands(c.body); status != c.status || shape(answer, epoch) != c.want {
			t.Errorf("%s:\n got %d %.1000s\nwant %d %.1000s", name, status, shape(answer, epoch), c.status, c.want)
		}
	}
}

// TestCommandRights: the older form has the same keys and gives no other rights.
func TestCommandRights(t *testing.T) {
	logged := captureLogs(t)
	w := newWorld(t)
	const body = `{"method":"publish","params":{"channel":"plain:a","data":1}}` + "\n" + `{"method":"disconnect","params":{"user":"a"}}`
	if status, answer := w.postCommands(body, "Authorization", "apikey "+publishKey); status != 200 || answer != `{"result":{}}`+"\n"+`{"error":{"code":103,"message":"permission denied"}}` {
		t.Errorf("%d %s", status, answer)
	}
	if status, answer := w.postCommands(body, "Authorization", "apikey wrong"); status != 401 || answer != "" {
		t.Errorf("%d %s", status, answer)
	}
	w.postCommands(`{"method":"disconnect","params":{"user":"o-x","disconnect":{"code":4000,"reason":"private"}}}`)
	for _, method := range []string{"GET", "PUT"} {
		r, err := http.NewRequestWithContext(t.Context(), method, w.URL+"/api", nil)
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := w.do(r); status != 405 {
			t.Errorf("%s: %d", method, status)
		}
	}
	if got := logged.String(); !strings.Contains(got, "msg=audit key=ops method=disconnect target.user=o-x result=ok") || strings.Contains(got, "private") {
		t.Errorf("logged %s", got)
	}
	for labels, want := range map[[2]string]float64{{"publish", "ok"}: 1, {"disconnect", "103"}: 1, {"disconnect", "ok"}: 1, {"commands", "401"}: 1, {"commands", "405"}: 2} {
		if got := testutil.ToFloat64(w.api.metrics.requests.WithLabelValues(labels[0], labels[1])); got != want {
			t.Errorf("%v counted %v times, want %v", labels, got, want)
		}
	}
}
