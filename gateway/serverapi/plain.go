package serverapi

import (
	"bytes"
	"context"
	"strconv"

	"github.com/centrifugal/protocol/cfjson"
)

// maxPlain is below the depth at which encoding/json refuses to go deeper, so
// that nothing shorter can be too deep for it.
const maxPlain = 10_000 // bytes

// publishBody is publish for a body: what nearly all of them are is read without
// encoding/json, which takes a twentieth of what such a request costs.
func (a *API) publishBody(ctx context.Context, _ caller, body []byte) (any, error) {
	if req, ok := plainPublish(body); ok {
		return a.publish(ctx, req)
	}
	req, err := decode[publishRequest](body)
	if err != nil {
		return nil, err
	}
	return a.publish(ctx, req)
}

// plainPublish reads {"channel":"…","data":…}, with a name of which JSON escapes
// nothing. It leaves everything else to decode, what is wrong included.
func plainPublish(body []byte) (req publishRequest, ok bool) {
	rest := body
	for _, token := range [...]string{`{`, `"channel"`, `:`, `"`} {
		if rest, ok = after(rest, token); !ok {
			return req, false
		}
	}
	end := bytes.IndexByte(rest, '"')
	if end < 0 || !plain(rest[:end]) {
		return req, false
	}
	name, rest := rest[:end], rest[end+1:]
	for _, token := range [...]string{`,`, `"data"`, `:`} {
		if rest, ok = after(rest, token); !ok {
			return req, false
		}
	}
	rest, ok = bytes.CutSuffix(trimRight(rest), []byte("}"))
	data := trimLeft(trimRight(rest))
	if !ok || len(data) > maxPlain || !cfjson.Valid(data) { // with another name behind it, it is not
		return req, false
	}
	req.Channel, req.Data = string(name), bytes.Clone(data)
	return req, true
}

// after returns what is behind a token, which may have white space before it.
func after(b []byte, token string) (rest []byte, ok bool) {
	b = trimLeft(b)
	if len(b) < len(token) || string(b[:len(token)]) != token {
		return nil, false
	}
	return b[len(token):], true
}

// trimLeft and trimRight drop white space. Package bytes would build a set of what
// that is each time.
func trimLeft(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	return b
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// isSpace is what RFC 8259, section 2, calls white space.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// plain tells whether text is in JSON as it is.
func plain[T string | []byte](text T) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendReply appends p as the result of a method. Its epoch has to be plain.
func (p position) appendReply(b []byte) []byte {
	b = append(b, `{"result":{`...)
	if p.Offset > 0 {
		b = append(b, `"offset":`...)
		b = strconv.AppendUint(b, p.Offset, 10)
	}
	if p.Offset > 0 && p.Epoch != "" {
		b = append(b, ',')
	}
	if p.Epoch != "" {
		b = append(b, `"epoch":"`...)
		b = append(append(b, p.Epoch...), '"')
	}
	return append(b, "}}"...)
}
