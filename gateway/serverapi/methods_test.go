package serverapi

import (
	"encoding/json"
	"testing"

	"github.com/centrifugal/protocol"
)

// What a client published in bytes that are not JSON does not break the answer.
func TestHistoryOfBytes(t *testing.T) {
	for data, want := range map[string]string{
		`{"a":1}`:  `{"data":{"a":1},"offset":7}`,
		"\xff\x00": `{"b64data":"/wA=","offset":7}`,
	} {
		got, err := json.Marshal(historyPublicationOf(&protocol.Publication{Data: protocol.Raw(data), Offset: 7}))
		if err != nil || string(got) != want {
			t.Errorf("%q became %s: %v", data, got, err)
		}
	}
}

func TestDeltaOption(t *testing.T) {
	for body, want := range map[string]bool{`{"delta":true}`: true, `{}`: false} {
		p, err := decode[publication]([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if o := p.options(); o.Delta != want {
			t.Errorf("%s: %+v", body, o)
		}
	}
}
