package transfer

import (
	"bufio"
	"io"
	"os"

	"github.com/minio/minio-go/v7"

	"github.com/minigate/minigate/internal/fault"
)

// openFull opens a device that answers writes as a full disk does.
func openFull() (*os.File, error) { return os.OpenFile("/dev/full", os.O_WRONLY, 0) }

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
