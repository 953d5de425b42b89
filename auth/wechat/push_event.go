package wechat

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"time"
)

// The events a mini-program's server may care for.
const (
	EventMediaCheck      = "wxa_media_check"            // the verdict on a file
	EventSubscribePopup  = "subscribe_msg_popup_event"  // the user answered the question for consent
	EventSubscribeChange = "subscribe_msg_change_event" // the user changed a consent in the settings
	EventSubscribeSent   = "subscribe_msg_sent_event"   // a message arrived, or did not
)

// Push is a message or an event that WeChat pushed.
type Push struct {
	AppID   string    `json:"appid"`
	From    string    `json:"from"`               // openid of the user, or WeChat's own account
	Type    string    `json:"msg_type"`           // "event", or "text", "image" and so on for what a user wrote
	Event   string    `json:"event,omitempty"`    // which, where Type is "event"
	ID      string    `json:"msg_id,omitempty"`   // of what a user wrote
	TraceID string    `json:"trace_id,omitempty"` // of wxa_media_check
	Created time.Time `json:"created"`
	// Message is all of it as JSON. One that came as XML is converted: its
	// texts are strings, elements that repeat are lists.
	Message json.RawMessage `json:"message"`
}

// maxPushField is for what is taken out of a message, in bytes: ids and names.
// Real ones have less than fifty.
const maxPushField = 128

// maxUnix is the end of the year 9999, beyond which no time can be written.
const maxUnix = 253402300799

var errPushFormat = errors.New("the message is neither the XML nor the JSON that is documented")

// Envelope reads the body of a push and returns what is encrypted in it, ""
// where it came as plain text. XML and JSON are told apart by their first byte.
func Envelope(body []byte) (encrypted string, err error) {
	body, err = toJSON(body)
	if err != nil {
		return "", err
	}
	var e struct {
		Encrypt string `json:"Encrypt"`
	}
	if json.Unmarshal(body, &e) != nil {
		return "", errPushFormat
	}
	return e.Encrypt, nil
}

// ParsePush reads a message in plain text, XML or JSON.
func ParsePush(appID string, message []byte) (*Push, error) {
	message, err := toJSON(message)
	if err != nil {
		return nil, err
	}
	var m struct {
		From    text   `json:"FromUserName"`
		Created number `json:"CreateTime"`
		Type    string `json:"MsgType"`
		Event   string `json:"Event"`
		ID      text   `json:"MsgId"`
		TraceID string `json:"trace_id"`
	}
	if json.Unmarshal(message, &m) != nil || m.Type == "" || m.Created < 0 || m.Created > maxUnix {
		return nil, errPushFormat
	}
	for _, field := range []string{string(m.From), m.Type, m.Event, string(m.ID), m.TraceID} {
		if len(field) > maxPushField {
			return nil, errPushFormat
		}
	}
	return &Push{
		AppID: appID, From: string(m.From), Type: m.Type, Event: m.Event,
		ID: string(m.ID), TraceID: m.TraceID, Created: time.Unix(int64(m.Created), 0), Message: message,
	}, nil
}

// MediaVerdict reads the verdict of an [EventMediaCheck]. A file that WeChat
// could not fetch or judge is an error.
func (p *Push) MediaVerdict() (*Verdict, error) {
	var a struct {
		verdictAnswer
		Code number `json:"errcode"`
	}
	if json.Unmarshal(p.Message, &a) != nil {
		return nil, odd("wxa_media_check")
	}
	if a.Code != 0 {
		return nil, apiMediaCheck.errorOf(int(a.Code), "")
	}
	return a.verdict()
}

// toJSON returns a message as JSON, whichever of the two it is.
func toJSON(message []byte) ([]byte, error) {
	message = bytes.TrimSpace(bytes.TrimPrefix(message, []byte("\xef\xbb\xbf")))
	switch {
	case bytes.HasPrefix(message, []byte("{")):
		return message, nil
	case bytes.HasPrefix(message, []byte("<")):
		return xmlToJSON(message)
	}
	return nil, errPushFormat
}

const (
	maxXMLDepth = 8
	maxXMLNodes = 10_000
)

// xmlToJSON converts the one element of a document. Attributes are dropped,
// WeChat uses none; so are comments and everything else that is not text.
func xmlToJSON(document []byte) ([]byte, error) {
	x := &xmlReader{xml.NewDecoder(bytes.NewReader(document)), 0}
	for {
		t, err := x.Token()
		if err != nil {
			return nil, errPushFormat
		}
		if _, ok := t.(xml.StartElement); ok {
			break
		}
	}
	v, err := x.element(1)
	if err != nil {
		return nil, err
	}
	if _, err := x.Token(); !errors.Is(err, io.EOF) {
		return nil, errPushFormat
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, errPushFormat
	}
	return json.Marshal(v)
}

type xmlReader struct {
	*xml.Decoder
	nodes int
}

// element reads what is left of the element just begun: a map where it has
// children, otherwise its text.
func (x *xmlReader) element(depth int) (any, error) {
	if x.nodes++; depth > maxXMLDepth || x.nodes > maxXMLNodes {
		return nil, errPushFormat
	}
	var words strings.Builder
	children := map[string]any{}
	for {
		t, err := x.Token()
		if err != nil {
			return nil, errPushFormat
		}
		switch t := t.(type) {
		case xml.CharData:
			words.Write(t)
		case xml.StartElement:
			child, err := x.element(depth + 1)
			if err != nil {
				return nil, err
			}
			children[t.Name.Local] = join(children[t.Name.Local], child)
		case xml.EndElement:
			if len(children) > 0 {
				return children, nil
			}
			return words.String(), nil
		}
	}
}

// join adds another element of the same name.
func join(before, next any) any {
	switch before := before.(type) {
	case nil:
		return next
	case []any:
		return append(before, next)
	default:
		return []any{before, next}
	}
}
