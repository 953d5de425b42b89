package transfer

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// The handlers in this file answer miniprogram-file-uploader, the npm package
// of WeChat's own team, as it is (1.0.0): its chunks are parts, and what it
// calls a file, its identifier, is an alias of the upload.

// WayUploader is what NewUpload.Way is for miniprogram-file-uploader.
const WayUploader = "uploader"

const (
	maxIdentifier = 128 // characters
	beginWait     = 30 * time.Second
)

var (
	errIdentifier = fault.Newf(fault.Invalid, "identifier_invalid", "identifier must have 1 to %d visible ASCII characters.", maxIdentifier)
	errChunk      = fault.New(fault.Invalid, "chunk_invalid", "index, chunkSize, totalChunks and totalSize do not fit together. A # in fileName cuts them off.")
	errChunkSize  = fault.New(fault.Invalid, "chunk_size_invalid", "Chunks of this size cannot be taken.")
	errChunks     = fault.New(fault.Conflict, "upload_differs", "An upload with this identifier has another size, or other chunks.")
)

// pieceOf is what a client says about a chunk, and with it about the file.
type pieceOf struct {
	identifier string
	name       string
	index      int // 0 for the first
	chunks     int
	size       int64 // bytes of the file
	chunkSize  int64 // bytes of every chunk but the last
}

// parseIdentifier reads what identifies a file: the MD5 of its bytes, or
// something random.
func parseIdentifier(q url.Values) (string, error) {
	id := q.Get("identifier")
	if id == "" || len(id) > maxIdentifier || strings.IndexFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) >= 0 {
		return "", errIdentifier
	}
	return id, nil
}

// parsePiece reads the query of a chunk. Its chunkSize is the size of this one.
func parsePiece(q url.Values) (p pieceOf, err error) {
	if p.identifier, err = parseIdentifier(q); err != nil {
		return p, err
	}
	p.name = q.Get("fileName")
	var n [4]int64
	for i, name := range []string{"index", "totalChunks", "totalSize", "chunkSize"} {
		if n[i], err = strconv.ParseInt(q.Get(name), 10, 64); err != nil || n[i] < 0 || n[i] > MaxParts*partSize {
			return p, errChunk
		}
	}
	chunks, size, here := n[1], n[2], n[3]
	if chunks < 1 || chunks > MaxParts || n[0] >= chunks || here < 1 {
		return p, errChunk
	}
	p.index, p.chunks, p.size, p.chunkSize = int(n[0]), int(chunks), size, here
	if n[0] == chunks-1 && chunks > 1 {
		p.chunkSize = (size - here) / (chunks - 1)
	}
	last := size - (chunks-1)*p.chunkSize
	if last < 1 || last > p.chunkSize || n[0] == chunks-1 && last != here {
		return p, errChunk
	}
	return p, nil
}

// fits tells whether the chunks are the parts of an upload.
func (p pieceOf) fits(size, partSize int64) bool {
	u := Upload{Size: size, PartSize: partSize}
	return p.size == size && p.chunks == u.Count() && (p.chunks == 1 || p.chunkSize == partSize)
}

// verification answers ServeUploaderVerify.
type verification struct {
	NeedUpload     bool  `json:"needUpload"`
	UploadedChunks []int `json:"uploadedChunks"` // 0 is the first
	*uploaded            // what the file is, where there is no need
}

// ServeUploaderVerify answers GET /files/uploader/verify?identifier=&fileName=: which
// chunks are there, or the file, where it has been uploaded already. Errors:
// 400 identifier_invalid; those of the ledger and the store.
func (s *Service) ServeUploaderVerify(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	identifier, err := parseIdentifier(r.URL.Query())
	if err != nil {
		return err
	}
	f, _, err := s.identified(r.Context(), user, identifier)
	if errors.Is(err, errNoUpload) {
		return rest.JSON(w, http.StatusOK, verification{NeedUpload: true, UploadedChunks: []int{}})
	}
	if err != nil {
		return err
	}
	u, err := s.Status(r.Context(), user, f.ID)
	if err != nil {
		return err
	}
	a := verification{NeedUpload: u.File == nil, UploadedChunks: []int{}}
	if u.File != nil {
		file := s.answerOf(*u.File)
		a.uploaded = &file
	}
	for _, p := range u.Parts {
		if p.N <= u.Count() && p.Size == u.partSizeOf(p.N) {
			a.UploadedChunks = append(a.UploadedChunks, p.N-1)
		}
	}
	return rest.JSON(w, http.StatusOK, a)
}

// ServeUploaderChunk answers POST /files/uploader/chunk?identifier=&index=&chunkSize=&
// totalChunks=&totalSize=&fileName=, whose body is the chunk, with 200. The
// first chunk that comes, whichever it is, begins the upload. Chunks are of
// files.part_size or any other size that parts can have.
//
// Errors: 400 identifier_invalid, chunk_invalid, chunk_size_invalid; 409
// upload_completed, upload_differs; those of [Service.Begin] and
// [Service.ServePart].
func (s *Service) ServeUploaderChunk(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	p, err := parsePiece(r.URL.Query())
	if err != nil {
		return err
	}
	f, err := s.uploadOfPiece(r.Context(), user, p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.settings.PendingTTL, errTooSlow)
	defer cancel()
	body := s.newBody(ctx, w, r, partSize+1)
	defer body.close()
	part, err := s.PutPart(ctx, user, f.ID, p.index+1, body.buffered, NewPart{Size: r.ContentLength})
	if err != nil {
		return body.cause(err)
	}
	return rest.JSON(w, http.StatusOK, partAnswer{part.N, part.Size})
}

// ServeUploaderMerge answers GET /files/uploader/merge?identifier=&fileName= as POST
// /files is answered, but with 200. The name counts unless the backend was
// told another. Errors: 400 identifier_invalid; those of [Service.Complete].
func (s *Service) ServeUploaderMerge(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	identifier, err := parseIdentifier(query)
	if err != nil {
		return err
	}
	f, _, err := s.identified(r.Context(), user, identifier)
	if err != nil {
		return err
	}
	// Here the client has encoded the name; with its chunks it has not.
	if name := cleanName(query.Get("fileName")); f.State == Pending && s.hook == nil && name != "" && name != f.Name {
		f.Name = name
		if err := s.ledger.Update(r.Context(), f, s.quota()); err != nil {
			return err
		}
	}
	if f, err = s.Complete(r.Context(), user, f.ID); err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, s.answerOf(f))
}

// identified returns the upload with an identifier, which may be a file by
// now. Where there is none any more, the id is that of the one there was.
func (s *Service) identified(ctx context.Context, user auth.User, identifier string) (f File, id string, err error) {
	id, err = s.ledger.Alias(ctx, user, identifier, "", "", time.Time{})
	if err != nil {
		return f, "", err
	}
	f, err = s.session(ctx, user, id)
	if errors.Is(err, errExpired) {
		err = errNoUpload.Because(err)
	}
	return f, id, err
}

// uploadOfPiece returns the upload that a chunk is of, or begins it. Several
// chunks come at the same time; on this node they begin one upload.
func (s *Service) uploadOfPiece(ctx context.Context, user auth.User, p pieceOf) (File, error) {
	found, err, _ := s.chunked.Do(accountOf(user)+"\x00"+p.identifier, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beginWait) // it is not of one chunk
		defer cancel()
		return s.beginPiece(ctx, user, p)
	})
	f := found.(File)
	switch {
	case err != nil:
		return File{}, err
	case f.kept():
		return File{}, errCompleted
	case !p.fits(f.Session.Size, f.Session.PartSize):
		return File{}, errChunks
	}
	return f, nil
}

func (s *Service) beginPiece(ctx context.Context, user auth.User, p pieceOf) (File, error) {
	f, stale, err := s.identified(ctx, user, p.identifier)
	switch {
	case err == nil && (f.kept() || p.fits(f.Session.Size, f.Session.PartSize)):
		return f, nil
	case err != nil && !errors.Is(err, errNoUpload):
		return f, err
	}
	size := s.choosePartSize(p.size, p.chunkSize, s.limit(user, Access{}, ""))
	if !p.fits(p.size, size) {
		e := *errChunkSize
		e.Msg = "chunkSize must be between " + strconv.FormatInt(s.store.MinPart(), 10) + " and " + strconv.Itoa(partSize) + " bytes."
		return File{}, &e
	}
	if err == nil { // by an older version of the app, say
		if err := s.Abort(ctx, user, f.ID); err != nil {
			return File{}, err
		}
	}
	u, err := s.Begin(ctx, user, NewUpload{Way: WayUploader, Name: p.name, Size: p.size, PartSize: p.chunkSize})
	if err != nil {
		return File{}, err
	}
	id, err := s.ledger.Alias(ctx, user, p.identifier, stale, u.ID, u.Expires)
	if err != nil || id != u.ID { // another node was faster
		if err := errors.Join(err, s.Abort(ctx, user, u.ID)); err != nil {
			return File{}, err
		}
	}
	return s.session(ctx, user, id)
}
