// Package apidoctest holds what tests send and get against the descriptions in
// package apidoc. It is for tests alone.
package apidoctest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/minigate/minigate/internal/apidoc"
)

// document is a description and its schemas, compiled when they are needed.
type document struct {
	root any

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

const location = "file:///document.json"

func open(data []byte) *document {
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		panic(err) // of package apidoc, whose own test finds it first
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(location, root); err != nil {
		panic(err)
	}
	return &document{root: root, compiler: c, schemas: map[string]*jsonschema.Schema{}}
}

// at returns what stands at a JSON pointer, following one $ref at each step;
// where tells its true place. Nil where there is nothing.
func (d *document) at(path ...string) (v any, where string) {
	v, where = d.root, "#"
	for _, key := range path {
		m, _ := v.(map[string]any)
		if v = m[key]; v == nil {
			return nil, ""
		}
		where += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
		if m, ok := v.(map[string]any); ok {
			if ref, ok := m["$ref"].(string); ok {
				v, where = d.at(unescape(ref)...)
			}
		}
	}
	return v, where
}

func unescape(ref string) []string {
	parts := strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts
}

// validate holds JSON against the schema at a pointer.
func (d *document) validate(where string, data []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	d.mu.Lock()
	s := d.schemas[where]
	if s == nil {
		if s, err = d.compiler.Compile(location + where); err == nil {
			d.schemas[where] = s
		}
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return s.Validate(v)
}

var api = sync.OnceValue(func() *document { return open(apidoc.OpenAPI()) })

// Exchange is a request and its answer.
type Exchange struct {
	Method, Path string // the path without query, as it was sent
	Request      []byte
	Status       int
	Header       http.Header // of the answer
	Answer       []byte
}

// Operations are what the description has, each as "POST /api/publish".
func Operations() (list []string) {
	paths, _ := api().at("paths")
	for path, item := range paths.(map[string]any) {
		for method := range item.(map[string]any) {
			list = append(list, strings.ToUpper(method)+" "+path)
		}
	}
	return list
}

// find returns the path of the description that an exchange is about.
func find(path string) (template string) {
	paths, _ := api().at("paths")
	all := paths.(map[string]any)
	if all[path] != nil {
		return path
	}
	for t := range all {
		if before, _, ok := strings.Cut(t, "{"); ok && strings.HasPrefix(path, before) && !strings.Contains(path[len(before):], "/") {
			return t
		}
	}
	return ""
}

// Check tells how an exchange differs from the description. Whoever asks for
// what is not described must be refused, and what was answered without an error
// must have been a request as described.
func Check(e Exchange) error {
	template, method := find(e.Path), strings.ToLower(e.Method)
	if op, _ := api().at("paths", template, method); template == "" || op == nil {
		if e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed {
			return nil
		}
		return fmt.Errorf("%s %s is not described and was answered with %d", e.Method, e.Path, e.Status)
	}
	if err := checkAnswer(e, template, method); err != nil {
		return fmt.Errorf("the answer %d to %s %s: %w\n%.2000s", e.Status, e.Method, e.Path, err, e.Answer)
	}
	// A form would have to be taken apart first.
	if body, _ := api().at("paths", template, method, "requestBody", "content", "application/json"); body == nil || e.Status >= 300 || failed(e.Answer) {
		return nil
	}
	if err := checkBody(e.Request, "application/json", "paths", template, method, "requestBody"); err != nil {
		return fmt.Errorf("the request %s %s: %w\n%.2000s", e.Method, e.Path, err, e.Request)
	}
	return nil
}

// failed tells whether an answer says, with status 200, that there was an error.
func failed(answer []byte) bool {
	for line := range bytes.Lines(answer) {
		var a struct{ Error json.RawMessage }
		if json.Unmarshal(line, &a) == nil && a.Error != nil {
			return true
		}
	}
	return false
}

func checkAnswer(e Exchange, template, method string) error {
	status := fmt.Sprint(e.Status)
	if r, _ := api().at("paths", template, method, "responses", status); r == nil {
		status = "default"
		if e.Status < 400 {
			return fmt.Errorf("the status is not described")
		}
	}
	if len(e.Answer) == 0 && (e.Status == http.StatusUnauthorized || e.Status == http.StatusNoContent) {
		return nil
	}
	media, _, err := mime.ParseMediaType(e.Header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("Content-Type: %w", err)
	}
	return checkBody(e.Answer, media, "paths", template, method, "responses", status)
}

func checkBody(body []byte, media string, path ...string) error {
	content, where := api().at(append(path, "content", media)...)
	if content == nil {
		return fmt.Errorf("%s is not described", media)
	}
	_, where = api().at(append(unescape(where), "schema")...)
	if media != "application/json" {
		return nil
	}
	if content.(map[string]any)["x-lines"] != true {
		return api().validate(where, body)
	}
	for dec := json.NewDecoder(bytes.NewReader(body)); ; {
		var doc json.RawMessage
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := api().validate(where, doc); err != nil {
			return err
		}
	}
}

var socket = sync.OnceValue(func() *document { return open(apidoc.AsyncAPI()) })

// CheckReply tells how a line from the server differs from the description.
func CheckReply(line []byte) error { return checkLine("reply", line) }

// CheckCommand is CheckReply for a line from a client.
func CheckCommand(line []byte) error { return checkLine("command", line) }

func checkLine(message string, line []byte) error {
	_, where := socket().at("components", "messages", message, "payload")
	if err := socket().validate(where, line); err != nil {
		return fmt.Errorf("%s: %w\n%.2000s", message, err, line)
	}
	return nil
}

// Codes are lists of codes in the description of the socket: "close",
// "unsubscribe" or "error". Each is "CODE REASON".
func Codes(kind string) (list []string) {
	codes, _ := socket().at("x-" + kind + "-codes")
	for _, c := range codes.([]any) {
		m := c.(map[string]any)
		list = append(list, fmt.Sprintf("%v %v", m["code"], m["reason"]))
	}
	return list
}
