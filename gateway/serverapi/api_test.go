package serverapi

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var load = regexp.MustCompile(`"process":{"cpu":[\d.]+,"rss":\d+}`)

var uptime = regexp.MustCompile(`"uptime":\d+`)

// shape is an answer with what differs from run to run replaced.
func shape(answer, epoch string) string {
	answer = load.ReplaceAllString(answer, `"process":{"cpu":CPU,"rss":RSS}`)
	if epoch != "" {
		answer = strings.ReplaceAll(answer, epoch, "EPOCH")
	}
	return answer
}

// epochOf finds out the epoch of a channel.
func (w *world) epochOf(channel string) string {
	w.t.Helper()
	answer := w.must("history", `{"channel":"`+channel+`"}`)
	_, rest, _ := strings.Cut(answer, `"epoch":"`)
	epoch, _, _ := strings.Cut(rest, `"`)
	if epoch == "" {
		w.t.Fatalf("no epoch in %s", answer)
	}
	return epoch
}

// TestShapes goes through the recorded shapes of Centrifugo 6.9, in order.
func TestShapes(t *testing.T) {
	began := time.Now()
	w := newWorld(t)
	epoch := w.epochOf("room:a")
	for _, c := range []struct{ method, body, want string }{
		{"publish", `{"channel":"room:a","data":{"n":1}}`, `{"result":{"offset":1,"epoch":"EPOCH"}}`},
		{"publish", `{"channel":"room:a","data":{"n":2},"tags":{"a":"b"},"idempotency_key":"k"}`, `{"result":{"offset":2,"epoch":"EPOCH"}}`},
		{"publish", `{"channel":"room:a","data":{"n":2},"idempotency_key":"k"}`, `{"result":{"offset":2,"epoch":"EPOCH"}}`},
		{"publish", `{"channel":"room:a","data":3,"skip_history":true}`, `{"result":{}}`},
		{"publish", `{"channel":"plain:a","data":"<&>"}`, `{"result":{}}`},
		{"publish", `{"channel":"room:a","b64data":"IjwmPiI="}`, `{"result":{"offset":3,"epoch":"EPOCH"}}`},
		{"publish", `{"channel":"room:a","data":null,"delta":true,"unknown":[1]}`, `{"result":{"offset":4,"epoch":"EPOCH"}}`},
		{"publish", `{"channel":"nope:a","data":1}`, `{"error":{"code":102,"message":"unknown channel"}}`},
		{"publish", `{"channel":"room:a"}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"publish", `{"data":1}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"publish", `{"channel":"room:a","b64data":"bm90IGpzb24="}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"publish", `{"channel":"room:a","b64data":"Iv8i"}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"publish", `{"channel":"room:a","b64data":"%%"}`, `{"error":{"code":107,"message":"bad request"}}`},

		{"history", `{"channel":"room:a","limit":0}`, `{"result":{"publications":[],"epoch":"EPOCH","offset":4}}`},
		{"history", `{"channel":"room:a","limit":2}`, `{"result":{"publications":[{"data":{"n":1},"offset":1},{"data":{"n":2},"offset":2,"tags":{"a":"b"}}],"epoch":"EPOCH","offset":4}}`},
		{"history", `{"channel":"room:a","limit":-1,"since":{"offset":2,"epoch":"EPOCH"}}`, `{"result":{"publications":[{"data":"<&>","offset":3},{"data":null,"offset":4}],"epoch":"EPOCH","offset":4}}`},
		{"history", `{"channel":"room:a","limit":1,"reverse":true}`, `{"result":{"publications":[{"data":null,"offset":4}],"epoch":"EPOCH","offset":4}}`},
		{"history", `{"channel":"room:a","limit":1,"since":{"offset":2,"epoch":"other"}}`, `{"error":{"code":112,"message":"unrecoverable position"}}`},
		{"history", `{"channel":"plain:a","limit":1}`, `{"error":{"code":108,"message":"not available"}}`},
		{"history", `{}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"history_remove", `{"channel":"room:a"}`, `{"result":{}}`},
		{"history_remove", `{}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"history", `{"channel":"room:a","limit":-1}`, `{"result":{"publications":[],"epoch":"EPOCH","offset":4}}`},

		{"broadcast", `{"channels":["room:a","nope:x","plain:a"],"data":1}`, `{"result":{"responses":[{"result":{"offset":5,"epoch":"EPOCH"}},{"error":{"code":102,"message":"unknown channel"}},{"result":{}}]}}`},
		{"broadcast", `{"channels":[],"data":1}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"broadcast", `{"channels":["room:a"]}`, `{"error":{"code":107,"message":"bad request"}}`},

		{"presence", `{"channel":"room:a"}`, `{"result":{"presence":{}}}`},
		{"presence", `{"channel":"plain:a"}`, `{"error":{"code":108,"message":"not available"}}`},
		{"presence", `{}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"presence_stats", `{"channel":"room:a"}`, `{"result":{"num_clients":0,"num_users":0}}`},
		{"presence_stats", `{}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"disconnect", `{"user":"nobody"}`, `{"result":{}}`},
		{"disconnect", `{"user":"nobody","disconnect":{"code":4000,"reason":""}}`, `{"result":{}}`},
		{"disconnect", `{"user":"nobody","disconnect":{"code":999,"reason":"x"}}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"disconnect", `{}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"unsubscribe", `{"user":"nobody","channel":"room:a"}`, `{"result":{}}`},
		{"unsubscribe", `{"channel":"room:a"}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"unsubscribe", `{"user":"nobody","session":"s"}`, `{"result":{}}`},
		{"subscribe", `{"user":"nobody","channel":"room:a"}`, `{"result":{}}`},
		{"subscribe", `{"user":"nobody","channel":"room:a","client":"c","session":"s","info":{"a":1},"b64data":"e30=","expire_at":4102444800,"recover_since":{"offset":1,"epoch":"EPOCH"},"override":{"presence":{"value":true},"force_recovery":{"value":false}}}`, `{"result":{}}`},
		{"subscribe", `{"user":"nobody","channel":"room:a","info":null,"data":null,"recover_since":null,"override":null}`, `{"result":{}}`},
		{"subscribe", `{"user":"nobody"}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"subscribe", `{"channel":"room:a"}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"subscribe", `{"user":"nobody","channel":"nope:a"}`, `{"error":{"code":102,"message":"unknown channel"}}`},
		{"subscribe", `{"user":"nobody","channel":"room:a","b64info":"%%"}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"subscribe", `{"user":"nobody","channel":"room:a","b64data":"bm90IGpzb24="}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"subscribe", `{"user":"nobody","channel":"room:a","expire_at":-1}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"subscribe", `{"user":"nobody","channel":"room:a","expire_at":1}`, `{"error":{"code":110,"message":"expired"}}`},
		{"refresh", `{"user":"nobody"}`, `{"result":{}}`},
		{"refresh", `{"user":"nobody","client":"c","session":"s","expired":true,"expire_at":4102444800,"info":{"a":1}}`, `{"result":{}}`},
		{"refresh", `{}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"refresh", `{"user":"nobody","expire_at":99999999999}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"rpc", `{"method":"x","params":{}}`, `{"error":{"code":104,"message":"method not found"}}`},
		{"channels", `{}`, `{"result":{"channels":{}}}`},
		{"channels", `{"pattern":"["}`, `{"error":{"code":107,"message":"bad request"}}`},
		{"info", `{}`, `{"result":{"nodes":[{"uid":"n1","name":"node-1","version":"1.2.3","num_clients":0,"num_users":0,"num_subs":0,"num_channels":0,"uptime":UPTIME,"process":{"cpu":CPU,"rss":RSS}}]}}`},

		{
			"batch", `{"commands":[{"publish":{"channel":"room:a","data":1}},{"presence_stats":{"channel":"room:a"}},{"publish":{}},null,{},{"nope":{}},{"batch":{}},{"publish":7}],"parallel":true}`,
			`{"replies":[{"publish":{"offset":6,"epoch":"EPOCH"}},{"presence_stats":{"num_clients":0,"num_users":0}},` +
				`{"error":{"code":107,"message":"bad request"}},{"error":{"code":107,"message":"bad request"}},` +
				`{"error":{"code":104,"message":"method not found"}},{"error":{"code":104,"message":"method not found"}},` +
				`{"error":{"code":104,"message":"method not found"}},{"error":{"code":107,"message":"bad request"}}]}`,
		},
		{"batch", `{}`, `{"replies":[]}`},
	} {
		status, answer := w.post(c.method, strings.ReplaceAll(c.body, "EPOCH", epoch))
		answer = uptime.ReplaceAllStringFunc(answer, func(text string) string {
			seconds, err := strconv.Atoi(strings.TrimPrefix(text, `"uptime":`))
			if err != nil || seconds > int(time.Since(began).Seconds()) {
				return text // longer than there is anything
			}
			return `"uptime":UPTIME`
		})
		if got := shape(answer, epoch); status != 200 || got != c.want {
			t.Errorf("%s %s:\n got %d %s\nwant 200 %s", c.method, c.body, status, got, c.want)
		}
	}
	if problems, err := testutil.GatherAndLint(w.metrics); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestVersions(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ fields, want string }{
		{`"data":1,"version":7,"version_epoch":"x"`, `"offset":1,`},
		{`"data":2,"version":7,"version_epoch":"x"`, `"offset":1,`},
		{`"data":3,"version":8,"version_epoch":"x"`, `"offset":2,`},
		{`"data":4,"version":1,"version_epoch":"y"`, `"offset":3,`},
	} {
		if answer := w.must("publish", `{"channel":"room:a",`+c.fields+`}`); !strings.Contains(answer, c.want) {
			t.Errorf("%s: %s", c.fields, answer)
		}
	}
	answer := w.must("history", `{"channel":"room:a","limit":-1}`)
	if strings.Contains(answer, `"data":2`) || strings.Count(answer, `"data":`) != 3 {
		t.Errorf("history %s", answer)
	}
}

func TestTransportErrorMode(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, body string
		status       int
		want         string
	}{
		{"publish", `{"channel":"nope:a","data":1}`, 404, `{"code":102,"message":"unknown channel"}`},
		{"publish", `{"channel":"room:a"}`, 400, `{"code":107,"message":"bad request"}`},
		{"presence", `{"channel":"plain:a"}`, 400, `{"code":108,"message":"not available"}`},
		{"history", `{"channel":"room:a","limit":1,"since":{"offset":2,"epoch":"other"}}`, 416, `{"code":112,"message":"unrecoverable position"}`},
		{"broadcast", `{"channels":["nope:a"],"data":1}`, 200, `{"result":{"responses":[{"error":{"code":102,"message":"unknown channel"}}]}}`},
		{"batch", `{"commands":[{}]}`, 200, `{"replies":[{"error":{"code":104,"message":"method not found"}}]}`},
	} {
		status, answer := w.post(c.method, c.body, "X-Centrifugo-Error-Mode", "transport")
		if status != c.status || answer != c.want {
			t.Errorf("%s %s: got %d %s, want %d %s", c.method, c.body, status, answer, c.status, c.want)
		}
	}
	for code, want := range map[uint32]int{100: 500, 104: 404, 113: 409, 999: 500} {
		if got := transportStatus(code); got != want {
			t.Errorf("code %d has status %d, want %d", code, got, want)
		}
	}
}

// TestRefusals are the requests that never become a call.
func TestRefusals(t *testing.T) {
	logged := captureLogs(t)
	w := newWorld(t)
	const good = `{"channel":"room:a","data":1}`
	deep := `{"channel":"room:a","data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`
	for name, c := range map[string]struct {
		verb, path, key, body string
		status                int
		text                  string
	}{
		"good":                {"POST", "publish", adminKey, good, 200, `{"result":{`},
		"get":                 {"GET", "publish", adminKey, "", 405, ""},
		"put":                 {"PUT", "publish", adminKey, good, 405, ""},
		"unknown method":      {"POST", "publsh", adminKey, good, 404, ""},
		"no method":           {"POST", "", adminKey, good, 404, ""},
		"deeper":              {"POST", "v1/publish", adminKey, good, 404, ""},
		"map methods":         {"POST", "map_publish", adminKey, good, 404, ""},
		"shared poll":         {"POST", "shared_poll_publish", adminKey, good, 404, ""},
		"method case":         {"POST", "Publish", adminKey, good, 404, ""},
		"no key":              {"POST", "publish", "", good, 401, "\x00"},
		"wrong key":           {"POST", "publish", "wrong", good, 401, "\x00"},
		"key before body":     {"POST", "publish", "", "", 401, "\x00"},
		"scope":               {"POST", "publish", readKey, good, 403, "grafana"},
		"scope to disconnect": {"POST", "disconnect", publishKey, `{"user":"a"}`, 403, "backend"},
		"scope to push":       {"POST", "push", readKey, `{"all":true,"data":1}`, 403, "grafana"},
		"scope to look":       {"POST", "info", publishKey, `{}`, 403, "backend"},
		"empty":               {"POST", "publish", adminKey, "", 400, "Bad Request"},
		"spaces":              {"POST", "publish", adminKey, " \n", 400, ""},
		"broken":              {"POST", "publish", adminKey, `{"channel":`, 400, ""},
		"not an object":       {"POST", "publish", adminKey, `[1]`, 400, ""},
		"null":                {"POST", "publish", adminKey, `null`, 400, ""},
		"string":              {"POST", "publish", adminKey, `"x"`, 400, ""},
		"two objects":         {"POST", "publish", adminKey, good + good, 400, ""},
		"wrong type":          {"POST", "publish", adminKey, `{"channel":5,"data":1}`, 400, ""},
		"tags of numbers":     {"POST", "publish", adminKey, `{"channel":"room:a","data":1,"tags":{"a":1}}`, 400, ""},
		"bare word":           {"POST", "publish", adminKey, `{"channel":"room:a","data":nope}`, 400, ""},
		"not UTF-8":           {"POST", "publish", adminKey, "{\"channel\":\"room:a\",\"data\":\"\xff\"}", 400, ""},
		"too deep":            {"POST", "publish", adminKey, deep, 400, ""},
		"too large":           {"POST", "publish", adminKey, `{"channel":"` + strings.Repeat("x", 5<<20), 413, ""},
		"batch not a list":    {"POST", "batch", adminKey, `{"commands":{}}`, 400, ""},
		"data above limit":    {"POST", "publish", adminKey, `{"channel":"room:a","data":"` + strings.Repeat("x", 64<<10) + `"}`, 200, `"code":107`},
		"data at the limit":   {"POST", "publish", adminKey, `{"channel":"room:a","data":"` + strings.Repeat("x", 64<<10-2) + `"}`, 200, `"offset"`},
		"many channels":       {"POST", "broadcast", adminKey, `{"channels":["a"` + strings.Repeat(`,"a"`, 10000) + `],"data":1}`, 200, `"code":107`},
		"long channel":        {"POST", "publish", adminKey, `{"channel":"room:` + strings.Repeat("x", 300) + `","data":1}`, 200, `"code":107`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.verb, w.URL+"/api/"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", c.key)
		status, answer := w.do(r)
		if status != c.status || c.text == "\x00" && answer != "" || c.text != "\x00" && !strings.Contains(answer, c.text) {
			t.Errorf("%s: got %d %.200s, want %d", name, status, answer, c.status)
		}
	}
	for _, key := range testKeys {
		if strings.Contains(logged.String(), key.Key.Value()) {
			t.Errorf("the log shows the key %s", key.Name)
		}
	}
	for labels, want := range map[[2]string]float64{
		{"unknown", "404"}: 6, {"publish", "401"}: 3, {"publish", "403"}: 1, {"publish", "405"}: 2, {"publish", "413"}: 1, {"publish", "ok"}: 2, {"publish", "107"}: 2,
	} {
		if got := testutil.ToFloat64(w.api.metrics.requests.WithLabelValues(labels[0], labels[1])); got != want {
			t.Errorf("%v counted %v times, want %v", labels, got, want)
		}
	}
}

// TestBatchRights: a batch gives no right that its commands lack alone.
func TestBatchRights(t *testing.T) {
	w := newWorld(t)
	_, answer := w.post("batch", `{"commands":[{"publish":{"channel":"plain:a","data":1}},{"disconnect":{"user":"a"}},{"info":{}}]}`, "X-Api-Key", publishKey)
	want := `{"replies":[{"publish":{}},{"error":{"code":103,"message":"permission denied"}},{"error":{"code":103,"message":"permission denied"}}]}`
	if answer != want {
		t.Errorf("got %s, want %s", answer, want)
	}
}

// TestEngineAway: what is not the caller's fault is 100, and no cause is shown.
func TestEngineAway(t *testing.T) {
	captureLogs(t)
	w := newWorld(t)
	w.api.settings.Timeout = time.Millisecond
	w.api.hub = newHub(prometheus.NewRegistry()) // never run
	for _, method := range []string{"publish", "disconnect", "info"} {
		body := `{"channel":"a","user":"u","data":1}`
		if status, answer := w.post(method, body); status != 200 || answer != `{"error":{"code":100,"message":"internal server error"}}` {
			t.Errorf("%s: %d %s", method, status, answer)
		}
	}
	status, answer := w.post("publish", `{"channel":"a","data":1}`, "X-Centrifugo-Error-Mode", "transport")
	if status != 500 || answer != `{"code":100,"message":"internal server error"}` {
		t.Errorf("%d %s", status, answer)
	}
}
