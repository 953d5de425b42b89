package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// copyStep is how much is sent before the write deadline moves on.
const copyStep = 256 << 10

// inlineTypes are shown by browsers without running anything of the file's;
// all others are only saved.
var inlineTypes = []string{
	"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif",
	"video/mp4", "audio/mpeg", "audio/mp4", "audio/x-m4a",
}

var (
	errPrecondition = fault.New(fault.Precondition, "precondition_failed", "The file is not the one the request is about.")
	errRange        = fault.New(fault.Range, "range_not_satisfiable", "The file ends before the range begins.")
	errLost         = fault.New(fault.Internal, "file_lost", "The file's bytes are missing from the storage.")
)

// ServeDownload answers GET and HEAD of /files/{id} and /files/{id}/{name}
// (the name is for clients that look at the extension; any will do) with the
// file, for its owner or for who has a link to it. Conditional requests are
// answered without the storage; one byte range is served, several are answered
// with the whole file.
//
// Errors: 404 file_not_found (also for files of others), 412
// precondition_failed, 416 range_not_satisfiable, 500 file_lost, 502
// storage_refused, 503 storage_unavailable, files_unavailable. If the storage
// fails half way, the connection is cut: never is a file shorter than its
// Content-Length.
func (s *Service) ServeDownload(w http.ResponseWriter, r *http.Request) error {
	f, keep, err := s.readable(r)
	if err != nil {
		return err
	}
	etag, modified := `"`+f.SHA256+`"`, f.Created.Truncate(time.Second)
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("Last-Modified", modified.Format(http.TimeFormat))
	h.Set("Cache-Control", keep)
	h.Set("Vary", "Authorization")
	switch precondition(r.Header, etag, modified) {
	case http.StatusNotModified:
		w.WriteHeader(http.StatusNotModified)
		return nil
	case http.StatusPreconditionFailed:
		return errPrecondition
	}
	part := byteRange{length: f.Size}
	if r.Method == http.MethodGet {
		var ok bool
		if part, ok = requested(r.Header, etag, modified, f.Size); !ok {
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(f.Size, 10))
			return errRange
		}
	}
	if r.Method == http.MethodHead || part.length == 0 {
		describe(h, f, part)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return s.send(w, r, f, part)
}

// linkCache is how long, at most, a client that came with a link need not ask
// again.
const linkCache = 5 * time.Minute

// readable returns the file of a request that may read it, and for how long an
// answer may be kept.
func (s *Service) readable(r *http.Request) (f File, keep string, err error) {
	link, linked := auth.LinkFrom(r.Context())
	if !linked || link.File != r.PathValue("id") {
		f, err = s.owned(r)
		return f, "private, no-cache", err // kept, but asked for each time: access may end
	}
	f, err = s.ready(r.Context(), link.File)
	life := min(time.Until(link.Expires), linkCache)
	return f, "private, max-age=" + strconv.Itoa(int(max(life, 0)/time.Second)), err
}

// describe sets the headers of an answer that has, or could have, a body.
func describe(h http.Header, f File, part byteRange) {
	h.Set("Content-Type", f.Type)
	h.Set("Content-Length", strconv.FormatInt(part.length, 10))
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-Content-Type-Options", "nosniff")
	// A page or picture from a user runs nothing and belongs to no origin.
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	kind := "attachment"
	if media, _, _ := strings.Cut(f.Type, ";"); slices.Contains(inlineTypes, media) {
		kind = "inline"
	}
	h.Set("Content-Disposition", disposition(kind, f.Name))
	if part.partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, f.Size))
	}
}

// send copies a part of f from the storage, with one request to it.
func (s *Service) send(w http.ResponseWriter, r *http.Request, f File, part byteRange) (err error) {
	end := s.metrics.begin("download")
	defer func() { end(err) }()
	content, err := s.store.Open(r.Context(), f.Key, part.start, part.length)
	if errors.Is(err, errNoObject) || errors.Is(err, errObjectRange) {
		return errLost.Because(err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }() // only read
	describe(w.Header(), f, part)
	status := http.StatusOK
	if part.partial {
		status = http.StatusPartialContent
	}
	w.WriteHeader(status)
	if err = s.copy(w, content, part.length); err == nil {
		return nil
	}
	if r.Context().Err() == nil && storageFailed(err) {
		slog.ErrorContext(r.Context(), "download cut short by the storage", "file", f.ID, "error", err)
	} else {
		err = fault.ErrCanceled.Because(err)
	}
	panic(http.ErrAbortHandler) // cuts the connection: an error can no longer be answered
}

// copy sends n bytes, at most stall_timeout for each step of them. The kernel
// does the work where r is a file and w a plain connection.
func (s *Service) copy(w http.ResponseWriter, r io.Reader, n int64) error {
	control := http.NewResponseController(w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	sent := s.metrics.bytes.WithLabelValues("download")
	for n > 0 {
		_ = control.SetWriteDeadline(time.Now().Add(s.settings.StallTimeout)) // every real server can
		m, err := io.CopyN(w, r, min(n, copyStep))
		n -= m
		sent.Add(float64(m))
		if err != nil {
			return err
		}
	}
	err := control.Flush() // while the deadline holds
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// storageFailed tells errors of the storage from those of the connection to
// the client.
func storageFailed(err error) bool {
	if _, ok := errors.AsType[*fault.Error](err); ok || errors.Is(err, io.EOF) {
		return true
	}
	_, ok := errors.AsType[*fs.PathError](err)
	return ok
}
