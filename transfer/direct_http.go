package transfer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

var errFrom = fault.New(fault.Invalid, "from_invalid", "from must be the number of a part.")

// directAnswer is a direct upload as its client sees it.
type directAnswer struct {
	uploadAnswer
	Mode   string `json:"mode"`
	Target string `json:"target"` // storage or gateway
	// Upload is for wx.uploadFile as it is.
	Upload *Form `json:"upload,omitempty"`
	// Put are addresses of missing parts, at most 100 of them.
	Put []Address `json:"put,omitempty"`
}

func (s *Service) directAnswer(d Direct) directAnswer {
	a := directAnswer{uploadAnswer: s.uploadAnswer(d.Upload), Mode: d.Mode, Target: target(d.ToStorage), Upload: d.Form, Put: d.Addresses}
	if d.Mode == ModeForm {
		a.PartSize, a.Missing = 0, []int{}
	}
	return a
}

// ServeReserve answers POST /files/direct?public=&channel=: {name?, size, type?,
// mode?, target?, sha256?, crc32c?} → 201 {id, mode, target, expires, upload | part_size, missing, put}.
//
// With mode form, upload is what wx.uploadFile is to be called with: {url, name,
// formData}. All of formData has to be sent before the file, and nothing else.
// With mode parts, put are addresses [{n, size, url}], each for a PUT of exactly
// that many bytes of the file, in any order; ServeReaddress has more. No address
// needs a header. Then ServeConfirm makes a file of it. target says where the
// addresses are: at the storage, or where that cannot be, or where the client asks
// for that since it cannot reach the storage, at the gateway.
//
// type is bound to what is signed; what the file is, its bytes say. sha256 and
// crc32c are as of [Service.ServeBegin]; to check them the gateway has to read
// the whole file. public and channel are as of [Service.ServeBegin].
//
// Errors: 400 size_invalid, mode_invalid, target_invalid, and those of [Service.ServeBegin].
func (s *Service) ServeReserve(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	var req struct {
		Name, Type, Mode, Target, SHA256, CRC32C string
		Size                                     *int64
	}
	if err := rest.Decode(w, r, maxBeginBody, &req); err != nil {
		return err
	}
	o := NewDirect{Name: req.Name, Type: req.Type, Mode: req.Mode, Size: -1}
	if req.Size != nil {
		o.Size = *req.Size
	}
	if o.ToGateway, err = toGateway(req.Target); err != nil {
		return err
	}
	if o.Sums, err = ParseSums(req.SHA256, req.CRC32C); err != nil {
		return err
	}
	if o.Access, err = accessOf(r.URL.Query()); err != nil {
		return err
	}
	d, err := s.Reserve(r.Context(), user, o)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusCreated, s.directAnswer(d))
}

// toGateway reads where a client wants to send a file.
func toGateway(target string) (bool, error) {
	if target != "" && target != "gateway" {
		return false, errDirectTo
	}
	return target != "", nil
}

// ServeReaddress answers GET /files/direct/{id}?from=1&target= as ServeReserve
// does, with 200 and addresses that are new: of the missing parts from that number
// on. Those of parts may be at another target than before, those of a form may not.
// Where the file is completed, it has file instead. Errors: 400 from_invalid,
// target_invalid, and those of [Service.Status].
func (s *Service) ServeReaddress(w http.ResponseWriter, r *http.Request) error {
	return byUser(r, func(ctx context.Context, user auth.User, id string) error {
		from := 1
		if text := r.URL.Query().Get("from"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || checkPartNumber(n) != nil {
				return errFrom
			}
			from = n
		}
		gateway, err := toGateway(r.URL.Query().Get("target"))
		if err != nil {
			return err
		}
		d, err := s.Readdress(ctx, user, id, from, gateway)
		if err != nil {
			return err
		}
		return rest.JSON(w, http.StatusOK, s.directAnswer(d))
	})
}

// ServeConfirm answers POST /files/{id}/confirm with 201, as POST /files is
// answered; by then the file is durable. It may be sent again. Errors: those of
// [Service.Confirm].
func (s *Service) ServeConfirm(w http.ResponseWriter, r *http.Request) error {
	return byUser(r, func(ctx context.Context, user auth.User, id string) error {
		f, err := s.Confirm(ctx, user, id)
		if err != nil {
			return err
		}
		return rest.JSON(w, http.StatusCreated, s.answerOf(f))
	})
}

// ServeForm answers POST /files/uploads/{id}/form, where the forms of direct
// uploads come that the storage cannot take: as of [Service.ServeUpload], for a
// file whose size is known. It is confirmed with that. A form that broke off
// may be sent again. Errors: those of ServeUpload and [Service.Complete].
func (s *Service) ServeForm(w http.ResponseWriter, r *http.Request) error {
	return byUser(r, func(ctx context.Context, user auth.User, id string) error {
		f, err := s.session(ctx, user, id)
		if err == nil && f.Session.Note != noteForm {
			err = errNoUpload
		}
		if err == nil && !f.kept() {
			f, err = s.receiveForm(w, r, user, f)
		}
		if err != nil {
			return err
		}
		return rest.JSON(w, http.StatusCreated, s.answerOf(f))
	})
}

// receiveForm keeps the file of a form as the parts of an upload, which bear
// being sent again, and at the same time, and makes a file of them.
func (s *Service) receiveForm(w http.ResponseWriter, r *http.Request, user auth.User, f File) (File, error) {
	if r.ContentLength > f.Session.Size+formOverhead {
		return File{}, errSize
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.settings.PendingTTL, errTooSlow)
	defer cancel()
	body := s.newBody(ctx, w, r, f.Session.Size+formOverhead)
	defer body.close()
	form, err := newForm(r.Header.Get("Content-Type"), body.buffered)
	if err != nil {
		return File{}, err
	}
	content, err := form.start()
	if err == nil {
		err = s.putForm(ctx, user, uploadOf(f), &formReader{r: checked(content, form.sums), form: form})
	}
	if err != nil && !errors.Is(err, errNoUpload) && !errors.Is(err, errCompleted) { // those: it has come already
		if err = body.cause(err); fault.Of(err).Kind == fault.Unsupported { // and will be the next time
			s.discard(ctx, f)
		}
		return File{}, err
	}
	done, err := s.Complete(ctx, user, f.ID)
	for try := 1; try < 3 && errors.Is(err, errParts); try++ { // the same form came once more
		done, err = s.Complete(ctx, user, f.ID)
	}
	return done, err
}

// putForm puts the bytes of a form in parts, the last one only when the form has
// ended as it should: without it there is no file.
func (s *Service) putForm(ctx context.Context, user auth.User, u Upload, content io.Reader) error {
	count := u.Count()
	if count == 0 {
		if err := atEnd(content); err != io.EOF {
			return err
		}
	}
	for n := 1; n <= count; n++ {
		size := u.partSizeOf(n)
		part := content
		if n < count {
			part = io.LimitReader(content, size)
		}
		_, err := s.PutPart(ctx, user, u.ID, n, part, NewPart{Size: size})
		if errors.Is(err, errPartSize) {
			return errSize.Because(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// formReader reads the file of a form, which ends when the form has.
type formReader struct {
	r    io.Reader
	form *form
	err  error // how it ended
}

// Read implements io.Reader.
func (f *formReader) Read(p []byte) (n int, _ error) {
	if f.err != nil {
		return 0, f.err
	}
	n, f.err = f.r.Read(p)
	switch {
	case f.err == io.EOF:
		if bad := f.form.finish(); bad != nil {
			f.err = bad
		}
	case f.err != nil:
		f.err = formFault(f.err)
	}
	return n, f.err
}
