package transfer

import (
	"net/http"
	"path"
	"regexp"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	defaultLink = time.Hour
	linkSteps   = 8 // links of one length that a file has during that length
)

var (
	errLinkRight     = fault.New(fault.Forbidden, "link_not_allowed", "This user may not read the file.")
	errLinkDownloads = fault.Newf(fault.Invalid, "max_downloads_invalid", "max_downloads is between 1 and %d.", auth.MaxLinkDownloads)
	errLinksOff      = fault.New(fault.NotFound, "links_off", "Users make no links here.")
)

// linkRequest is what a link is to be like.
type linkRequest struct {
	ExpiresIn    int64 `json:"expires_in"`    // seconds; 0: an hour, or the longest there may be, or asked for where files are checked
	MaxDownloads int   `json:"max_downloads"` // 0: any number
}

// LinkAnswer is what ServeLink answers.
type LinkAnswer struct {
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expires_at"`
}

// ServeLink is POST {file, expires_in?, user?, appid?, max_downloads?, unchecked?} →
// LinkAnswer: a URL under which anybody reads the file. expires_in is in
// seconds, up to files.link_max_ttl; one hour unless given. The link lives no
// longer than that, and by an eighth or a second shorter at most: so long the
// same file has the same link, which caches know again, unless it is good for a
// number of downloads.
//
// A link with user (openid; appid is that of the file's owner unless given)
// stands for what the user may read, now and whenever it is used.
//
// Where files are checked, links live for a minute at most. One that is
// unchecked and stands for no user is good before the file has passed, for
// somebody who is to look at it.
//
// Faults: as of ServeStat, and Conflict `file_checking`; Gone `file_blocked`;
// Invalid `expires_in_invalid`,
// `max_downloads_invalid`, `openid_invalid`, `appid_invalid`; Forbidden
// `link_not_allowed`; Unavailable `nodes_silent`.
func (s *Service) ServeLink(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		fileRequest
		linkRequest
		User, AppID string
		Unchecked   bool
	}
	if err := rest.Decode(w, r, maxAdminBody, &req); err != nil {
		return err
	}
	if !isID(req.File) {
		return errFileID
	}
	f, err := s.find(r.Context(), req.File)
	if err == nil && !(f.State == Checking && req.Unchecked && req.User == "") {
		err = grant{file: f}.withheld()
	}
	if err != nil {
		return err
	}
	var user auth.User
	if req.User != "" || req.AppID != "" {
		if user, err = userOf(req.User, req.AppID, f.Owner); err != nil {
			return err
		}
		via, err := s.why(r.Context(), grant{file: f, user: user})
		if err != nil {
			return err
		}
		if via == "" {
			return errLinkRight
		}
	}
	return s.answerLink(w, auth.Link{File: f.ID, User: user, Unchecked: f.State == Checking}, f, req.linkRequest, s.settings.LinkMaxTTL)
}

// ServeOwnLink answers POST /files/{id}/link {expires_in?, max_downloads?} of
// whoever may read the file with a LinkAnswer. The link stands for what the
// caller may read; expires_in is up to files.user_link_max_ttl.
//
// Errors: those of ServeDownload, 400 expires_in_invalid, max_downloads_invalid,
// 404 links_off.
func (s *Service) ServeOwnLink(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	if s.settings.UserLinkMaxTTL == 0 {
		return errLinksOff
	}
	var req linkRequest
	if err := rest.Decode(w, r, maxAdminBody, &req); err != nil {
		return err
	}
	g, err := s.readable(r)
	if err != nil {
		return err
	}
	if g.file.State != Ready {
		return errChecking // the owner alone reads it, and that with a login
	}
	return s.answerLink(w, auth.Link{File: g.file.ID, User: user}, g.file, req, s.settings.UserLinkMaxTTL)
}

// answerLink makes a link that lives for most at most.
func (s *Service) answerLink(w http.ResponseWriter, l auth.Link, f File, req linkRequest, most time.Duration) error {
	ttl := s.checks.shorten(min(defaultLink, most))
	if req.ExpiresIn != 0 {
		if req.ExpiresIn < 1 || req.ExpiresIn > int64(most/time.Second) {
			return fault.Newf(fault.Invalid, "expires_in_invalid", "expires_in is a number of seconds between 1 and %d.", int64(most/time.Second))
		}
		ttl = s.checks.shorten(time.Duration(req.ExpiresIn) * time.Second)
	}
	if req.MaxDownloads < 0 || req.MaxDownloads > auth.MaxLinkDownloads {
		return errLinkDownloads
	}
	l.User.UnionID, l.Downloads = "", req.MaxDownloads
	l.Expires = linkExpiry(time.Now(), ttl)
	return rest.JSON(w, http.StatusOK, LinkAnswer{s.linkTo(f, l), l.Expires})
}

// linkTo is the address with a link to f.
func (s *Service) linkTo(f File, l auth.Link) string {
	return s.url(f) + linkName(f.Name) + "?link=" + s.signLink(l) // needs no escaping
}

// linkExpiry is when a link that is made now ends: the same time for a while.
func linkExpiry(now time.Time, ttl time.Duration) time.Time {
	step := max(int64(ttl/time.Second)/linkSteps, 1)
	end := now.Add(ttl).Unix()
	return time.Unix(end-end%step, 0).UTC()
}

var wellFormedExt = regexp.MustCompile(`^\.[0-9A-Za-z]{1,10}$`)

// linkName is a name with the file's extension: some clients look at nothing
// else. The file's own name is in the answer to the download, where no
// character needs escaping.
func linkName(name string) string {
	ext := path.Ext(name)
	if !wellFormedExt.MatchString(ext) {
		return ""
	}
	return "/file" + ext
}
