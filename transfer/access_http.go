package transfer

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	maxAppID      = 64 // bytes
	maxExpiresIn  = 100 * 365 * 24 * time.Hour
	secondsInLife = int64(maxExpiresIn / time.Second)
)

var (
	errAppID     = fault.New(fault.Invalid, "appid_invalid", "appid must be that of a mini-program.")
	errExpiresIn = fault.Newf(fault.Invalid, "expires_in_invalid", "expires_in is a number of seconds between 0 and %d; 0 keeps the file.", secondsInLife)
	errShare     = fault.New(fault.Forbidden, "access_not_allowed", "Uploads may not choose who reads the file.")
	errNotMember = fault.New(fault.Forbidden, "channel_not_allowed", "Only members of a channel share files with it.")
)

// userOf makes a user of what a request says; like lends the appid that is not
// given.
func userOf(openID, appID string, like auth.User) (auth.User, error) {
	if err := auth.CheckOpenID(openID); err != nil {
		return auth.User{}, err
	}
	appID = cmp.Or(appID, like.AppID)
	if appID == "" || len(appID) > maxAppID {
		return auth.User{}, errAppID
	}
	for i := range len(appID) {
		if c := appID[i]; c <= ' ' || c >= 0x7f {
			return auth.User{}, errAppID
		}
	}
	return auth.User{AppID: appID, OpenID: openID}, nil
}

// ServeAccess is POST {file, public?, channel?, expires_in?} → FileInfo: who may
// read the file, beside its owner, from now on. Without public and channel that
// is nobody. expires_in is in seconds from now, 0 keeps the file; where it is
// missing the file ends as files.ttl says. What is larger than files.limits have
// it for these readers stays as it is, unless that is nobody. Faults: as of ServeRemove, and
// Invalid `access_invalid`, `channel_invalid`, `expires_in_invalid`; TooLarge
// `file_too_large`.
func (s *Service) ServeAccess(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		fileRequest
		Access
		ExpiresIn *int64 `json:"expires_in"`
	}
	if err := rest.Decode(w, r, maxAdminBody, &req); err != nil {
		return err
	}
	switch {
	case !isID(req.File):
		return errFileID
	case req.ExpiresIn != nil && (*req.ExpiresIn < 0 || *req.ExpiresIn > secondsInLife):
		return errExpiresIn
	}
	if err := req.check(); err != nil {
		return err
	}
	return s.amend(w, r, req.File, func(f *File) error {
		// A file can always be taken back from others.
		wider := req.Access != Access{} && req.kind() != f.Access.kind()
		if wider && f.Size > s.limit(f.Owner, req.Access, f.Type) {
			return errFileTooLarge
		}
		s.setAccess(f, req.Access)
		if req.ExpiresIn != nil {
			f.Expires = time.Time{}
			if *req.ExpiresIn > 0 {
				f.Expires = now().Add(time.Duration(*req.ExpiresIn) * time.Second)
			}
		}
		return nil
	})
}

// ServeOwner is POST {file, user, appid?, unionid?} → FileInfo: whose the file is
// from now on. appid is that of the owner before unless given. Faults: as of
// ServeRemove, and Invalid `openid_invalid`, `appid_invalid`.
func (s *Service) ServeOwner(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		fileRequest
		User, AppID, UnionID string
	}
	if err := rest.Decode(w, r, maxAdminBody, &req); err != nil {
		return err
	}
	if !isID(req.File) {
		return errFileID
	}
	if req.UnionID != "" {
		if err := auth.CheckOpenID(req.UnionID); err != nil {
			return err
		}
	}
	return s.amend(w, r, req.File, func(f *File) error {
		user, err := userOf(req.User, req.AppID, f.Owner)
		if err != nil {
			return err
		}
		user.UnionID = req.UnionID
		if f.Owner.OpenID == user.OpenID {
			user.UnionID = cmp.Or(user.UnionID, f.Owner.UnionID)
		}
		f.Owner = user
		return nil
	})
}

// amend changes a file and answers what has become of it.
func (s *Service) amend(w http.ResponseWriter, r *http.Request, id string, change func(f *File) error) error {
	var before Access
	f, err := s.ledger.Amend(r.Context(), id, func(f *File) error {
		before = f.Access
		if f.State == Blocked {
			return f.blockedFault()
		}
		return change(f)
	})
	if err != nil {
		return err
	}
	if f.Access.Channel != before.Channel {
		s.tellChannel(f)
	}
	return rest.JSON(w, http.StatusOK, infoOf(f))
}

type byBackendKey struct{}

// byBackend tells whether a request is the business backend's, which need not
// be asked about it.
func byBackend(ctx context.Context) bool { return ctx.Value(byBackendKey{}) != nil }

// ServeUploadFor is ServeUpload for the backend: the file is that of ?user=
// (openid), of the mini-program ?appid=, and may be read by who ?public=true or
// ?channel= say. The backend is not asked about it.
//
// Errors: those of ServeUpload, 400 openid_invalid, appid_invalid.
func (s *Service) ServeUploadFor(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	user, err := userOf(query.Get("user"), query.Get("appid"), auth.User{})
	if err != nil {
		return err
	}
	ctx := context.WithValue(r.Context(), byBackendKey{}, true)
	return s.ServeUpload(w, r.WithContext(auth.WithSession(ctx, &auth.Session{User: user})))
}

// accessOf reads the access that the query of an upload asks for.
func accessOf(query url.Values) (Access, error) {
	public := query.Get("public")
	if public != "" && public != "true" && public != "false" {
		return Access{}, errAccessBool
	}
	return Access{Public: public == "true", Channel: query.Get("channel")}, nil
}

// share gives a file that is being uploaded the access that is asked for: the
// backend as it likes, users where files.user_public and files.user_channel let
// them, and channels only while they are in them themselves.
func (s *Service) share(ctx context.Context, f *File, a Access) error {
	if err := a.check(); err != nil {
		return err
	}
	s.setAccess(f, a)
	switch {
	case a == Access{} || byBackend(ctx):
		return nil
	case a.Public && !s.settings.UserPublic, a.Channel != "" && !s.settings.UserChannel:
		return errShare
	case a.Channel == "":
		return nil
	case s.member == nil:
		return errNotMember
	}
	member, err := s.member(ctx, f.Owner, a.Channel)
	if !member && err == nil {
		err = errNotMember
	}
	return err
}
