package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
)

// pack translates commands from JSON to a Protobuf frame.
func pack(t testing.TB, lines []byte) []byte {
	t.Helper()
	var enc protocol.DataEncoder = protocol.NewProtobufDataEncoder()
	for _, line := range bytes.Split(lines, []byte("\n")) {
		cmd, err := protocol.NewJSONCommandDecoder(line).Decode()
		if cmd == nil {
			t.Fatalf("no command: %q: %v", line, err)
		}
		packCommand(t, enc, cmd)
	}
	return enc.Finish()
}

func packCommand(t testing.TB, enc protocol.DataEncoder, cmd *protocol.Command) {
	t.Helper()
	b, err := cmd.MarshalCF()
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.Encode(b); err != nil {
		t.Fatal(err)
	}
}

// unpack translates a Protobuf frame to lines of JSON. What JSON cannot say
// becomes "binary CHANNEL DATA".
func (w *wire) unpack(frame []byte) {
	dec := protocol.NewProtobufReplyDecoder(frame)
	for n := 0; ; n++ {
		r, err := dec.Decode()
		if err != nil {
			if !errors.Is(err, io.EOF) || n == 0 {
				w.t.Errorf("frame %x cannot be decoded: %v", frame, err)
			}
			return
		}
		if w.replies != nil {
			w.replies <- r
			continue
		}
		line, err := protocol.DefaultJsonReplyEncoder.Encode(r)
		if err != nil {
			line = fmt.Appendf(nil, "binary %s %q", r.GetPush().GetChannel(), r.GetPush().GetPub().GetData())
		}
		w.lines <- string(line)
	}
}

// wantAll is want for messages that may come in any order.
func (w *wire) wantAll(lines ...string) {
	w.t.Helper()
	var got []string
	for range lines {
		got = append(got, w.next())
	}
	for _, want := range lines {
		if !slices.ContainsFunc(got, func(line string) bool { return match(want, line) }) {
			w.t.Fatalf("no %s in\n%s", want, strings.Join(got, "\n"))
		}
	}
}
