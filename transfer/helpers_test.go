package transfer

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/minio/minio-go/v7"

	"github.com/minigate/minigate/internal/fault"
)

// openFull opens a device that answers writes as a full disk does.
func openFull(string, int, fs.FileMode) (*os.File, error) {
	return os.OpenFile("/dev/full", os.O_WRONLY, 0)
}

// failing opens nothing, as a system does that answers errno.
func failing(errno syscall.Errno) opener {
	return func(name string, _ int, _ fs.FileMode) (*os.File, error) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errno}
	}
}

var listAll = minio.ListObjectsOptions{Recursive: true}

func codeOf(err error) string { return fault.Of(err).Code }

// readForm returns the file of a form.
func readForm(contentType string, r io.Reader) ([]byte, error) {
	form, err := newForm(contentType, bufio.NewReaderSize(r, 1024))
	if err != nil {
		return nil, err
	}
	part, err := form.start()
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(part)
	if err != nil {
		return nil, formFault(err)
	}
	return content, form.finish()
}
