package apidoctest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/minigate/minigate/internal/apidoc"
)

var plain, asJSON = http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, http.Header{"Content-Type": {"application/json"}}

// TestCheck: what is as described passes, and every way to differ is noticed.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		e    Exchange
		want string // in the error; "" for none
	}{
		"good":                     {Exchange{"POST", "/api/publish", []byte(`{"channel":"a","data":1,"new":2}`), 200, asJSON, []byte(`{"result":{"offset":1,"epoch":"x"}}`)}, ""},
		"an error":                 {Exchange{"POST", "/api/publish", []byte(`{"data":1}`), 200, asJSON, []byte(`{"error":{"code":107,"message":"bad request"}}`)}, ""},
		"a bare error":             {Exchange{"POST", "/api/publish", []byte(`{}`), 400, asJSON, []byte(`{"code":107,"message":"bad request"}`)}, ""},
		"refused":                  {Exchange{"POST", "/api/publish", nil, 400, plain, []byte(`Bad Request`)}, ""},
		"no key":                   {Exchange{"POST", "/api/publish", nil, 401, http.Header{}, nil}, ""},
		"with a path":              {Exchange{"GET", "/api/users/oAlice", nil, 503, asJSON, []byte(`{"error":{"code":"nodes_silent","message":"No."}}`)}, ""},
		"unknown, refused":         {Exchange{"POST", "/api/nope", nil, 404, plain, []byte(`404`)}, ""},
		"wrong verb":               {Exchange{"GET", "/api/publish", nil, 405, plain, []byte(`no`)}, ""},
		"lines":                    {Exchange{"POST", "/api", []byte("{\"method\":\"x\"}\n{\"id\":2}"), 200, asJSON, []byte("{\"id\":1,\"result\":{}}\n{\"error\":{\"code\":104,\"message\":\"x\"}}")}, ""},
		"done":                     {Exchange{"POST", "/api/users/reset_session_key", []byte(`{"user":"o"}`), 204, http.Header{}, nil}, ""},
		"unknown field":            {Exchange{"POST", "/api/publish", []byte(`{"channel":"a"}`), 200, asJSON, []byte(`{"result":{"offset":1,"new":1}}`)}, "new"},
		"unknown field of error":   {Exchange{"POST", "/api/publish", nil, 200, asJSON, []byte(`{"error":{"code":1,"message":"","temporary":true}}`)}, "temporary"},
		"missing field":            {Exchange{"POST", "/api/presence_stats", []byte(`{"channel":"a"}`), 200, asJSON, []byte(`{"result":{"num_clients":1}}`)}, "num_users"},
		"wrong type":               {Exchange{"POST", "/api/push", []byte(`{}`), 200, asJSON, []byte(`{"result":{"sockets":"1"}}`)}, "sockets"},
		"no time":                  {Exchange{"GET", "/api/nodes", nil, 200, asJSON, []byte(`{"nodes":[{"uid":"a","name":"b","version":"c","started":"yesterday","clients":0,"users":0,"channels":0,"subscribers":0}]}`)}, "date-time"},
		"bad request, taken":       {Exchange{"POST", "/api/publish", []byte(`{"data":1}`), 200, asJSON, []byte(`{"result":{}}`)}, "channel"},
		"bad request by path":      {Exchange{"POST", "/api/connections", []byte(`{"limit":201}`), 200, asJSON, []byte(`{"connections":[]}`)}, "limit"},
		"unknown, answered":        {Exchange{"POST", "/api/nope", nil, 200, asJSON, []byte(`{}`)}, "not described"},
		"unknown status":           {Exchange{"POST", "/api/publish", nil, 202, asJSON, []byte(`{}`)}, "status"},
		"unknown media":            {Exchange{"POST", "/api/publish", nil, 200, http.Header{"Content-Type": {"text/html"}}, []byte(`{}`)}, "text/html"},
		"no media":                 {Exchange{"POST", "/api/publish", nil, 200, http.Header{}, []byte(`{}`)}, "Content-Type"},
		"text where JSON is meant": {Exchange{"GET", "/api/nodes", nil, 400, plain, []byte(`no`)}, "text/plain"},
		"a bad line":               {Exchange{"POST", "/api", []byte(`{}`), 200, asJSON, []byte("{\"result\":{}}\n{\"id\":1}")}, "oneOf"},
	} {
		err := Check(c.e)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestCheckLines(t *testing.T) {
	for line, want := range map[string]bool{
		`{}`: true,
		`{"push":{"channel":"a","pub":{"data":null}}}`:                           true,
		`{"id":1,"error":{"code":100,"message":"x","temporary":true}}`:           true,
		`{"push":{"pub":{"data":1},"message":{"data":1}}}`:                       false,
		`{"push":{"channel":"a"}}`:                                               false,
		`{"id":1,"push":{"message":{"data":1}}}`:                                 false,
		`{"id":1,"subscribe":{"neu":1}}`:                                         false,
		`{"push":{"disconnect":{"code":3000,"reason":""}}}`:                      false,
		`{"push":{"channel":"a","pub":{"data":1,"offset":0}}}`:                   false,
		`{"id":1,"error":{"code":99,"message":"x"}}`:                             false,
		`{"push":{"channel":"a","unsubscribe":{"code":3000,"reason":"reason"}}}`: false,
	} {
		if err := CheckReply([]byte(line)); (err == nil) != want {
			t.Errorf("%s: %v", line, err)
		}
	}
	for line, want := range map[string]bool{`{}`: true, `{"id":0}`: false, `{"id":1,"subscribe":{"channel":5}}`: false} {
		if err := CheckCommand([]byte(line)); (err == nil) != want {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestExamples: what the description of the socket shows is what it describes.
func TestExamples(t *testing.T) {
	for name, check := range map[string]func([]byte) error{"command": CheckCommand, "reply": CheckReply} {
		examples, _ := socket().at("components", "messages", name, "examples")
		if len(examples.([]any)) == 0 {
			t.Errorf("no examples of a %s", name)
		}
		for _, e := range examples.([]any) {
			data, err := json.Marshal(e.(map[string]any)["payload"])
			if err != nil {
				t.Fatal(err)
			}
			if err := check(data); err != nil {
				t.Error(err)
			}
		}
	}
}

// walk visits every object of a document.
func walk(v any, at string, visit func(at string, object map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(at, v)
		for key, inner := range v {
			walk(inner, at+"/"+key, visit)
		}
	case []any:
		for i, inner := range v {
			walk(inner, fmt.Sprint(at, "/", i), visit)
		}
	}
}

// TestDocuments: all schemas compile, all references lead somewhere, nothing is
// left over, and each operation says what it is for and what key it wants.
func TestDocuments(t *testing.T) {
	for name, d := range map[string]*document{"openapi": api(), "asyncapi": socket()} {
		used := map[string]bool{}
		walk(d.root, "#", func(at string, o map[string]any) {
			ref, ok := o["$ref"].(string)
			if !ok {
				return
			}
			used[ref] = true
			if v, _ := d.at(unescape(ref)...); v == nil {
				t.Errorf("%s: %s leads nowhere: %s", name, at, ref)
			}
		})
		schemas, _ := d.at("components", "schemas")
		for schema := range schemas.(map[string]any) {
			where := "#/components/schemas/" + schema
			if _, err := d.compiler.Compile(location + where); err != nil {
				t.Error(err)
			}
			if !used[where] {
				t.Errorf("%s: nothing refers to %s", name, where)
			}
		}
	}
	ids := map[string]bool{}
	for _, op := range Operations() {
		method, path, _ := strings.Cut(op, " ")
		o, _ := api().at("paths", path, strings.ToLower(method))
		m := o.(map[string]any)
		id, _ := m["operationId"].(string)
		about, _ := m["description"].(string)
		if id == "" || ids[id] || m["summary"] == nil || m["tags"] == nil || !slices.ContainsFunc([]string{"Scope: ", "Any key", "No key"}, func(s string) bool { return strings.HasPrefix(about, s) }) {
			t.Errorf("%s: %v", op, m)
		}
		ids[id] = true
	}
}

// TestAnswersAreClosed: each object in an answer of the API forbids fields that
// are not described, so that tests notice new ones.
func TestAnswersAreClosed(t *testing.T) {
	open := []string{"Message", "Selection", "PublishRequest", "BroadcastRequest", "SubscribeRequest", "Override"} // of requests
	schemas, _ := api().at("components", "schemas")
	for name, schema := range schemas.(map[string]any) {
		if slices.Contains(open, name) {
			continue
		}
		walk(schema, name, func(at string, o map[string]any) {
			if o["properties"] != nil && o["type"] != nil && o["additionalProperties"] == nil {
				t.Errorf("%s takes any field", at)
			}
		})
	}
}

// TestVersions: the descriptions say what they are, and their schemas are of the
// draft that goes with that.
func TestVersions(t *testing.T) {
	for want, doc := range map[string][]byte{`"openapi":"3.1.0"`: apidoc.OpenAPI(), `"asyncapi":"3.0.0"`: apidoc.AsyncAPI()} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("no %s in the document", want)
		}
	}
	meta := jsonschema.NewCompiler().MustCompile("https://json-schema.org/draft/2020-12/schema")
	for _, d := range []*document{api(), socket()} {
		schemas, _ := d.at("components", "schemas")
		for name, schema := range schemas.(map[string]any) {
			if err := meta.Validate(schema); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
