package transfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// Direct uploads begin with a reservation, which says where the bytes go: to
// the storage itself, at addresses that are signed for this file alone, or
// where that is not possible to this gateway. The client sends them and
// confirms, the same way in either case.
//
// A form that goes to the storage has a key of its own there, and can be posted
// again until its signature expires. Confirming makes the object of it that is
// inspected and never changes: a copy within the storage.

const (
	// WayDirect is what NewUpload.Way is in this protocol.
	WayDirect = "direct"
	// formMost is the largest file, in bytes, that comes as a form unless the
	// client wishes so: wx.uploadFile gives up after a minute by itself.
	formMost = 16 << 20
	// addressPage is how many addresses of parts one answer has.
	addressPage = 100
)

// Modes of direct uploads.
const (
	ModeForm  = "form"  // one form, as wx.uploadFile sends it
	ModeParts = "parts" // a PUT for each part
)

// What Session.Note says of direct uploads: their mode, and whether they go to
// the storage.
const (
	noteForm   = "form"
	noteParts  = "parts"
	notePosted = "form to storage"
	notePut    = "parts to storage"
)

var (
	errDirectSize  = fault.New(fault.Invalid, "size_invalid", "size must be the file's size in bytes.")
	errDirectTo    = fault.New(fault.Invalid, "target_invalid", "target must be gateway; leave it out to have the file sent where that is best.")
	errDirectMode  = fault.New(fault.Invalid, "mode_invalid", "mode must be form or parts; leave it out to get what suits the size.")
	errNotUploaded = fault.New(fault.Conflict, "not_uploaded", "The file is not there yet: upload it, then confirm.")
	// errMoved happens where files.store was changed.
	errMoved       = errors.New("the upload was begun with another kind of storage")
	errPostChanged = fault.New(fault.Conflict, "upload_changed", "The file was uploaded once more just now: confirm again.")
)

// NewDirect is what is known of a file when its direct upload is reserved.
type NewDirect struct {
	Name string // as the client has it
	Type string // media type; "" unless the client said
	Size int64  // bytes
	Mode string // a wish; "": what suits the size
	Sums        // of the whole file, checked when it is confirmed

	ToGateway bool   // the client cannot reach the storage
	Access    Access // who is to read the file beside its owner
}

// Direct is a direct upload and where it goes.
type Direct struct {
	Upload
	Mode      string // ModeForm or ModeParts
	ToStorage bool   // past the gateway
	Form      *Form  // of ModeForm
	Addresses []Address
}

// Form is what wx.uploadFile is to be called with.
type Form struct {
	URL    string            `json:"url"`
	Name   string            `json:"name"`               // of the field with the file, which comes last
	Fields map[string]string `json:"formData,omitempty"` // these and no others
}

// Address is where a part is to be PUT.
type Address struct {
	N    int    `json:"n"`
	Size int64  `json:"size"` // bytes, exactly
	URL  string `json:"url"`
}

// posted tells whether a file comes as a form to the storage.
func (f File) posted() bool { return f.Session.Way == WayDirect && f.Session.Note == notePosted }

// postKey is where it comes.
func (f File) postKey() string { return pendingPrefix + f.Key }

// pendingPrefix is what keys begin with of what is posted.
const pendingPrefix = "pending/"

// chooseDirect decides how a file comes.
func (s *Service) chooseDirect(o NewDirect) (note string, err error) {
	form := o.Mode == ModeForm || o.Size == 0 || o.Mode == "" && o.Size <= formMost
	if o.Mode != "" && o.Mode != ModeForm && o.Mode != ModeParts {
		return "", errDirectMode
	}
	can := s.direct != nil && s.direct.wanted && !o.ToGateway && o.Size > 0 // no policy can ask for nothing
	switch {
	case form && can && o.Size <= singlePut && s.direct.form.Load():
		return notePosted, nil
	case form:
		return noteForm, nil
	case can && s.direct.parts.Load():
		return notePut, nil
	}
	return noteParts, nil
}

// Reserve begins a direct upload. Faults: Invalid `size_invalid`,
// `mode_invalid`, and those of [Service.Begin].
func (s *Service) Reserve(ctx context.Context, user auth.User, o NewDirect) (Direct, error) {
	if o.Size < 0 {
		return Direct{}, errDirectSize
	}
	note, err := s.chooseDirect(o)
	if err != nil {
		return Direct{}, err
	}
	f, err := s.newSession(user, NewUpload{Way: WayDirect, Name: o.Name, Type: o.Type, Size: o.Size, Sums: o.Sums, Note: note, Access: o.Access})
	if err != nil {
		return Direct{}, err
	}
	if err := s.share(ctx, &f, o.Access); err != nil {
		return Direct{}, err
	}
	if note == noteForm || note == notePosted {
		f.Session.Expires = f.Created.Add(s.settings.DirectTTL)
	}
	if f, err = s.begin(ctx, f); err != nil {
		return Direct{}, err
	}
	d := directOf(f)
	s.metrics.reserved.WithLabelValues(d.Mode, target(d.ToStorage)).Inc()
	return d, s.address(ctx, f, &d, 1)
}

func directOf(f File) Direct {
	note := f.Session.Note
	d := Direct{Upload: uploadOf(f), Mode: ModeForm, ToStorage: note == notePosted || note == notePut}
	if note == noteParts || note == notePut {
		d.Mode = ModeParts
	}
	return d
}

func target(toStorage bool) string {
	if toStorage {
		return "storage"
	}
	return "gateway"
}

// Readdress returns a direct upload with new addresses: of its form, or of up
// to 100 missing parts, from number from on; of parts at the gateway where the
// client cannot reach the storage. Where it is completed it has its file instead.
// Faults: those of [Service.Status].
func (s *Service) Readdress(ctx context.Context, user auth.User, id string, from int, toGateway bool) (Direct, error) {
	f, err := s.session(ctx, user, id)
	if err == nil && f.Session.Way != WayDirect {
		err = errNoUpload
	}
	if err != nil {
		return Direct{}, err
	}
	d := directOf(f)
	if f.kept() {
		return d, nil
	}
	if d.Mode == ModeParts {
		d.ToStorage = d.ToStorage && !toGateway
		if d.Parts, err = s.partsOf(ctx, f); err != nil {
			return Direct{}, err
		}
	}
	return d, s.address(ctx, f, &d, from)
}

// address enters where d goes.
func (s *Service) address(ctx context.Context, f File, d *Direct, from int) (err error) {
	ttl := min(s.settings.DirectTTL, time.Until(f.Session.Expires))
	if d.ToStorage && s.direct == nil {
		return errStoreAway.Because(errMoved)
	}
	if f.Session.Note == notePosted {
		d.Form, err = s.direct.s3.postForm(ctx, f.postKey(), f.Session.Type, f.Session.Size, now().Add(ttl))
		return err
	}
	ticket := s.ticketFor(ctx, f.ID, ttl)
	if d.Mode == ModeForm {
		d.Form = &Form{URL: s.uploadURL(f.ID, "/form", ticket), Name: "file"}
		return nil
	}
	for _, n := range d.Missing() {
		if n < from {
			continue
		}
		if len(d.Addresses) == addressPage {
			break
		}
		a := Address{N: n, Size: d.partSizeOf(n), URL: s.uploadURL(f.ID, fmt.Sprint("/parts/", n), ticket)}
		if d.ToStorage {
			if a.URL, err = s.direct.s3.partURL(ctx, f.Key, f.Session.Upload, n, a.Size, ttl); err != nil {
				return err
			}
		}
		d.Addresses = append(d.Addresses, a)
	}
	return nil
}

func (s *Service) ticketFor(ctx context.Context, id string, ttl time.Duration) string {
	if s.ticket == nil {
		return ""
	}
	return s.ticket(ctx, id, ttl)
}

// uploadURL is an address of ours that needs no header.
func (s *Service) uploadURL(id, what, ticket string) string {
	u := strings.TrimSuffix(s.settings.PublicURL, "/") + "/files/uploads/" + id + what
	if ticket != "" {
		u += "?ticket=" + url.QueryEscape(ticket)
	}
	return u
}

// Confirm makes what was uploaded a file, as [Service.Complete] does for every
// upload in parts: once, however often and wherever it is called. Faults: also
// Conflict `not_uploaded`, `upload_changed`, where the upload goes on; Invalid
// `size_mismatch`, after which it is gone.
func (s *Service) Confirm(ctx context.Context, user auth.User, id string) (File, error) {
	return s.Complete(ctx, user, id)
}

// adopt makes the object of a file that was posted to the storage. What is
// there already is taken: it is of a try that did not get as far as the commit,
// or of one that is about to.
func (s *Service) adopt(ctx context.Context, f File) (Object, error) {
	if s.direct == nil {
		return Object{}, errStoreAway.Because(errMoved)
	}
	size, tag, err := s.direct.s3.statPosted(ctx, f.postKey())
	switch {
	case err == nil && size != f.Session.Size:
		return Object{}, errSize
	case err == nil:
		err = s.direct.s3.adopt(ctx, f.postKey(), tag, f.Key, size)
	}
	if !errors.Is(err, errNoObject) && !errors.Is(err, errObjectTaken) {
		return Object{Size: size}, err
	}
	size, gone := s.store.Stat(ctx, f.Key)
	switch {
	case errors.Is(gone, errNoObject):
		return Object{}, errNotUploaded.Because(err)
	case gone == nil && size != f.Session.Size:
		return Object{}, errSize
	}
	return Object{Size: size}, gone
}

// unpost removes what was posted. After a commit nothing is lost where it
// fails: it goes with the file.
func (s *Service) unpost(ctx context.Context, f File) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	if err := s.store.Delete(ctx, f.postKey()); err != nil {
		slog.WarnContext(ctx, "what a client posted stays in the storage as long as its file", "file", f.ID, "error", err)
	}
}

// confirmExpired confirms a direct upload whose client did not, where all of it
// is there. It answers false where it is not, and an error where nobody knows.
func (s *Service) confirmExpired(ctx context.Context, f File) (bool, error) {
	_, err := s.finishOnce(ctx, f.ID, func(ctx context.Context) (File, error) { return s.finish(ctx, f) })
	if err == nil {
		return true, nil
	}
	switch fault.Of(err).Kind {
	case fault.Conflict, fault.NotFound, fault.Invalid, fault.Unsupported, fault.TooLarge, fault.Forbidden, fault.Limited:
		return false, nil
	}
	return false, err
}
