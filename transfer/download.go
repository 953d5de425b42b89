package transfer

import (
	"context"
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

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
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

// ServeDownload answers GET and HEAD of /files/{id} and /files/{id}/{name} (the
// name is for clients that look at the extension; any will do) with the file,
// or with a thumbnail of it (see serveThumb), for who may read it: see
// readable. Where the storage is to answer itself, a GET that has passed all
// conditions is sent on to it with 302, unless its link is one whose downloads
// are counted, or it is bound to this version of the file: see pinned.
// Conditional requests are answered without the storage; one byte range is
// served, several are answered with the whole file.
//
// Errors: 401 token_missing, 403 link_spent, download_refused, 404
// file_not_found (also for files of others), 409 file_checking, 410
// file_blocked, 412 precondition_failed, 416 range_not_satisfiable, 500
// file_lost, 502 storage_refused, 503 storage_unavailable, files_unavailable,
// download_webhook_unavailable, nodes_silent. If the storage fails half way,
// the connection is cut: never is a file shorter than its Content-Length.
func (s *Service) ServeDownload(w http.ResponseWriter, r *http.Request) error {
	g, err := s.readable(r)
	if err != nil {
		return err
	}
	if wantsThumb(r) {
		return s.serveThumb(w, r, g)
	}
	f := g.file
	etag := f.etag()
	if done, err := s.conditions(w, r, g, etag); done || err != nil {
		return err
	}
	h := w.Header()
	part := byteRange{length: f.Size}
	if r.Method == http.MethodGet {
		var ok bool
		if part, ok = requested(r.Header, etag, modifiedOf(f), f.Size); !ok {
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(f.Size, 10))
			return errRange
		}
		if err := s.maySpend(r.Context(), g, part.start == 0); err != nil {
			return err
		}
	}
	if r.Method == http.MethodHead {
		describe(h, f, part)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if sent, err := s.redirect(w, r, g); sent || err != nil {
		return err
	}
	return s.send(w, r, g, part)
}

// modifiedOf is when a file changed for the last time, as HTTP knows times.
func modifiedOf(f File) time.Time { return f.Created.Truncate(time.Second) }

// conditions sets what identifies the answer to a download, and answers where
// its conditions do not hold.
func (s *Service) conditions(w http.ResponseWriter, r *http.Request, g grant, etag string) (done bool, err error) {
	modified := modifiedOf(g.file)
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("Last-Modified", modified.Format(http.TimeFormat))
	h.Set("Cache-Control", s.cacheControl(g))
	h.Set("Vary", "Authorization")
	if s.checks.on() {
		h.Set("Referrer-Policy", "no-referrer") // else its address gets around
	}
	switch precondition(r.Header, etag, modified) {
	case http.StatusNotModified:
		w.WriteHeader(http.StatusNotModified)
		return true, nil
	case http.StatusPreconditionFailed:
		return false, errPrecondition
	}
	return false, nil
}

// redirectTime is how long the storage's own address of a file works: long
// enough for a phone to follow, and to go on where it broke off.
const redirectTime = 5 * time.Minute

// redirect sends the client to the storage itself, where that has an address.
func (s *Service) redirect(w http.ResponseWriter, r *http.Request, g grant) (bool, error) {
	switch {
	case g.file.State != Ready, g.link.Unchecked:
		return false, nil // its owner could hand the address on; crawlers may not follow
	case g.counted():
		return false, nil // the address works more than once
	case pinned(r.Header):
		return false, nil // the storage has other marks
	case g.file.Size == 0:
		return false, nil // there is nothing to get
	}
	until := time.Now().Add(s.checks.shorten(redirectTime))
	if g.linked && g.link.Expires.Before(until) {
		until = g.link.Expires
	}
	address, err := s.store.Address(r.Context(), g.file.Key, Presented{
		Type: g.file.Type, Disposition: disposition(dispositionOf(g.file.Type), g.file.Name), Until: until,
	})
	if address == "" || err != nil {
		return false, err
	}
	s.metrics.redirects.Inc()
	h := w.Header()
	h.Del("ETag") // of the file, not of this answer
	h.Del("Last-Modified")
	h.Set("Cache-Control", "private, no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", address)
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusFound)
	return true, nil
}

// describe sets the headers of an answer that has, or could have, a body.
func describe(h http.Header, f File, part byteRange) {
	h.Set("Content-Type", f.Type)
	h.Set("Content-Length", strconv.FormatInt(part.length, 10))
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-Content-Type-Options", "nosniff")
	// A page or picture from a user runs nothing and belongs to no origin.
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Content-Disposition", disposition(dispositionOf(f.Type), f.Name))
	if part.partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, f.Size))
	}
}

// dispositionOf is how browsers are to take a media type.
func dispositionOf(media string) string {
	if media, _, _ = strings.Cut(media, ";"); slices.Contains(inlineTypes, media) {
		return "inline"
	}
	return "attachment"
}

// send copies a part of a file from the storage, with one request to it.
func (s *Service) send(w http.ResponseWriter, r *http.Request, g grant, part byteRange) (err error) {
	f := g.file
	end := s.metrics.begin("download")
	defer func() { end(err) }()
	content, err := s.openPart(r.Context(), f, part)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }() // only read
	if err = s.spend(r.Context(), g, part.start == 0); err != nil {
		return err
	}
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

// openPart opens what is to be sent. An empty file needs no storage.
func (s *Service) openPart(ctx context.Context, f File, part byteRange) (io.ReadCloser, error) {
	if part.length == 0 {
		return http.NoBody, nil
	}
	content, err := s.store.Open(ctx, f.Key, part.start, part.length)
	if errors.Is(err, errNoObject) || errors.Is(err, errObjectRange) {
		s.metrics.lost.Inc()
		err = errLost.Because(err)
	}
	return content, err
}

// copy sends n bytes, at most stall_timeout for each step of them. The kernel
// does the work where r is a file and w a plain connection.
func (s *Service) copy(w http.ResponseWriter, r io.Reader, n int64) error {
	control := http.NewResponseController(w)
	stalled := rest.WriteDeadline(control, s.settings.StallTimeout)
	defer stalled.Lift()
	sent := s.metrics.bytes.WithLabelValues("download")
	for n > 0 {
		stalled.Extend()
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
