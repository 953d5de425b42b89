package transfer

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// failingWriter takes so many bytes.
type failingWriter struct {
	bytes.Buffer
	left int
}

var errFullDisk = errors.New("no room")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errFullDisk
	}
	return w.Buffer.Write(p)
}

func TestCopy(t *testing.T) {
	errTorn := errors.New("torn")
	all := make([]byte, 5*copyBuffer+3)
	for i := range all {
		all[i] = byte(i % 251)
	}
	for _, size := range []int{0, 1, copyBuffer - 1, copyBuffer, copyBuffer + 1, 2 * copyBuffer, len(all)} {
		for name, src := range map[string]io.Reader{
			"whole": bytes.NewReader(all[:size]), "in halves": iotest.HalfReader(bytes.NewReader(all[:size])),
			"end with the last bytes": iotest.DataErrReader(bytes.NewReader(all[:size])),
		} {
			var w bytes.Buffer
			if n, err := copyTo(&w, src); n != int64(size) || err != nil || !bytes.Equal(w.Bytes(), all[:size]) {
				t.Errorf("%d bytes, %s: %d, %v", size, name, n, err)
			}
		}
		var w bytes.Buffer
		torn := io.MultiReader(bytes.NewReader(all[:size]), iotest.ErrReader(errTorn))
		if n, err := copyTo(&w, torn); n != int64(size) || err != errTorn || !bytes.Equal(w.Bytes(), all[:size]) {
			t.Errorf("%d bytes, then torn: %d, %v", size, n, err)
		}
		if size == 0 {
			continue
		}
		full := &failingWriter{left: size - 1}
		if n, err := copyTo(full, bytes.NewReader(all)); n != int64(full.Len()) || err != errFullDisk || !bytes.Equal(full.Bytes(), all[:n]) {
			t.Errorf("room for %d bytes: %d, %v", size-1, n, err)
		}
	}
}
