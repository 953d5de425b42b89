package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// The vectors of framework/server-ability/message-push; the encrypted one was
// made with another implementation.
const (
	pushAppID   = "wxba5fad812f8e6fb9"
	pushAESKey  = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	pushEncrypt = "Q3stYC6hdFzMh9T8HCvyDI4VA4AU34zWUwGuj/HaVsBPguC21Hh/0Jjtp9jDhF39yjgJI2fNj4NhLE8n+wPhethrY5uWBSb1kAn/fZLyS8S+LFTJJ/VTCap/+ouuMIeDlWp8QTeljxw+ynJpQs9TAkldqAU6E+zNLI3eQjsr6qFqY8OZJaeaEeg9uSH7PeqI7ZLzrRWJQtEc2sK2TuSepqaGI+JSoXq4R3w1YHiH6Uwev705ODcvcMYAIdcBg/veZkVr6ddNFR0tTTFulLls3U0Q+iQJW2cb9nZV4STZXnY="
	pushMessage = `{"ToUserName":"gh_97417a04a28d","FromUserName":"o9AgO5Kd5ggOC-bXrbNODIiE3bGY","CreateTime":1714037059,"MsgType":"event","Event":"debug_demo","debug_str":"hello world"}`
)

func newPushKeys(t testing.TB, appID string, tokens, keys []string) *PushKeys {
	t.Helper()
	p, err := NewPushKeys(appID, tokens, keys)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPushVectors(t *testing.T) {
	p := newPushKeys(t, pushAppID, []string{"other", "AAAAA"}, []string{pushAESKey})
	for _, v := range [][]string{
		{"f464b24fc39322e44b38aa78f5edd27bd1441696", "1714036504", "1514711492"},
		{"899cf89e464efb63f54ddac96b0a0a235f53aa78", "1714037059", "486452656"},
		{"c5ff5609326cb48bb59916007e99c1a3a0b691de", "1714112445", "415670741", pushEncrypt},
	} {
		if !p.Signed(v[0], v[1:]...) {
			t.Errorf("signature %s is refused", v[0])
		}
		if p.Signed(v[0], append(v[1:], "x")...) || p.Signed(strings.ToUpper(v[0]), v[1:]...) || p.Signed("", v[1:]...) {
			t.Errorf("a wrong signature is taken for %v", v[1:])
		}
		if newPushKeys(t, pushAppID, []string{"BBBBB"}, nil).Signed(v[0], v[1:]...) {
			t.Error("another token signs the same")
		}
	}
	if got, err := p.Open(pushEncrypt); err != nil || string(got) != pushMessage {
		t.Errorf("opened %q, %v", got, err)
	}
}

func TestPushOpenRefuses(t *testing.T) {
	good := newPushKeys(t, pushAppID, nil, []string{pushAESKey})
	other := strings.Repeat("A", 43)
	if _, err := newPushKeys(t, "wx00000000000000aa", nil, []string{pushAESKey}).Open(pushEncrypt); err != errPushAppID {
		t.Errorf("for another mini-program: %v", err)
	}
	if _, err := newPushKeys(t, pushAppID, nil, []string{other}).Open(pushEncrypt); err != errPushOpen {
		t.Errorf("with another key: %v", err)
	}
	if got, err := newPushKeys(t, pushAppID, nil, []string{other, pushAESKey}).Open(pushEncrypt); err != nil || string(got) != pushMessage {
		t.Errorf("with the previous key: %q, %v", got, err)
	}
	if _, err := newPushKeys(t, pushAppID, nil, nil).Open(pushEncrypt); err != errPushOpen {
		t.Errorf("without keys: %v", err)
	}
	head := strings.Repeat("r", 16)
	for name, plain := range map[string]string{
		"too short":           head + "\x00\x00",
		"no message":          head,
		"length beyond":       head + "\x00\x00\x00\x7f{}" + pushAppID,
		"length of 4 GiB":     head + "\xff\xff\xff\xff{}" + pushAppID,
		"no appid":            head + "\x00\x00\x00\x02{}",
		"appid inside":        head + "\x00\x00\x00\x14{}" + pushAppID,
		"appid with more":     head + "\x00\x00\x00\x02{}" + pushAppID + "x",
		"no padding":          "",
		"padded to 16":        "",
		"padding of 33 bytes": "",
	} {
		padded := pad(plain, 32)
		switch name {
		case "no padding":
			padded = strings.Repeat("x", 64)
		case "padded to 16":
			padded = pad(head+"\x00\x00\x00\x02{}"+pushAppID+"1234", 16)
			padded = padded[:len(padded)-len(padded)%32]
		case "padding of 33 bytes":
			padded = strings.Repeat("x", 31) + strings.Repeat("\x21", 33)
		}
		if _, err := good.Open(seal(t, padded)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, bad := range []string{"", "!", "AAAA", pushEncrypt[1:], pushEncrypt + "AAAA"} {
		if _, err := good.Open(bad); err == nil {
			t.Errorf("%.20q: taken", bad)
		}
	}
	want := head + "\x00\x00\x00\x02{}" + pushAppID
	if got, err := good.Open(seal(t, pad(want, 32))); err != nil || string(got) != "{}" {
		t.Errorf("the smallest message: %q, %v", got, err)
	}
}

func seal(t testing.TB, padded string) string {
	t.Helper()
	key, _ := base64.StdEncoding.DecodeString(pushAESKey + "=")
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte(padded)
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(data, data)
	return base64.StdEncoding.EncodeToString(data)
}

func TestPushKeyFormat(t *testing.T) {
	for _, bad := range []string{"", pushAESKey[1:], pushAESKey + "A", strings.Repeat("-", 43)} {
		if _, err := NewPushKeys(pushAppID, nil, []string{bad}); err != ErrPushKey {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestEnvelope(t *testing.T) {
	for body, want := range map[string]string{
		`{"ToUserName":"gh","Encrypt":"abc"}`:                                                  "abc",
		"\xef\xbb\xbf \n{\"Encrypt\":\"abc\"}":                                                 "abc",
		`<xml><ToUserName><![CDATA[gh]]></ToUserName><Encrypt><![CDATA[abc]]></Encrypt></xml>`: "abc",
		`<?xml version="1.0"?><xml><Encrypt>abc</Encrypt></xml>` + "\n":                        "abc",
		pushMessage:                                              "",
		`<xml><MsgType>event</MsgType></xml>`:                    "",
		`<xml><Encrypt><a>b</a></Encrypt></xml>`:                 "error",
		`<xml><Encrypt>a</Encrypt></xml><xml/>`:                  "error",
		`<xml><Encrypt>a</xml>`:                                  "error",
		`<!DOCTYPE x [<!ENTITY a "b">]><xml>&a;</xml>`:           "error",
		strings.Repeat("<a>", 9) + strings.Repeat("</a>", 9):     "error",
		"<xml>" + strings.Repeat("<a/>", maxXMLNodes) + "</xml>": "error",
		`{"Encrypt":1}`:                                          "error", `[]`: "error", ``: "error", `hello`: "error", `<xml>text</xml>`: "error",
	} {
		got, err := Envelope([]byte(body))
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%.80q: %q, %v, want %q", body, got, err, want)
		}
	}
}

func TestParsePush(t *testing.T) {
	p, err := ParsePush(pushAppID, []byte(pushMessage))
	if err != nil || p.AppID != pushAppID || p.From != "o9AgO5Kd5ggOC-bXrbNODIiE3bGY" || p.Type != "event" || p.Event != "debug_demo" ||
		!p.Created.Equal(time.Unix(1714037059, 0)) || string(p.Message) != pushMessage {
		t.Errorf("%+v, %v", p, err)
	}
	const document = `<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[o1]]></FromUserName>
		<CreateTime>1714037059</CreateTime><MsgType><![CDATA[event]]></MsgType><Event><![CDATA[subscribe_msg_popup_event]]></Event>
		<MsgId>23637352235060880</MsgId>
		<SubscribeMsgPopupEvent><List><TemplateId>A</TemplateId></List><List><TemplateId>B &amp; C</TemplateId></List></SubscribeMsgPopupEvent></xml>`
	p, err = ParsePush(pushAppID, []byte(document))
	if err != nil || p.From != "o1" || p.Event != EventSubscribePopup || p.ID != "23637352235060880" || !p.Created.Equal(time.Unix(1714037059, 0)) {
		t.Fatalf("%+v, %v", p, err)
	}
	var m struct {
		SubscribeMsgPopupEvent struct{ List []struct{ TemplateID string } }
	}
	if err := json.Unmarshal(p.Message, &m); err != nil || len(m.SubscribeMsgPopupEvent.List) != 2 || m.SubscribeMsgPopupEvent.List[1].TemplateID != "B & C" {
		t.Errorf("converted to %s: %v", p.Message, err)
	}
	for _, bad := range []string{"", "{}", "[]", "<xml/>", "<xml><a/></xml>", `{"MsgType":"event","CreateTime":"soon"}`, `{"MsgType":1}`, `{"MsgType":"event","CreateTime":253402300800}`, `{"MsgType":"event","CreateTime":-1}`} {
		if _, err := ParsePush(pushAppID, []byte(bad)); err == nil {
			t.Errorf("%q: taken", bad)
		}
	}
	if p, err := ParsePush(pushAppID, []byte(`{"MsgType":"text","MsgId":23637352235060880,"Content":"hi"}`)); err != nil || p.ID != "23637352235060880" {
		t.Errorf("a long number as id: %+v, %v", p, err)
	}
}

func TestMediaVerdict(t *testing.T) {
	// A real push; the label is a string here and a number elsewhere.
	const real = `{"ToUserName":"gh_0","FromUserName":"o1","CreateTime":1762329554,"MsgType":"event","Event":"wxa_media_check","appid":"wx1","trace_id":"690b03d2-301f6111-35ffbd44","version":2,"result":{"suggest":"pass","label":"100"},"detail":[{"strategy":"content_model","errcode":0,"suggest":"pass","label":"100","prob":90}]}`
	p, err := ParsePush("wx1", []byte(real))
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.MediaVerdict()
	if err != nil || *v != (Verdict{"690b03d2-301f6111-35ffbd44", SuggestPass, LabelNormal}) || p.TraceID != v.TraceID {
		t.Errorf("%+v, %v", v, err)
	}
	p.Message = json.RawMessage(strings.Replace(real, `"label":"100"`, `"label":20002`, 1))
	if v, err = p.MediaVerdict(); err != nil || v.Label != 20002 {
		t.Errorf("with a number: %+v, %v", v, err)
	}
	for _, bad := range []string{`{"errcode":-1008,"trace_id":"x"}`, `{}`, `{"result":{"suggest":"fine","label":1}}`, `{"result":{"suggest":"pass","label":"x"}}`, `[]`} {
		p.Message = json.RawMessage(bad)
		if v, err := p.MediaVerdict(); err == nil || fault.Of(err).Code == "internal" {
			t.Errorf("%s: %+v, %v", bad, v, err)
		}
	}
}

func FuzzPushBody(f *testing.F) {
	for _, seed := range []string{
		pushMessage, `{"Encrypt":"abc"}`, `<xml><Encrypt><![CDATA[abc]]></Encrypt></xml>`, `<xml><a><b>1</b></a><a/></xml>`,
		`<?xml version="1.0"?><!-- --><xml><MsgType>event</MsgType><CreateTime>1</CreateTime></xml>`, "<", "{", "\xef\xbb\xbf{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = Envelope(body) // must not panic
		p, err := ParsePush(pushAppID, body)
		if err != nil {
			return
		}
		if !json.Valid(p.Message) || p.Type == "" {
			t.Errorf("%q was taken as %+v", body, p)
		}
		_, _ = p.MediaVerdict()
		if _, err := json.Marshal(p); err != nil {
			t.Errorf("%q cannot be passed on: %v", body, err)
		}
	})
}

func FuzzPushOpen(f *testing.F) {
	f.Add([]byte(strings.Repeat("r", 16) + "\x00\x00\x00\x02{}" + pushAppID))
	f.Add([]byte{})
	p := newPushKeys(f, pushAppID, nil, []string{pushAESKey})
	f.Fuzz(func(t *testing.T, plain []byte) {
		message, err := p.Open(seal(t, pad(string(plain), 32)))
		if err != nil {
			return
		}
		whole := append(binary.BigEndian.AppendUint32(bytes.Clone(plain[:16]), uint32(len(message))), message...)
		if !bytes.Equal(plain, append(whole, pushAppID...)) {
			t.Errorf("%q was opened as %q", plain, message)
		}
	})
}
