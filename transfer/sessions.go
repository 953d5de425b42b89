package transfer

import (
	"context"
	"errors"
	"mime"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// The methods in this file and the two beside it are uploads in parts for
// every way in: each asks for a user, and none knows HTTP. Uploads of others
// do not exist for a user.

const (
	defaultMedia = "application/octet-stream"
	maxNote      = 4 << 10 // bytes of NewUpload.Note
)

var (
	errExpired   = fault.New(fault.Gone, "upload_expired", "This upload has expired: begin a new one.")
	errCompleted = fault.New(fault.Conflict, "upload_completed", "This upload is completed: it is a file now.")
	errDeclared  = fault.New(fault.Conflict, "size_declared", "The size of this upload was declared before.")
	errTypeParam = fault.New(fault.Invalid, "type_invalid", "type must be a media type, such as image/png.")
	errNote      = fault.Newf(fault.TooLarge, "note_too_large", "What is kept with an upload may have at most %d bytes.", maxNote)
)

// NewUpload is what is known of a file when its upload begins.
type NewUpload struct {
	Way      string // which of the ways in this is, such as "parts"
	Key      string // the client's; see Begin
	Name     string // as the client has it
	Type     string // media type; "" unless the client said
	Size     int64  // bytes; -1: not yet known, see Declare
	PartSize int64  // bytes, a wish; 0: files.part_size
	Sums            // of the whole file, checked by Complete
	Note     string // kept for the way in, at most 4 KiB
	Access   Access // who is to read the file beside its owner
}

// Upload is an upload in parts.
type Upload struct {
	ID       string
	Way      string
	Key      string // may be ""
	Name     string // clean; may be ""
	Type     string // media type, as declared; may be ""
	Size     int64  // bytes; -1: not yet known
	PartSize int64  // bytes of every part but the last
	Expires  time.Time
	Note     string
	Parts    []Part // that are there, in order; only of Status
	File     *File  // once it is completed
}

func uploadOf(f File) Upload {
	s := f.Session
	u := Upload{ID: f.ID, Way: s.Way, Key: s.Key, Name: f.Name, Type: s.Type, Size: s.Size, PartSize: s.PartSize, Expires: s.Expires, Note: s.Note}
	if f.kept() {
		u.File = &f
	}
	return u
}

// Received is how many bytes are there, in parts in any order.
func (u Upload) Received() (n int64) {
	for _, p := range u.Parts {
		n += p.Size
	}
	return n
}

// Count is how many parts the file has; -1 where its size is not yet known. An
// empty file has none.
func (u Upload) Count() int {
	if u.Size < 0 {
		return -1
	}
	return int((u.Size + u.PartSize - 1) / u.PartSize)
}

// partSizeOf is how large part n is; -1 where that is not known.
func (u Upload) partSizeOf(n int) int64 {
	switch count := u.Count(); {
	case count < 0:
		return -1
	case n < count:
		return u.PartSize
	}
	return u.Size - int64(n-1)*u.PartSize
}

// Missing are the numbers of the parts that are not there, or not whole. Where
// the size is not yet known, the last part that is there counts as the end.
func (u Upload) Missing() (missing []int) {
	count, known := u.Count(), true
	if count < 0 {
		count, known = 1, false
		if last := len(u.Parts); last > 0 {
			count = u.Parts[last-1].N
		}
	}
	i := 0
	for n := 1; n <= count; n++ {
		for i < len(u.Parts) && u.Parts[i].N < n {
			i++
		}
		there := i < len(u.Parts) && u.Parts[i].N == n
		if there && (known || n < count) {
			want := u.PartSize
			if known {
				want = u.partSizeOf(n)
			}
			there = u.Parts[i].Size == want
		}
		if !there {
			missing = append(missing, n)
		}
	}
	return missing
}

// Begin begins an upload. With a Key, the user's upload that began with that
// Key goes on as long as it is open, with the parts that are there: whoever did
// not hear of it, or has forgotten it, finds it again. The backend is asked
// about it where it wants to be; it is told the type that was declared. Faults:
// Invalid `type_invalid`, `access_invalid`, `channel_invalid`; TooLarge
// `file_too_large`, `note_too_large`; Unsupported `type_not_allowed`; Forbidden
// `access_not_allowed`, `channel_not_allowed`, `upload_refused`,
// `quota_exceeded`; Limited `daily_quota_exceeded`, `too_many_sessions`;
// NoSpace `storage_full`; those of the backend's webhook, the ledger and the
// store.
func (s *Service) Begin(ctx context.Context, user auth.User, o NewUpload) (Upload, error) {
	f, err := s.newSession(user, o)
	if err == nil {
		err = s.share(ctx, &f, o.Access)
	}
	if err != nil {
		return Upload{}, err
	}
	if o.Key != "" {
		return s.beginOnce(ctx, f)
	}
	f, err = s.begin(ctx, f)
	return uploadOf(f), err
}

// begin enters the record of an upload, once the backend has nothing against
// it, and begins it in the store.
func (s *Service) begin(ctx context.Context, f File) (_ File, err error) {
	if f.Attributes, err = s.hook.ask(ctx, f, f.Session.Size); err != nil {
		return File{}, err
	}
	if err := s.ledger.Reserve(ctx, f, s.quota()); err != nil || f.posted() {
		return f, err
	}
	if err = s.beginStored(ctx, &f); err != nil {
		s.discard(ctx, f)
	}
	return f, err
}

func (s *Service) beginStored(ctx context.Context, f *File) (err error) {
	if f.Session.Upload, err = s.store.Begin(ctx, f.Key, f.Session.PartSize); err == nil {
		err = s.ledger.Update(ctx, *f, s.quota())
	}
	return err
}

// newSession makes the record of an upload, or refuses it.
func (s *Service) newSession(user auth.User, o NewUpload) (File, error) {
	f := newFile(user)
	f.Type = defaultMedia
	if o.Type != "" {
		media, params, err := mime.ParseMediaType(o.Type)
		if err != nil || !strings.Contains(media, "/") {
			return f, errTypeParam
		}
		f.Type = mime.FormatMediaType(media, params)
		o.Type = f.Type
		if !s.allowed(f.Type) {
			return f, errType
		}
	}
	limit := s.limit(user, o.Access, o.Type)
	size := s.choosePartSize(o.Size, o.PartSize, limit)
	if o.Size > limit || o.Size > MaxParts*size {
		return f, errFileTooLarge
	}
	if len(o.Note) > maxNote {
		return f, errNote
	}
	if f.Name = cleanName(o.Name); f.Name == "" && s.hook != nil {
		f.Name = pickName(f.Type) // the backend is told one, and then it stays
	}
	f.Hold = max(o.Size, 0)
	f.Session = Session{
		Way: o.Way, Key: o.Key, PartSize: size, Size: max(o.Size, -1), Type: o.Type, SHA256: o.SHA256, CRC32C: o.CRC32C,
		Expires: f.Created.Add(s.settings.SessionTTL), Note: o.Note,
	}
	return f, nil
}

// choosePartSize finds the size of parts for a file of size bytes, or of up to
// limit where that is -1. A wish is granted where it can be.
func (s *Service) choosePartSize(size, wish, limit int64) int64 {
	if wish <= 0 {
		wish = int64(s.settings.PartSize)
		if size < 0 {
			size = limit
		}
	}
	enough := (size + MaxParts - 1) / MaxParts // or there would be too many
	return min(max(wish, enough, s.store.MinPart()), partSize)
}

// session returns the record of an upload of the user: a pending one, or a
// file that it became.
func (s *Service) session(ctx context.Context, user auth.User, id string) (File, error) {
	if !isID(id) {
		return File{}, errNoUpload
	}
	f, err := s.ledger.Get(ctx, id)
	switch {
	case errors.Is(err, errNoFile):
		return f, errNoUpload.Because(err)
	case err != nil:
		return f, err
	case !f.inParts() || f.State == Deleting || ownerOf(f.Owner) != ownerOf(user):
		return File{}, errNoUpload
	case f.State == Pending && !f.Session.Expires.After(now()):
		return File{}, errExpired
	}
	return f, nil
}

// open returns the record of an upload of the user that is not completed.
func (s *Service) open(ctx context.Context, user auth.User, id string) (File, error) {
	f, err := s.session(ctx, user, id)
	if err == nil && f.kept() {
		err = errCompleted
	}
	return f, err
}

// Status returns an upload with the parts that are there, or with its file.
// Faults: NotFound `upload_not_found`; Gone `upload_expired`; those of the
// ledger and the store.
func (s *Service) Status(ctx context.Context, user auth.User, id string) (Upload, error) {
	f, err := s.session(ctx, user, id)
	if err != nil {
		return Upload{}, err
	}
	u := uploadOf(f)
	if u.File == nil {
		u.Parts, err = s.partsOf(ctx, f)
	}
	return u, err
}

// partsOf lists the parts of f. Where they have been made an object already,
// and only the commit is missing, they count as there.
func (s *Service) partsOf(ctx context.Context, f File) ([]Part, error) {
	if f.posted() {
		return nil, nil
	}
	parts, err := s.store.Parts(ctx, f.Key, f.Session.Upload)
	if !errors.Is(err, errNoUpload) {
		return parts, err
	}
	size, gone := s.store.Stat(ctx, f.Key)
	if errors.Is(gone, errNoObject) || gone == nil && f.Session.Size >= 0 && f.Session.Size != size {
		return nil, err
	}
	for n := 1; size > 0; n++ {
		part := min(size, f.Session.PartSize)
		parts = append(parts, Part{N: n, Size: part})
		size -= part
	}
	return parts, gone
}

// Declare says how large the file of an upload is that began without. Faults:
// as of Status, TooLarge `file_too_large`, Conflict `size_declared`,
// `upload_completed`, and those of quotas as of Begin.
func (s *Service) Declare(ctx context.Context, user auth.User, id string, size int64) (Upload, error) {
	f, err := s.open(ctx, user, id)
	switch {
	case err != nil:
		return Upload{}, err
	case f.Session.Size == size:
		return uploadOf(f), nil
	case f.Session.Size >= 0 || size < 0:
		return Upload{}, errDeclared
	case size > s.limit(user, f.Access, f.Session.Type) || size > MaxParts*f.Session.PartSize:
		return Upload{}, errFileTooLarge
	}
	f.Session.Size, f.Hold = size, size
	return uploadOf(f), s.ledger.Update(ctx, f, s.quota())
}

// Abort ends an upload and frees what it has stored; where the storage is away,
// that goes later. Faults: as of Status, and Conflict `upload_completed`.
func (s *Service) Abort(ctx context.Context, user auth.User, id string) error {
	if _, err := s.open(ctx, user, id); err != nil && !errors.Is(err, errExpired) {
		return err
	}
	f, err := s.ledger.Retire(ctx, id, Pending)
	switch {
	case errors.Is(err, errFileState):
		return errCompleted.Because(err)
	case errors.Is(err, errNoFile):
		return errNoUpload.Because(err)
	case err == nil:
		s.removeLater(ctx, f)
	}
	return err
}

// sweepSessions removes sessions whose time is over. Requests that began before
// that have had theirs.
func (s *Service) sweepSessions(ctx context.Context) error {
	return s.sweepAll(ctx, func() ([]File, error) { return s.ledger.ExpiredSessions(ctx, now().Add(-cleanUp), sweepBatch) })
}
