package transfer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"regexp"
	"strings"

	"github.com/minigate/minigate/internal/fault"
)

const (
	maxFields = 32
	maxField  = 64 << 10 // bytes of one field
	maxHead   = 64 << 10 // bytes between two parts: boundary and header lines
	// formOverhead is what a body may have beside the file.
	formOverhead = (maxFields + 2) * (maxField + maxHead)
)

var (
	errNotForm = fault.New(fault.Unsupported, "multipart_required",
		"Send the file as multipart/form-data, as wx.uploadFile does; other bodies are not taken.")
	errForm       = fault.New(fault.Invalid, "form_invalid", "The body is not valid multipart/form-data.")
	errTorn       = fault.New(fault.Invalid, "upload_torn", "The body ended before its closing boundary.")
	errNoFilePart = fault.New(fault.Invalid, "file_missing", "The form has no file.")
	errManyFiles  = fault.New(fault.Invalid, "too_many_files", "The form has more than one file.")
	errManyFields = fault.Newf(fault.Invalid, "too_many_fields", "A form may have at most %d fields beside the file.", maxFields)
	errField      = fault.Newf(fault.TooLarge, "field_too_large", "A field beside the file may have at most %d bytes.", maxField)
)

// form reads one multipart/form-data body (RFC 7578) with exactly one file,
// wherever among the fields it is, as it arrives.
type form struct {
	parts    *multipart.Reader
	head     *headLimit
	fields   int
	file     bool
	name     string // the field name or filename
	sums     Sums   // of fields of this name
	fileName string // what the file's part is called
	fileType string // the Content-Type of that part; "" where it has none
}

// newForm begins to read body. Apps that set the header content-type by
// themselves send a form without telling its boundary; it is then taken from
// the body's first line.
func newForm(contentType string, body *bufio.Reader) (*form, error) {
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		mediaType, _, _ = strings.Cut(contentType, ";")
		mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	}
	if mediaType != "multipart/form-data" {
		return nil, errNotForm
	}
	boundary := params["boundary"]
	if boundary == "" {
		if boundary, err = sniffBoundary(body); err != nil {
			return nil, err
		}
	}
	head := &headLimit{r: body, closing: "--" + boundary + "--"}
	return &form{parts: multipart.NewReader(head, boundary), head: head}, nil
}

// sniffBoundary reads the boundary off the first line of body, consuming
// nothing.
func sniffBoundary(body *bufio.Reader) (string, error) {
	const longest = 256 // RFC 2046 allows 70
	line, err := body.Peek(longest)
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = bytes.TrimRight(line[:end], "\r \t")
	} else if err != nil {
		return "", formFault(err)
	}
	boundary, ok := bytes.CutPrefix(line, []byte("--"))
	if !ok || len(boundary) == 0 || len(line) == longest || bytes.ContainsFunc(boundary, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errForm.Because(errors.New("neither the header nor the first line has a boundary"))
	}
	return string(boundary), nil
}

// next returns the file, or io.EOF once the closing boundary was read. It
// takes in the fields on the way. The file must be read to its end first.
func (f *form) next() (*multipart.Part, error) {
	for {
		f.head.left = maxHead
		part, err := f.parts.NextRawPart()
		f.head.left = -1
		if err == io.EOF {
			return nil, f.head.end()
		}
		if err != nil {
			return nil, f.head.cause(err)
		}
		if name, ok := fileName(part); ok {
			if f.file {
				return nil, errManyFiles
			}
			f.file, f.fileName, f.fileType = true, name, part.Header.Get("Content-Type")
			return part, nil
		}
		if err := f.field(part); err != nil {
			return nil, err
		}
	}
}

// field takes in a field: what it says of the file is all that we want.
func (f *form) field(part *multipart.Part) error {
	if f.fields++; f.fields > maxFields {
		return errManyFields
	}
	value, err := io.ReadAll(io.LimitReader(part, maxField+1))
	if err != nil {
		return formFault(err)
	}
	if len(value) > maxField {
		return errField
	}
	if len(value) == 0 {
		return nil
	}
	switch part.FormName() {
	case "name", "filename":
		f.name = string(value)
	case "sha256":
		f.sums, err = f.sums.with(string(value), "")
	case "crc32c":
		f.sums, err = f.sums.with("", string(value))
	}
	return err
}

// start returns the file, reading the fields before it.
func (f *form) start() (*multipart.Part, error) {
	part, err := f.next()
	if err == io.EOF {
		return nil, errNoFilePart
	}
	return part, err
}

// finish reads what follows the file: fields and the closing boundary.
func (f *form) finish() error {
	_, err := f.next()
	if err == io.EOF {
		return nil
	}
	return err
}

// badFileName finds the file's name in a header that is not valid, for
// example because of quotes inside of quotes.
var badFileName = regexp.MustCompile(`(?is);\s*filename\*?\s*=\s*"?(.*?)"?\s*$`)

// fileName tells whether part is a file, and the name the client gave it.
func fileName(part *multipart.Part) (string, bool) {
	header := part.Header.Get("Content-Disposition")
	_, params, err := mime.ParseMediaType(header)
	if err == nil {
		name, ok := params["filename"]
		return name, ok
	}
	if m := badFileName.FindStringSubmatch(header); m != nil {
		return m[1], true
	}
	return "", false
}

// headLimit bounds what is read between two parts, which mime/multipart would
// keep in memory, up to 10 MiB of it.
type headLimit struct {
	r    io.Reader
	left int   // bytes; -1: no limit now
	err  error // that r ended with

	closing string // boundary
	tail    []byte // the last bytes read, a few more than closing
}

func (h *headLimit) Read(p []byte) (int, error) {
	if h.left == 0 {
		return 0, errForm.Because(errors.New("too much between two parts"))
	}
	if h.left > 0 {
		p = p[:min(len(p), h.left)]
	}
	n, err := h.r.Read(p)
	if h.left > 0 {
		h.left -= n
	}
	most := len(h.closing) + 16
	end := p[max(0, n-most):n]
	keep := h.tail[max(0, min(len(h.tail), len(h.tail)+len(end)-most)):]
	h.tail = append(h.tail[:copy(h.tail, keep)], end...) // in the same memory
	if err != nil {
		h.err = err
	}
	return n, err
}

// end tells the end of the form, io.EOF, from a body that ends before the
// closing boundary: where that happens among the header lines of a part,
// mime/multipart gives io.EOF too.
func (h *headLimit) end() error {
	if h.err == io.EOF && !bytes.HasSuffix(bytes.TrimRight(h.tail, "\r\n \t"), []byte(h.closing)) {
		return errTorn.Because(errors.New("no closing boundary"))
	}
	return io.EOF
}

// cause returns why there is no next part. Part headers that are cut off are
// malformed to mime/multipart, which then forgets what cut them.
func (h *headLimit) cause(err error) error {
	if h.err != nil && h.err != io.EOF {
		err = h.err
	}
	return formFault(err)
}

// formFault translates errors of reading a form. Where the client is at
// fault, its body says so; other errors are the body's own.
func formFault(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn.Because(err)
	}
	return errForm.Because(err)
}
