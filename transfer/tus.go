package transfer

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tus/tusd/v2/pkg/handler"
	"github.com/tus/tusd/v2/pkg/memorylocker"
	"golang.org/x/exp/slog"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// WayTus is what NewUpload.Way is for tus 1.0, the protocol of resumable
// uploads that browsers and H5 builds have clients for
// (https://tus.io/protocols/resumable-upload). tusd's handler speaks it; the
// extensions Checksum and Expiration, which it does not have, are ours.
const WayTus = "tus"

// TusPath is where tus is served.
const TusPath = "/files/tus/"

// FileHeader is the header that names the file which an upload has become.
const FileHeader = "X-Minigate-File"

const (
	tusVersion    = "1.0.0"
	tusAlgorithms = "sha1,sha256,md5,crc32"
	tusMismatch   = 460 // the status that tus has for a checksum that is wrong
)

var (
	errTusMeta     = fault.New(fault.Invalid, "metadata_invalid", "Upload-Metadata must have pairs of a name and a value in base64, with commas between them.")
	errTusMetaSize = fault.Newf(fault.TooLarge, "metadata_too_large", "Upload-Metadata may have at most %d bytes.", maxTusMeta)
	errTusChecksum = fault.New(fault.Invalid, "checksum_invalid", "Upload-Checksum must be one of "+tusAlgorithms+", and the checksum in base64.")
	errTusSum      = fault.New(fault.Conflict, "chunk_mismatch", "What came does not have the checksum that was announced: send it again.")
)

// tusRequest is what the store knows of a request. It is of one goroutine,
// since tusd's handler makes no others that use it.
type tusRequest struct {
	user     auth.User
	method   string
	meta     string // Upload-Metadata
	sums     Sums   // of the whole file, out of meta
	checksum *tusChecksum
	body     *body
	upload   *tusUpload // that the request is about, once it is found
	err      error      // why the store refused
}

type tusKey struct{}

func tusRequestOf(ctx context.Context) *tusRequest { return ctx.Value(tusKey{}).(*tusRequest) }

// fail notes why the request failed: tusd would only tell the status.
func (q *tusRequest) fail(err error) error {
	if err == nil {
		return nil
	}
	q.err = err
	e := fault.Of(err)
	return handler.NewError(e.Code, e.Msg, rest.Status(e.Kind))
}

// broken is why the body could not be read to its end, nil where it could.
func (q *tusRequest) broken() error { return q.body.err }

// verify refuses a body that is not whole, or not the one that was announced,
// where it is to be kept only as a whole.
func (q *tusRequest) verify() error {
	switch {
	case q.checksum == nil:
		return nil
	case q.broken() != nil:
		return q.broken()
	case !q.checksum.fits():
		return errTusSum
	}
	return nil
}

// measured counts and sums up what passes.
func (q *tusRequest) measured(r io.Reader, bytes prometheus.Counter) io.Reader {
	if q.checksum != nil {
		r = io.TeeReader(r, q.checksum.hash)
	}
	return &counted{r, bytes}
}

type counted struct {
	r     io.Reader
	bytes prometheus.Counter
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.bytes.Add(float64(n))
	return n, err
}

// tusChecksum is an Upload-Checksum.
type tusChecksum struct {
	hash hash.Hash
	want []byte
}

func (c *tusChecksum) fits() bool { return subtle.ConstantTimeCompare(c.hash.Sum(nil), c.want) == 1 }

// parseTusChecksum reads an Upload-Checksum: the algorithm and the sum in
// base64; nil where there is none.
func parseTusChecksum(text string) (*tusChecksum, error) {
	if text == "" {
		return nil, nil
	}
	name, sum, _ := strings.Cut(text, " ")
	var c tusChecksum
	switch name {
	case "sha1": // that every server has to have
		c.hash = sha1.New()
	case "sha256":
		c.hash = sha256.New()
	case "md5":
		c.hash = md5.New()
	case "crc32":
		c.hash = crc32.NewIEEE()
	default:
		return nil, errTusChecksum
	}
	var err error
	if c.want, err = base64.StdEncoding.Strict().DecodeString(sum); err != nil || len(c.want) != c.hash.Size() {
		return nil, errTusChecksum
	}
	return &c, nil
}

// parseTusMeta checks an Upload-Metadata, which tusd reads as well as it can.
func parseTusMeta(text string) (handler.MetaData, error) {
	if len(text) > maxTusMeta {
		return nil, errTusMetaSize
	}
	meta := handler.MetaData{}
	if strings.TrimSpace(text) == "" {
		return meta, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), " ")
		raw, err := base64.StdEncoding.DecodeString(value)
		_, twice := meta[name]
		if err != nil || twice || name == "" || strings.IndexFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) >= 0 {
			return nil, errTusMeta
		}
		meta[name] = string(raw)
	}
	return meta, nil
}

// declaredType is the media type that a client says. Browsers say nothing, or
// application/octet-stream, where they do not know.
func declaredType(meta handler.MetaData) string {
	media, _, err := mime.ParseMediaType(firstOf(meta, "filetype", "type"))
	if err != nil || media == defaultMedia || !strings.Contains(media, "/") {
		return ""
	}
	return media
}

// newTus makes the handler of s.
func newTus(s *Service) (*handler.UnroutedHandler, error) {
	store := tusStore{s}
	composer := handler.NewStoreComposer()
	composer.UseCore(store)
	composer.UseTerminater(store)
	composer.UseLengthDeferrer(store)
	composer.UseLocker(tusLocker{memorylocker.New()})
	return handler.NewUnroutedHandler(handler.Config{
		StoreComposer: composer, BasePath: TusPath, MaxSize: int64(s.settings.MaxSize),
		Logger: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1})), // rest logs what there is to log
		Cors:   &handler.CorsConfig{Disable: true},                                                          // rest.CORS is before us
		// The store lets go of the request's context by itself.
		GracefulRequestCompletionTimeout: time.Nanosecond,
		NetworkTimeout:                   s.settings.StallTimeout,
	})
}

// ServeTus answers all of tus 1.0 below /files/tus/, with the extensions
// creation, creation-with-upload, creation-defer-length, checksum, expiration
// and termination. Upload-Metadata may have filename (or name), filetype (or
// type), and sha256 and crc32c of the whole file, which are checked at the end.
// OPTIONS needs no login. Where no PATCH can be sent, POST with
// X-HTTP-Method-Override does.
//
// The answer to the request with the last byte, and to HEAD from then on, has
// the file's id in X-Minigate-File: it is the same as that of the upload, the
// last part of its URL.
//
// Errors are in the shape of all ours, with tus's statuses: those of
// [Service.Begin], [Service.PutPart] and [Service.Complete]; 400
// metadata_invalid, checksum_invalid, invalid_upload_length, invalid_offset,
// upload_torn; 404 upload_not_found; 408 upload_stalled; 409 mismatched_offset,
// upload_changed, upload_interrupted, all of which say to look at the offset
// and go on; 410 upload_expired; 412 unsupported_version; 413
// metadata_too_large, upload_size_exceeded; 415 invalid_content_type; 429
// too_many_uploads; 460 chunk_mismatch; 503 uploads_busy.
func (s *Service) ServeTus(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Tus-Resumable", tusVersion)
	q, err := newTusRequest(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), tusKey{}, q))
	defer cancel()
	q.body = s.newBody(ctx, w, r, int64(s.settings.MaxSize)+1)
	defer q.body.close()
	in := r.WithContext(ctx)
	in.Body = tusBody{q.body.buffered, r.Body}
	path := *r.URL
	path.Path = TusUpload(path.Path)
	in.URL = &path
	answer := &tusAnswer{ResponseWriter: w, header: http.Header{}}
	s.tus.Middleware(http.HandlerFunc(s.routeTus)).ServeHTTP(answer, in)
	q.describe(w.Header())
	if answer.status >= http.StatusBadRequest {
		return q.refuse(w, r, answer)
	}
	answer.send(q)
	return nil
}

// TusUpload is the id of the upload at a path below [TusPath]; "" for that
// path itself.
func TusUpload(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, strings.TrimSuffix(TusPath, "/")), "/")
}

func newTusRequest(r *http.Request) (q *tusRequest, err error) {
	q = &tusRequest{method: r.Method, meta: r.Header.Get("Upload-Metadata")}
	if override := r.Header.Get("X-HTTP-Method-Override"); r.Method == http.MethodPost && override != "" {
		q.method = override
	}
	if q.method == http.MethodOptions {
		return q, nil
	}
	if q.user, err = caller(r); err != nil {
		return nil, err
	}
	meta, err := parseTusMeta(q.meta)
	if err != nil {
		return nil, err
	}
	if q.sums, err = ParseSums(meta["sha256"], meta["crc32c"]); err != nil {
		return nil, err
	}
	q.checksum, err = parseTusChecksum(r.Header.Get("Upload-Checksum"))
	return q, err
}

// routeTus finds the handler of a request whose method has been overridden.
func (s *Service) routeTus(w http.ResponseWriter, r *http.Request) {
	switch one := r.URL.Path != ""; {
	case !one && r.Method == http.MethodPost:
		s.tus.PostFile(w, r)
	case one && r.Method == http.MethodHead:
		s.tus.HeadFile(w, r)
	case one && r.Method == http.MethodPatch:
		s.tus.PatchFile(w, r)
	case one && r.Method == http.MethodDelete:
		s.tus.DelFile(w, r)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// describe says of an upload what tusd does not.
func (q *tusRequest) describe(h http.Header) {
	u := q.upload
	if u == nil || q.method == http.MethodDelete {
		return
	}
	if q.method == http.MethodPost {
		h.Set("Location", TusPath+u.f.ID) // also where the bytes that came with it failed
	}
	if u.f.kept() {
		h.Set(FileHeader, u.f.ID)
	} else {
		h.Set("Upload-Expires", u.f.Session.Expires.Format(http.TimeFormat))
	}
}

// tusFaults are errors of tusd that we have other words for.
var tusFaults = map[string]*fault.Error{
	"ERR_MAX_SIZE_EXCEEDED":       errFileTooLarge,
	"ERR_UPLOAD_NOT_FOUND":        errNoUpload,
	"ERR_INVALID_CONTENT_TYPE":    fault.New(fault.Unsupported, "invalid_content_type", "The Content-Type must be application/offset+octet-stream."),
	"ERR_UPLOAD_INTERRUPTED":      fault.New(fault.Conflict, "upload_interrupted", "Another request for this upload came: look at what is there and go on from that."),
	"ERR_LOCK_TIMEOUT":            fault.New(fault.Unavailable, "upload_locked", "Another request for this upload has not ended yet: try again."),
	"ERR_UNEXPECTED_EOF":          errTorn,
	"ERR_READ_TIMEOUT":            errStalled,
	"ERR_CONNECTION_RESET":        errTorn,
	"ERR_UPLOAD_SIZE_EXCEEDED":    fault.New(fault.TooLarge, "upload_size_exceeded", "More came than the upload has."),
	"ERR_UNSUPPORTED_VERSION":     fault.New(fault.Precondition, "unsupported_version", "The header Tus-Resumable must be "+tusVersion+"."),
	"ERR_MISMATCHED_OFFSET":       fault.New(fault.Conflict, "mismatched_offset", "Upload-Offset is not what has arrived: look at what is there and go on from that."),
	"ERR_INVALID_OFFSET":          fault.New(fault.Invalid, "invalid_offset", "Upload-Offset must be a number of bytes."),
	"ERR_INVALID_UPLOAD_LENGTH":   fault.New(fault.Invalid, "invalid_upload_length", "Upload-Length must be a number of bytes."),
	"ERR_AMBIGUOUS_UPLOAD_LENGTH": fault.New(fault.Invalid, "invalid_upload_length", "There may be Upload-Length or Upload-Defer-Length, not both."),
}

// refuse answers what the store or tusd has refused.
func (q *tusRequest) refuse(w http.ResponseWriter, r *http.Request, a *tusAnswer) error {
	name, _, _ := strings.Cut(string(a.body), ":")
	known := tusFaults[name]
	switch {
	case errors.Is(q.err, errTusSum):
		rest.Fail(&statusWriter{w, tusMismatch}, r, q.err)
		return nil
	case q.err != nil:
		return q.err
	case known != nil:
		if known.Kind == fault.Precondition {
			w.Header().Set("Tus-Version", tusVersion)
		}
		return known
	case q.broken() != nil: // which tusd has no word for
		return q.broken()
	case a.status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", "OPTIONS, POST, HEAD, PATCH, DELETE")
		return fault.New(fault.NotAllowed, "method_not_allowed", "This path does not take this method.")
	case a.status < http.StatusInternalServerError:
		return fault.New(fault.Invalid, strings.ToLower(strings.TrimPrefix(name, "ERR_")), "This is not a request of tus "+tusVersion+".")
	}
	return fault.New(fault.Internal, "internal", "Something went wrong on our side.").Because(errors.New(strconv.Itoa(a.status) + " " + name))
}

// tusAnswer holds an answer of tusd back.
type tusAnswer struct {
	http.ResponseWriter // for its controls only
	header              http.Header
	status              int
	body                []byte
}

// Header implements http.ResponseWriter.
func (a *tusAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *tusAnswer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter: tusd writes only its errors.
func (a *tusAnswer) Write(p []byte) (int, error) {
	a.body = append(a.body, p...)
	return len(p), nil
}

// Unwrap is for http.ResponseController.
func (a *tusAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// send passes an answer on that is no error.
func (a *tusAnswer) send(q *tusRequest) {
	h := a.ResponseWriter.Header()
	for _, name := range []string{"Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Tus-Version", "Tus-Max-Size"} {
		if v := a.header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch q.method {
	case http.MethodOptions:
		h.Set("Tus-Extension", a.header.Get("Tus-Extension")+",checksum,expiration")
		h.Set("Tus-Checksum-Algorithm", tusAlgorithms)
		a.status = http.StatusNoContent
	case http.MethodHead:
		if meta := q.upload.state.Meta; meta != "" {
			h.Set("Upload-Metadata", meta)
		}
	}
	a.ResponseWriter.WriteHeader(a.status)
}

// statusWriter answers with a status of its own.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (s *statusWriter) WriteHeader(int) { s.ResponseWriter.WriteHeader(s.status) }

// tusBody is a body that is read through another reader.
type tusBody struct {
	io.Reader
	io.Closer
}
