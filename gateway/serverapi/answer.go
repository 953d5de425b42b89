package serverapi

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
)

// Bodies and answers are read into and written from buffers that are used
// again: most are of some hundred bytes, and gone at once.
var (
	buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

	encoders = sync.Pool{New: func() any {
		e := new(encoder)
		e.json = json.NewEncoder(&e.out)
		e.json.SetEscapeHTML(false) // data goes out as it came in
		return e
	}}
)

// maxPooled is how much memory a buffer may have that is kept, in bytes.
const maxPooled = 64 << 10

func release(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}

// encoder makes JSON of answers.
type encoder struct {
	out  bytes.Buffer
	json *json.Encoder // into out
}

func (e *encoder) release() {
	if e.out.Cap() <= maxPooled {
		e.out.Reset()
		encoders.Put(e)
	}
}

// encode makes JSON of an answer, nil where that cannot be. It is good until
// the encoder is released.
func (e *encoder) encode(v any) []byte {
	if err := e.json.Encode(v); err != nil {
		slog.Error("answer cannot be encoded", "error", err) // a bug: our own types always encode
		return nil
	}
	return bytes.TrimSuffix(e.out.Bytes(), []byte("\n"))
}

// encode makes JSON of an answer to keep, nil where that cannot be.
func encode(v any) []byte {
	e := encoders.Get().(*encoder)
	defer e.release()
	return bytes.Clone(e.encode(v))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	e := encoders.Get().(*encoder)
	defer e.release()
	body := e.encode(v)
	if body == nil {
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	writeBody(w, status, body)
}

// writePosition is writeJSON of what publish answers, whose epoch is plain.
func writePosition(w http.ResponseWriter, p position) {
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	buf.Write(p.appendReply(buf.AvailableBuffer()))
	writeBody(w, http.StatusOK, buf.Bytes())
}

// The header of every answer shares these, whose capacity is their length: who
// adds a value to one gets another slice.
var typeJSON, noSniff, noStore = []string{"application/json"}, []string{"nosniff"}, []string{"no-store"}

func writeBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"], h["X-Content-Type-Options"], h["Cache-Control"] = typeJSON, noSniff, noStore
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller may be gone
}
