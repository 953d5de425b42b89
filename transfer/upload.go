package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// sniffSize is how much of a file tells its type.
const sniffSize = 3 << 10

var (
	errSizeParam = fault.New(fault.Invalid, "size_invalid", "The parameter size must be a number of bytes.")
	errSumParam  = fault.New(fault.Invalid, "sha256_invalid", "The parameter sha256 must have 64 hexadecimal digits.")
	errSum       = fault.New(fault.Invalid, "checksum_mismatch", "The file does not have the SHA-256 that was announced.")
	errType      = fault.New(fault.Unsupported, "type_not_allowed", "Files of this type are not taken.")
)

// announced is what a client may say about a file in the query.
type announced struct {
	name   string
	size   int64  // -1: nothing
	sha256 string // lower case; "": nothing
}

// uploaded is the answer to an upload.
type uploaded struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Type   string `json:"type"`
	SHA256 string `json:"sha256"`
	URL    string `json:"url"`
}

// ServeUpload answers POST /files: a form as wx.uploadFile sends it, with one
// file under any name and up to 32 fields before or after it. The file's name
// is the field name or filename, else ?name=, else what its part says; its type
// is what its bytes say. Where the backend is asked about uploads (see
// [WebhookSettings]), fields behind the file come too late to name it. ?size=
// (bytes) and ?sha256= are checked where given; with size a file is passed on to
// S3 without waiting for memory.
//
// The answer is 201 with id, name, size, type, sha256 and url; by then the
// file is durable. Errors: 400 form_invalid, upload_torn, file_missing,
// too_many_files, too_many_fields, size_invalid, sha256_invalid, size_mismatch,
// checksum_mismatch; 403 upload_refused; 408 upload_stalled, upload_too_slow; 413
// file_too_large, field_too_large; 415 multipart_required, type_not_allowed; 429
// too_many_uploads; 502 storage_refused; 503 uploads_busy, storage_unavailable,
// files_unavailable, upload_webhook_unavailable; 507 storage_full. After any of
// them nothing is kept.
func (s *Service) ServeUpload(w http.ResponseWriter, r *http.Request) (err error) {
	user, err := caller(r)
	if err != nil {
		return err
	}
	end := s.metrics.begin("upload")
	defer func() { end(err) }()
	want, err := s.announced(r)
	if err != nil {
		return err
	}
	leave, err := s.uploads.enter(ownerOf(user))
	if err != nil {
		return err
	}
	defer leave()
	f, err := s.receive(w, r, user, want)
	if err != nil {
		return err
	}
	s.announce(r.Context(), f)
	return rest.JSON(w, http.StatusCreated, uploaded{f.ID, f.Name, f.Size, f.Type, f.SHA256, s.url(f)})
}

// url is where the file can be fetched.
func (s *Service) url(f File) string {
	return strings.TrimSuffix(s.settings.PublicURL, "/") + "/files/" + f.ID
}

// announced reads the query and refuses what is too large before any of it
// was read.
func (s *Service) announced(r *http.Request) (announced, error) {
	query := r.URL.Query()
	want := announced{name: query.Get("name"), size: -1, sha256: strings.ToLower(query.Get("sha256"))}
	if text := query.Get("size"); text != "" {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || size < 0 {
			return want, errSizeParam
		}
		want.size = size
	}
	if sum, err := hex.DecodeString(want.sha256); err != nil || len(sum) != 0 && len(sum) != sha256.Size {
		return want, errSumParam
	}
	limit := int64(s.settings.MaxSize)
	if want.size > limit || r.ContentLength > limit+formOverhead {
		return want, errFileTooLarge
	}
	return want, nil
}

// receive reads the form of a request and keeps its file.
func (s *Service) receive(w http.ResponseWriter, r *http.Request, user auth.User, want announced) (File, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.settings.PendingTTL, errTooSlow)
	defer cancel()
	body := newBody(ctx, w, r, int64(s.settings.MaxSize)+formOverhead, s.settings.StallTimeout)
	defer body.close()
	form, err := newForm(r.Header.Get("Content-Type"), body.buffered)
	if err != nil {
		return File{}, err
	}
	f := newFile(user)
	if err := s.share(r, &f); err != nil {
		return File{}, err
	}
	content, err := s.inspect(&f, form)
	if err == nil {
		f.Name = pickName(f.Type, form.name, want.name, form.fileName)
		if !byBackend(ctx) {
			f.Attributes, err = s.hook.ask(ctx, f, want.size)
		}
	}
	if err == nil {
		err = s.ledger.Reserve(ctx, f)
	}
	if err != nil {
		return File{}, body.cause(err)
	}
	if err := s.keep(ctx, &f, content, form, want); err != nil {
		s.discard(ctx, f)
		return File{}, body.cause(err)
	}
	return f, nil
}

// inspect finds the file in the form, and its type from its first bytes.
func (s *Service) inspect(f *File, form *form) (io.Reader, error) {
	part, err := form.start()
	if err != nil {
		return nil, err
	}
	head := make([]byte, sniffSize)
	n, err := fill(part, head)
	if err != nil && err != io.EOF {
		return nil, formFault(err)
	}
	if f.Type = mimetype.Detect(head[:n]).String(); !s.allowed(f.Type) {
		return nil, errType
	}
	return io.MultiReader(bytes.NewReader(head[:n]), part), nil
}

// allowed tells whether files of a media type are taken.
func (s *Service) allowed(media string) bool {
	if len(s.settings.AllowedTypes) == 0 {
		return true
	}
	media, _, _ = strings.Cut(media, ";")
	major, _, _ := strings.Cut(media, "/")
	for _, t := range s.settings.AllowedTypes {
		if strings.EqualFold(t, media) || strings.EqualFold(t, major+"/*") || t == "*/*" {
			return true
		}
	}
	return false
}

// keep stores a reserved file, checks it against what was announced, and
// commits it.
func (s *Service) keep(ctx context.Context, f *File, content io.Reader, form *form, want announced) error {
	m := &meter{r: content, max: int64(s.settings.MaxSize), hash: sha256.New(), bytes: s.metrics.bytes.WithLabelValues("upload")}
	n, err := s.store.Put(ctx, f.Key, m, want.size)
	if err != nil {
		return err
	}
	if err := form.finish(); err != nil {
		return err
	}
	f.Size, f.SHA256 = n, hex.EncodeToString(m.hash.Sum(nil))
	if want.sha256 != "" && want.sha256 != f.SHA256 {
		return errSum
	}
	if s.hook == nil { // else the name that the backend was told stays
		f.Name = pickName(f.Type, form.name, want.name, form.fileName)
	}
	f.Owed = s.tell != nil
	if err := s.ledger.Commit(ctx, *f); err != nil {
		return err
	}
	f.State = Ready
	return nil
}

// pickName returns the first usable name, or makes one up.
func pickName(media string, names ...string) string {
	for _, raw := range names {
		if name := cleanName(raw); name != "" {
			return name
		}
	}
	name := "file"
	if m := mimetype.Lookup(media); m != nil {
		name += m.Extension()
	}
	return name
}

// discard removes a reserved file that failed, even if ctx has ended. Where a
// commit failed without an answer the file may be ready: nobody was told.
func (s *Service) discard(ctx context.Context, f File) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	retired, err := s.ledger.Retire(ctx, f.ID, Pending, Ready)
	if errors.Is(err, errNoFile) {
		retired, err = f, nil // its bytes may be there
		retired.SHA256 = ""   // but nobody was told
	}
	if err == nil {
		err = s.remove(ctx, retired)
	}
	if err != nil {
		slog.WarnContext(ctx, "remains of an upload are swept later", "file", f.ID, "error", err)
	}
}
