package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
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

var errSizeParam = fault.New(fault.Invalid, "size_invalid", "size must be a number of bytes.")

// announced is what a client may say about a file in the query.
type announced struct {
	name string
	size int64 // -1: nothing
	Sums
	access Access
}

// uploaded is the answer to an upload.
type uploaded struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Type   string `json:"type"`
	SHA256 string `json:"sha256,omitempty"` // "" only after an upload in parts that did not declare it
	URL    string `json:"url"`
	State  State  `json:"state,omitempty"` // "" where it is Ready
}

func (s *Service) answerOf(f File) uploaded {
	u := uploaded{f.ID, f.Name, f.Size, f.Type, f.SHA256, s.url(f), f.State}
	if f.State == Ready {
		u.State = "" // what clients expect, and what there was before there were others
	}
	return u
}

// ServeUpload answers POST /files: a form as wx.uploadFile sends it, with one
// file under any name and up to 32 fields before or after it. The file's name
// is the field name or filename, else ?name=, else what its part says; its type
// is what its bytes say, which with files.match_types may contradict neither the
// name nor the Content-Type of the part. Where the backend is asked about uploads
// (see [WebhookSettings]), fields behind the file come too late to name it. ?size=
// (bytes), and sha256 and crc32c (hexadecimal or base64) in the query or in
// fields, are checked where given; with size a file is passed on to S3 without
// waiting for memory.
//
// The answer is 201 with id, name, size, type, sha256 and url, and where others
// cannot read the file yet with state; by then the file is durable. Errors: 400
// form_invalid, upload_torn, file_missing, too_many_files, too_many_fields,
// size_invalid, sha256_invalid, crc32c_invalid, size_mismatch,
// checksum_mismatch; 403 upload_refused, quota_exceeded; 408 upload_stalled,
// upload_too_slow; 413 file_too_large, field_too_large; 415 multipart_required,
// type_not_allowed, type_mismatch; 429 too_many_uploads, daily_quota_exceeded;
// 502 storage_refused; 503 uploads_busy, storage_unavailable,
// files_unavailable, upload_webhook_unavailable; 507 storage_full. After any of
// them nothing is kept.
func (s *Service) ServeUpload(w http.ResponseWriter, r *http.Request) (err error) {
	user, err := caller(r)
	if err != nil {
		return err
	}
	end := s.metrics.begin("upload")
	defer func() { end(err) }()
	want, err := s.announced(r, user)
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
	s.became(r.Context(), f)
	return rest.JSON(w, http.StatusCreated, s.answerOf(f))
}

// url is where the file can be fetched.
func (s *Service) url(f File) string {
	return strings.TrimSuffix(s.settings.PublicURL, "/") + "/files/" + f.ID
}

// announced reads the query and refuses what is too large before any of it
// was read.
func (s *Service) announced(r *http.Request, user auth.User) (announced, error) {
	query := r.URL.Query()
	want := announced{name: query.Get("name"), size: -1}
	var err error
	if text := query.Get("size"); text != "" {
		if want.size, err = parseSize(text); err != nil {
			return want, err
		}
	}
	if want.Sums, err = ParseSums(query.Get("sha256"), query.Get("crc32c")); err != nil {
		return want, err
	}
	if want.access, err = accessOf(query); err != nil {
		return want, err
	}
	limit := int64(s.settings.MaxSize)
	if want.size > s.limit(user, want.access, "") || r.ContentLength > limit+formOverhead {
		return want, errFileTooLarge
	}
	return want, nil
}

func parseSize(text string) (int64, error) {
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 {
		return 0, errSizeParam
	}
	return size, nil
}

// receive reads the form of a request and keeps its file.
func (s *Service) receive(w http.ResponseWriter, r *http.Request, user auth.User, want announced) (File, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.settings.PendingTTL, errTooSlow)
	defer cancel()
	body := s.newBody(ctx, w, r, int64(s.settings.MaxSize)+formOverhead)
	defer body.close()
	form, err := newForm(r.Header.Get("Content-Type"), body.buffered)
	if err != nil {
		return File{}, err
	}
	f := newFile(user)
	if err := s.share(ctx, &f, want.access); err != nil {
		return File{}, err
	}
	content, found, err := s.inspect(form)
	if err == nil {
		f.Type = found.String()
		f.Name = pickName(f.Type, form.name, want.name, form.fileName)
		err = s.judge(f, form.fileType, found)
	}
	if err == nil && want.size > s.limit(user, f.Access, f.Type) {
		err = errFileTooLarge
	}
	if err == nil {
		want.Sums, err = want.and(form.sums)
	}
	if err == nil {
		f.Attributes, err = s.hook.ask(ctx, f, want.size)
	}
	if err == nil {
		// Nobody knows better: the rest of the form is settled at the commit.
		if f.Hold = want.size; f.Hold < 0 {
			f.Hold = min(max(r.ContentLength, 0), int64(s.settings.MaxSize))
		}
		err = s.ledger.Reserve(ctx, f, s.quota())
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
func (s *Service) inspect(form *form) (io.Reader, *mimetype.MIME, error) {
	part, err := form.start()
	if err != nil {
		return nil, nil, err
	}
	head := make([]byte, sniffSize)
	n, err := fill(part, head)
	if err != nil && err != io.EOF {
		return nil, nil, formFault(err)
	}
	return io.MultiReader(bytes.NewReader(head[:n]), part), mimetype.Detect(head[:n]), nil
}

// keep stores a reserved file, checks it against what was announced, and
// commits it.
func (s *Service) keep(ctx context.Context, f *File, content io.Reader, form *form, want announced) error {
	m := &meter{r: content, max: s.limit(f.Owner, f.Access, f.Type), hash: sha256.New(), crc: crc32.New(castagnoli), bytes: s.metrics.bytes.WithLabelValues("upload")}
	n, err := s.store.Put(ctx, f.Key, m, want.size)
	if err != nil {
		return err
	}
	if err := form.finish(); err != nil {
		return err
	}
	sums, err := want.and(form.sums) // of fields behind the file, too
	if err != nil {
		return err
	}
	f.Size, f.SHA256 = n, hex.EncodeToString(m.hash.Sum(nil))
	if err := sums.check(Sums{f.SHA256, hex.EncodeToString(m.crc.Sum(nil))}); err != nil {
		return err
	}
	if s.hook == nil { // else the name that the backend was told stays
		f.Name = pickName(f.Type, form.name, want.name, form.fileName)
		if err := s.judge(*f, form.fileType, mimetype.Lookup(f.Type)); err != nil {
			return err
		}
	}
	s.arrived(f)
	return s.ledger.Commit(ctx, *f, s.quota())
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
	retired, err := s.ledger.Retire(ctx, f.ID, Pending, Checking, Ready)
	if errors.Is(err, errNoFile) {
		retired, err = f, nil                     // its bytes may be there
		retired.SHA256, retired.Whole = "", false // but nobody was told
	}
	if err == nil {
		err = s.remove(ctx, retired)
	}
	if err != nil {
		slog.WarnContext(ctx, "remains of an upload are swept later", "file", f.ID, "error", err)
	}
}
