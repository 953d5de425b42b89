package transfer

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// The handlers in this file are minigate's own protocol of uploads in parts,
// made for wx.request: no PATCH, bodies that are an ArrayBuffer, and two or
// three requests at the same time.

// WayParts is what NewUpload.Way is in this protocol.
const WayParts = "parts"

const maxBeginBody = 16 << 10 // bytes

var errUploadSize = fault.New(fault.Invalid, "size_invalid", "size must be the file's size in bytes; leave it out where nobody knows it yet.")

// uploadAnswer is an upload as its client sees it.
type uploadAnswer struct {
	ID       string       `json:"id"`
	PartSize int64        `json:"part_size"` // bytes of every part but the last
	Expires  time.Time    `json:"expires"`
	Name     string       `json:"name,omitempty"`
	Type     string       `json:"type,omitempty"` // as declared
	Size     *int64       `json:"size,omitempty"` // bytes, where declared
	Received int64        `json:"received"`       // bytes
	Parts    []partAnswer `json:"parts"`
	Missing  []int        `json:"missing"`        // numbers of parts
	File     *uploaded    `json:"file,omitempty"` // once it is completed
}

type partAnswer struct {
	N    int   `json:"n"`
	Size int64 `json:"size"` // bytes
}

func (s *Service) uploadAnswer(u Upload) uploadAnswer {
	a := uploadAnswer{
		ID: u.ID, PartSize: u.PartSize, Expires: u.Expires, Name: u.Name, Type: u.Type,
		Received: u.Received(), Parts: []partAnswer{}, Missing: []int{},
	}
	if u.Size >= 0 {
		a.Size = &u.Size
	}
	if u.File != nil {
		f := s.answerOf(*u.File)
		a.File, a.Received = &f, u.File.Size
		return a
	}
	for _, p := range u.Parts {
		a.Parts = append(a.Parts, partAnswer{p.N, p.Size})
	}
	if missing := u.Missing(); missing != nil {
		a.Missing = missing
	}
	return a
}

// ServeBegin answers POST /files/uploads: {name?, size?, type?, sha256?,
// crc32c?, part_size?} → 201 {id, part_size, expires, …}. Without size the last
// part decides. part_size is a wish. sha256 and crc32c, of the whole file, in
// hexadecimal or base64, are checked at the end. ?public= and ?channel= say who
// may read the file, as of ServeUpload.
//
// With a header Idempotency-Key (1 to 255 printable characters, without quotes
// or in them) the caller's upload that began with that key goes on, while it is
// open, and its parts are in the answer.
//
// Errors: 400 idempotency_key_invalid, size_invalid, sha256_invalid,
// crc32c_invalid, type_invalid, access_invalid, channel_invalid; 403
// upload_refused, quota_exceeded, access_not_allowed, channel_not_allowed; 409
// idempotency_key_reused; 413 file_too_large; 415 type_not_allowed; 502
// storage_refused; 503 storage_unavailable, files_unavailable,
// upload_webhook_unavailable; 507 storage_full.
func (s *Service) ServeBegin(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	var req struct {
		Name, Type, SHA256, CRC32C string
		Size                       *int64
		PartSize                   int64 `json:"part_size"`
	}
	if err := rest.Decode(w, r, maxBeginBody, &req); err != nil {
		return err
	}
	o := NewUpload{Way: WayParts, Name: req.Name, Type: req.Type, Size: -1, PartSize: req.PartSize}
	if req.Size != nil {
		if o.Size = *req.Size; o.Size < 0 {
			return errUploadSize
		}
	}
	if o.Sums, err = ParseSums(req.SHA256, req.CRC32C); err != nil {
		return err
	}
	if o.Key, err = parseIdempotencyKey(r.Header.Get("Idempotency-Key")); err != nil {
		return err
	}
	if o.Access, err = accessOf(r.URL.Query()); err != nil {
		return err
	}
	u, err := s.Begin(r.Context(), user, o)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusCreated, s.uploadAnswer(u))
}

// openAnswer is an upload in the answer of ServeUploads.
type openAnswer struct {
	ID       string    `json:"id"`
	Way      string    `json:"way"`           // the protocol that began it
	Key      string    `json:"key,omitempty"` // Idempotency-Key
	Name     string    `json:"name,omitempty"`
	Type     string    `json:"type,omitempty"` // as declared
	Size     *int64    `json:"size,omitempty"` // bytes, where declared
	PartSize int64     `json:"part_size"`      // bytes
	Expires  time.Time `json:"expires"`
}

// ServeUploads answers GET /files/uploads: {uploads: [{id, way, key?, name?,
// type?, size?, part_size, expires}]}, of the caller's uploads that are not
// completed, those first that expire first, 100 at most. Errors: 503
// files_unavailable.
func (s *Service) ServeUploads(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	open, err := s.Open(r.Context(), user)
	if err != nil {
		return err
	}
	a := struct {
		Uploads []openAnswer `json:"uploads"`
	}{make([]openAnswer, len(open))}
	for i, u := range open {
		a.Uploads[i] = openAnswer{ID: u.ID, Way: u.Way, Key: u.Key, Name: u.Name, Type: u.Type, PartSize: u.PartSize, Expires: u.Expires}
		if u.Size >= 0 {
			a.Uploads[i].Size = &u.Size
		}
	}
	return rest.JSON(w, http.StatusOK, a)
}

// ServePart answers PUT /files/uploads/{id}/parts/{n}: the body is the part, n
// is 1 for the first. It may be sent again, and in any order. Checksums of the
// body are checked where a header has one: Content-Digest (RFC 9530), or
// X-Checksum-Sha256 or X-Checksum-Crc32c in hexadecimal or base64. The answer
// is 200 {n, size}; by then the part is durable.
//
// Errors: those of [Service.PutPart], 400 upload_torn, digest_invalid,
// sha256_invalid, crc32c_invalid, 408 upload_stalled, upload_too_slow. After any
// of them the upload is as it was before.
func (s *Service) ServePart(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		return errPartNumber.Because(err)
	}
	sums, err := sumsOfHeader(r.Header)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.settings.PendingTTL, errTooSlow)
	defer cancel()
	body := s.newBody(ctx, w, r, partSize+1)
	defer body.close()
	p, err := s.PutPart(ctx, user, r.PathValue("id"), n, body.buffered, NewPart{Size: r.ContentLength, Sums: sums})
	if err != nil {
		return body.cause(err)
	}
	return rest.JSON(w, http.StatusOK, partAnswer{p.N, p.Size})
}

// byUser is what the handlers of one upload have in common.
func byUser(r *http.Request, do func(ctx context.Context, user auth.User, id string) error) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	return do(r.Context(), user, r.PathValue("id"))
}

// ServeUploadStatus answers GET /files/uploads/{id}: {id, part_size, expires,
// size?, received, parts: [{n, size}], missing: [n], file?}. Errors: those of
// [Service.Status].
func (s *Service) ServeUploadStatus(w http.ResponseWriter, r *http.Request) error {
	return byUser(r, func(ctx context.Context, user auth.User, id string) error {
		u, err := s.Status(ctx, user, id)
		if err != nil {
			return err
		}
		return rest.JSON(w, http.StatusOK, s.uploadAnswer(u))
	})
}

// ServeComplete answers POST /files/uploads/{id}/complete as POST /files is
// answered, with 201. sha256 is there where it is known. Errors: those of
// [Service.Complete].
func (s *Service) ServeComplete(w http.ResponseWriter, r *http.Request) error {
	return byUser(r, func(ctx context.Context, user auth.User, id string) error {
		f, err := s.Complete(ctx, user, id)
		if err != nil {
			return err
		}
		return rest.JSON(w, http.StatusCreated, s.answerOf(f))
	})
}

// ServeAbort answers DELETE /files/uploads/{id} with 204. Errors: those of
// [Service.Abort].
func (s *Service) ServeAbort(w http.ResponseWriter, r *http.Request) error {
	return byUser(r, func(ctx context.Context, user auth.User, id string) error {
		if err := s.Abort(ctx, user, id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}
