// Package apidoc holds the descriptions of what minigate speaks: of the server
// API in OpenAPI 3.1, of the socket in AsyncAPI 3.0. They are kept by hand in
// YAML; tests hold every request and answer they make against them (see
// apidoctest).
package apidoc

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed openapi.yaml
var openAPI []byte

//go:embed asyncapi.yaml
var asyncAPI []byte

// OpenAPI is the description of the server API, in JSON.
var OpenAPI = sync.OnceValue(func() []byte { return toJSON(openAPI) })

// AsyncAPI is the description of the socket, in JSON.
var AsyncAPI = sync.OnceValue(func() []byte { return toJSON(asyncAPI) })

// toJSON translates a description. It panics where that cannot be: it is part
// of the program, and tests read it.
func toJSON(doc []byte) []byte {
	var v any
	if err := yaml.Unmarshal(doc, &v); err != nil {
		panic(fmt.Sprintf("apidoc: %v", err))
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("apidoc: %v", err))
	}
	return data
}

// ServeOpenAPI answers the description of the server API.
func ServeOpenAPI(w http.ResponseWriter, _ *http.Request) { serve(w, OpenAPI()) }

// ServeAsyncAPI answers the description of the socket.
func ServeAsyncAPI(w http.ResponseWriter, _ *http.Request) { serve(w, AsyncAPI()) }

func serve(w http.ResponseWriter, doc []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(doc) // the caller may be gone
}
