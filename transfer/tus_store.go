package transfer

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"
	"github.com/tus/tusd/v2/pkg/memorylocker"
)

// An upload over tus is one in parts that come in order, in pieces of any
// size. Pieces are gathered in memory until they make a part. What is left at
// the end of a request becomes a side object, the tail, since stores take only
// whole parts and do not give them back; the next request reads it again and
// goes on behind it.
//
// What has arrived is what the record in the ledger says, and no more: how many
// parts count, and which object is the tail. Every step, a request or what one
// brings in a second, ends with an Update,
// which compares and swaps: of two requests for one upload, on any nodes, one
// makes the next step and the other is told that the upload has changed. So
// nothing is locked, no lock is left behind by a node that dies, and bytes that
// a late request still stores do not count. A lock in this process (tusLocker)
// only makes a client that comes back wait for what it has sent before.

const (
	maxTusMeta  = 2 << 10 // bytes of Upload-Metadata
	maxTusSides = 32
	// tusCommit is how long parts of one request may be stored and not count
	// yet: a commit for each would be a good deal of what a fast upload costs.
	tusCommit = time.Second
)

// tusState is the Session.Note of an upload over tus.
type tusState struct {
	Meta  string   `json:"meta,omitempty"`  // Upload-Metadata, as the client sent it
	Whole int      `json:"whole,omitempty"` // parts that count, from the first on
	Tail  string   `json:"tail,omitempty"`  // that of Sides which is the tail; "" for none
	Size  int64    `json:"size,omitempty"`  // bytes of the tail
	Sides []string `json:"sides,omitempty"` // side objects that may exist
}

func tusStateOf(f File) (state tusState, err error) {
	if f.Session.Way != WayTus {
		return state, errNoUpload
	}
	if err := json.Unmarshal([]byte(f.Session.Note), &state); err != nil {
		return state, errLedgerAway.Because(err)
	}
	return state, nil
}

// sideKey is the key of a side object of f.
func sideKey(f File, side string) string { return f.Key + "~" + side }

// tusKeys are the keys of side objects that f may have.
func tusKeys(f File) (keys []string) {
	state, _ := tusStateOf(f) // an upload of another way has none
	for _, side := range state.Sides {
		keys = append(keys, sideKey(f, side))
	}
	return keys
}

// tusStore makes a Service the store of the handler.
type tusStore struct{ s *Service }

// NewUpload implements handler.DataStore.
func (t tusStore) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	req := tusRequestOf(ctx)
	note, err := json.Marshal(tusState{Meta: req.meta})
	if err != nil {
		return nil, req.fail(err)
	}
	o := NewUpload{
		Way: WayTus, Name: firstOf(info.MetaData, "filename", "name"), Type: declaredType(info.MetaData),
		Size: info.Size, Sums: req.sums, Note: string(note),
	}
	if info.SizeIsDeferred {
		o.Size = -1
	}
	up, err := t.s.Begin(ctx, req.user, o)
	if err != nil {
		return nil, req.fail(err)
	}
	return t.get(ctx, up.ID)
}

// GetUpload implements handler.DataStore.
func (t tusStore) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	return t.get(ctx, id)
}

// get looks an upload up. One that has all its bytes and is no file yet, since
// the storage or this process went away, becomes one now: its client would
// take the offset for success.
func (t tusStore) get(ctx context.Context, id string) (*tusUpload, error) {
	req := tusRequestOf(ctx)
	f, err := t.s.session(ctx, req.user, id)
	u := &tusUpload{s: t.s, req: req, f: f}
	if err == nil {
		u.state, err = tusStateOf(f)
	}
	if err == nil && f.State == Pending && u.room() == 0 && f.Session.Size > 0 && req.method != "DELETE" {
		u.tidy(ctx)
		u.f, err = u.complete(ctx)
	}
	if err != nil {
		return nil, req.fail(err)
	}
	req.upload = u
	return u, nil
}

// AsTerminatableUpload implements handler.TerminaterDataStore.
func (tusStore) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload {
	return u.(*tusUpload)
}

// AsLengthDeclarableUpload implements handler.LengthDeferrerDataStore.
func (tusStore) AsLengthDeclarableUpload(u handler.Upload) handler.LengthDeclarableUpload {
	return u.(*tusUpload)
}

// tusUpload is an upload during one request.
type tusUpload struct {
	s      *Service
	req    *tusRequest
	f      File
	doomed bool     // the file would not be taken
	state  tusState // more than f.Session.Note where that is not written yet

	committing time.Time // when parts were last made to count
}

// offset is how many bytes have arrived.
func (u *tusUpload) offset() int64 {
	switch {
	case u.f.kept():
		return u.f.Size
	case u.f.Session.Size >= 0 && u.room() == 0:
		return u.f.Session.Size
	}
	return int64(u.state.Whole)*u.f.Session.PartSize + u.state.Size
}

// room is how many bytes the next part has; 0 where there is none.
func (u *tusUpload) room() int64 {
	up := uploadOf(u.f)
	switch count := up.Count(); {
	case count < 0:
		return up.PartSize
	case u.state.Whole < count:
		return up.partSizeOf(u.state.Whole + 1)
	}
	return 0
}

// GetInfo implements handler.Upload.
func (u *tusUpload) GetInfo(context.Context) (handler.FileInfo, error) {
	info := handler.FileInfo{ID: u.f.ID, Size: u.f.Session.Size, Offset: u.offset(), MetaData: handler.ParseMetadataHeader(u.state.Meta)}
	if u.f.kept() {
		info.Size = u.f.Size
	} else if info.Size < 0 {
		info.Size, info.SizeIsDeferred = 0, true
	}
	return info, nil
}

// GetReader implements handler.Upload. No route leads here: files are
// downloaded as all others.
func (u *tusUpload) GetReader(context.Context) (io.ReadCloser, error) {
	return nil, u.req.fail(errNoFile)
}

// DeclareLength implements handler.LengthDeclarableUpload.
func (u *tusUpload) DeclareLength(ctx context.Context, size int64) error {
	_, err := u.s.Declare(ctx, u.req.user, u.f.ID, size)
	if err == nil {
		u.f, err = u.s.open(ctx, u.req.user, u.f.ID)
	}
	return u.req.fail(err)
}

// FinishUpload implements handler.Upload.
func (u *tusUpload) FinishUpload(ctx context.Context) error {
	f, err := u.complete(ctx)
	if err == nil {
		u.f = f
	}
	return u.req.fail(err)
}

// complete makes a file of an upload whose bytes have all been put. Where the
// storage does not have them it has lost them or, more likely, is joining them
// for a node that died meanwhile: that is nothing for a client to mend.
func (u *tusUpload) complete(ctx context.Context) (File, error) {
	f, err := u.s.Complete(ctx, u.req.user, u.f.ID)
	if errors.Is(err, errPartsMissing) || errors.Is(err, errParts) {
		err = errStoreAway.Because(err)
	}
	return f, err
}

// Terminate implements handler.TerminatableUpload.
func (u *tusUpload) Terminate(ctx context.Context) error {
	return u.req.fail(u.s.Abort(ctx, u.req.user, u.f.ID))
}

// WriteChunk implements handler.Upload. Where src was cut it keeps what came,
// unless a checksum was announced: then it keeps all or nothing.
func (u *tusUpload) WriteChunk(ctx context.Context, _ int64, src io.Reader) (n int64, err error) {
	end := u.s.metrics.begin("part")
	defer func() {
		end(cmp.Or(err, u.req.broken()))
		err = u.req.fail(err) // that the body broke tusd knows
	}()
	leave, err := u.s.uploads.enter(ownerOf(u.req.user))
	if err != nil {
		return 0, err
	}
	defer leave()
	// What came is kept also for a client that is gone by now.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), u.s.settings.PendingTTL, errTooSlow)
	defer cancel()
	start := u.offset()
	u.committing = time.Now()
	err = u.write(ctx, u.req.measured(src, u.s.metrics.bytes.WithLabelValues("upload")))
	switch {
	case u.doomed:
		u.s.discard(ctx, u.f)
	case err != nil && u.req.checksum == nil:
		_ = u.commit(ctx) // parts from before the error; those that it fails for do not count
	}
	if committed, bad := u.committed(); bad == nil {
		n = max(0, committed-start)
	}
	return n, err
}

// write takes all of src.
func (u *tusUpload) write(ctx context.Context, src io.Reader) error {
	for room := u.room(); room > 0; room = u.room() {
		p, err := u.gather(ctx, src, room)
		if err != nil {
			return err
		}
		if p.size == room {
			err = u.putPart(ctx, p)
		} else {
			err = u.endWith(ctx, p)
			room = 0
		}
		p.release()
		if err != nil || room == 0 {
			return err
		}
	}
	_, _ = io.Copy(io.Discard, src) // there is no more, or tusd refuses the request
	if err := u.req.verify(); err != nil {
		return err
	}
	return u.commit(ctx)
}

// gather collects the next part: the tail, if there is one, and what comes
// behind it. It is shorter than room where src ended.
func (u *tusUpload) gather(ctx context.Context, src io.Reader, room int64) (*part, error) {
	if u.state.Tail != "" {
		tail, err := u.s.store.Open(ctx, sideKey(u.f, u.state.Tail), 0, u.state.Size)
		if err != nil {
			return nil, err
		}
		defer func() { _ = tail.Close() }() // only read
		src = io.MultiReader(&storedReader{tail, u.state.Size}, src)
	}
	p, err := u.s.held.fill(ctx, io.LimitReader(src, room))
	if err == io.EOF {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if u.f.Session.Size < 0 && int64(u.state.Whole)*u.f.Session.PartSize+p.size > u.s.limit(u.f.Owner, u.f.Access, u.f.Session.Type) {
		p.release()
		return nil, errFileTooLarge
	}
	if u.state.Whole == 0 && (p.size >= sniffSize || p.size == room) {
		if err := u.s.judgeHead(u.f, p.head()); err != nil {
			u.doomed = true
			p.release()
			return nil, err
		}
	}
	return p, nil
}

// putPart stores the next part. With a checksum it does not count yet.
func (u *tusUpload) putPart(ctx context.Context, p *part) error {
	body := &lease{part: p}
	defer body.end()
	n := u.state.Whole + 1
	if _, err := u.s.store.PutPart(ctx, u.f.Key, u.f.Session.Upload, n, body, p.size); err != nil {
		return err
	}
	u.state.Whole, u.state.Tail, u.state.Size = n, "", 0
	if u.req.checksum != nil || time.Since(u.committing) < tusCommit {
		return nil
	}
	u.committing = time.Now()
	return u.commit(ctx)
}

// endWith keeps what is left at the end of a request.
func (u *tusUpload) endWith(ctx context.Context, p *part) error {
	if err := u.req.verify(); err != nil {
		return err
	}
	if p.size == u.state.Size { // nothing came behind the tail
		return u.commit(ctx)
	}
	u.tidy(ctx) // the record still names those that the request before has removed
	if len(u.state.Sides) >= maxTusSides {
		return errStoreAway.Because(errors.New("too many side objects could not be deleted"))
	}
	side := strings.ToLower(rand.Text()[:16])
	u.state.Sides = append(u.state.Sides, side) // before it exists, so that it is never forgotten
	if err := u.update(ctx); err != nil {
		return err
	}
	body := &lease{part: p}
	defer body.end()
	if _, err := u.s.store.Put(ctx, sideKey(u.f, side), body, p.size); err != nil {
		u.forget(ctx, side)
		return err
	}
	before := u.state
	u.state.Tail, u.state.Size = side, p.size
	err := u.commit(ctx)
	if err != nil {
		u.state = before // which the ledger may be past: the tail stays until that is known
	}
	return err
}

// commit makes the state count, and removes side objects that were of use
// before.
func (u *tusUpload) commit(ctx context.Context) error {
	if committed, err := u.committed(); err == nil && committed == u.offset() {
		return nil
	}
	if err := u.update(ctx); err != nil {
		return err
	}
	u.tidy(ctx)
	return nil
}

// committed is the offset that the ledger knows.
func (u *tusUpload) committed() (int64, error) {
	state, err := tusStateOf(u.f)
	known := tusUpload{f: u.f, state: state}
	return known.offset(), err
}

// update writes the state into the ledger.
func (u *tusUpload) update(ctx context.Context) error {
	note, err := json.Marshal(u.state)
	if err != nil {
		return err
	}
	f := u.f
	f.Session.Note = string(note)
	if err := u.s.ledger.Update(ctx, f, u.s.quota()); err != nil {
		return err
	}
	f.Session.Rev++
	u.f = f
	return nil
}

// tidy removes side objects that are of no use any more: neither to this state,
// nor to the one in the ledger, with which another node would go on. The next
// update forgets them; what could not be removed stays.
func (u *tusUpload) tidy(ctx context.Context) {
	committed, err := tusStateOf(u.f)
	if err != nil {
		return // then nothing goes on
	}
	u.state.Sides = slices.DeleteFunc(slices.Clone(u.state.Sides), func(side string) bool {
		return side != u.state.Tail && side != committed.Tail && u.forget(ctx, side)
	})
}

func (u *tusUpload) forget(ctx context.Context, side string) bool {
	err := u.s.store.Delete(ctx, sideKey(u.f, side))
	if err != nil {
		slog.WarnContext(ctx, "a side object of an upload is removed later", "file", u.f.ID, "error", err)
	}
	return err == nil
}

// storedReader reads an object of a known size from the store.
type storedReader struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (s *storedReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if s.left == 0 {
		return n, io.EOF
	}
	if err != nil {
		return n, errStoreAway.Because(err)
	}
	return n, nil
}

// firstOf returns the first of the values that is there.
func firstOf(meta handler.MetaData, names ...string) string {
	for _, name := range names {
		if meta[name] != "" {
			return meta[name]
		}
	}
	return ""
}

// tusLocker lets one request at a time work on an upload of a user, and asks
// an older one to end with what it has. It is a courtesy to clients that come
// back to this node, and not what keeps uploads in order.
type tusLocker struct{ *memorylocker.MemoryLocker }

// NewLock implements handler.Locker.
func (l tusLocker) NewLock(id string) (handler.Lock, error) { return &tusLock{locker: l, id: id}, nil }

type tusLock struct {
	locker tusLocker
	id     string
	held   handler.Lock
}

// Lock implements handler.Lock. Locks are of one user each: nobody may end a
// request of somebody else.
func (l *tusLock) Lock(ctx context.Context, release func()) (err error) {
	user := tusRequestOf(ctx).user
	if l.held, err = l.locker.MemoryLocker.NewLock(user.AppID + "\x00" + user.OpenID + "\x00" + l.id); err == nil {
		err = l.held.Lock(ctx, release)
	}
	return err
}

// Unlock implements handler.Lock.
func (l *tusLock) Unlock() error { return l.held.Unlock() }
