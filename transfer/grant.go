package transfer

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// Why somebody may read a file.
const (
	viaOwner   = "owner"
	viaPublic  = "public"
	viaChannel = "channel"
	viaLink    = "link" // one that stands for itself
)

var errLinkSpent = fault.New(fault.Forbidden, "link_spent", "This link has been used as often as it may be.")

// grant is what is known of somebody who wants to read a file.
type grant struct {
	file   File
	user   auth.User // whose right it is; no OpenID where nobody has logged in
	link   auth.Link
	linked bool   // it came with link
	via    string // why it may be read; "" where it may not
}

// readable finds the kept file of a request and who wants to read it, and decides
// whether that may be: the owner, who came with a link, anybody where the file
// is public, and whoever is in the channel that it is shared with. A
// link that stands for a user is judged as if the user had come. The backend
// has the last word, where it is asked.
//
// Files that may not be read do not exist for who asks, so that ids tell
// nothing; who has not logged in is told to.
func (s *Service) readable(r *http.Request) (g grant, err error) {
	if g.link, g.linked = auth.LinkFrom(r.Context()); g.linked && g.link.File != r.PathValue("id") {
		g.linked = false
	}
	if g.linked {
		g.user = g.link.User
	} else if ses := auth.SessionFrom(r.Context()); ses != nil {
		g.user = ses.User
	}
	unknown := errNoFile
	if !g.linked && g.user.OpenID == "" {
		unknown = errNoSession
	}
	g.file, err = s.find(r.Context(), r.PathValue("id"))
	if errors.Is(err, errNoFile) {
		return g, unknown
	}
	if err != nil {
		return g, err
	}
	if g.via, err = s.why(r.Context(), g); err != nil {
		return g, err
	}
	if g.link.Unchecked && g.file.State != Ready {
		return g, g.withheld() // whoever checks files needs nobody's leave
	}
	allowed, err := s.downloadHook.ask(r.Context(), g)
	if errors.Is(err, errDownloadRefused) && g.via != "" {
		return g, err
	}
	if errors.Is(err, errDownloadRefused) || err == nil && !allowed {
		return g, unknown
	}
	if err == nil {
		err = g.withheld()
	}
	return g, err
}

// withheld refuses a file that has not passed its checks to who else may read
// it, but for its owner and who checks it.
func (g grant) withheld() error {
	switch {
	case g.file.State == Blocked && g.via == viaOwner:
		return g.file.blockedFault()
	case g.file.State == Blocked:
		return errBlocked
	case g.file.State == Checking && g.via != viaOwner && !g.link.Unchecked:
		return errChecking
	}
	return nil
}

// why tells why g may read its file, "" where it may not.
func (s *Service) why(ctx context.Context, g grant) (string, error) {
	f := g.file
	switch {
	case g.linked && g.user.OpenID == "":
		return viaLink, nil
	case g.user.OpenID != "" && ownerOf(f.Owner) == ownerOf(g.user):
		return viaOwner, nil
	case f.Access.Public:
		return viaPublic, nil
	case f.Access.Channel == "" || g.user.OpenID == "" || s.member == nil:
		return "", nil
	}
	member, err := s.member(ctx, g.user, f.Access.Channel)
	if member {
		return viaChannel, nil
	}
	return "", err
}

// linkCache is how long, at most, a client that came with a link, or read a
// public file, need not ask again.
const linkCache = 5 * time.Minute

// cacheControl is for how long an answer may be kept, and by whom.
func (s *Service) cacheControl(g grant) string {
	life := s.checks.shorten(linkCache)
	if !g.file.Expires.IsZero() {
		life = min(life, time.Until(g.file.Expires))
	}
	who := "private"
	switch {
	case g.counted():
		return "private, no-store" // each has to be counted
	case g.file.State != Ready:
		return "private, no-store" // it may turn out to be one that nobody should have
	case s.downloadHook != nil:
		return "private, no-cache" // what the backend decides may change
	case g.linked:
		life = min(life, time.Until(g.link.Expires))
	case g.via == viaPublic:
		who = "public"
	default:
		return "private, no-cache" // kept, but asked for each time: access may end
	}
	return who + ", max-age=" + strconv.Itoa(int(max(life, 0)/time.Second))
}

// counted tells whether g came with a link that is good for a number of
// downloads.
func (g grant) counted() bool { return g.linked && g.link.Downloads > 0 }

// maySpend tells early whether spend would let a download through: before
// anything is done for it.
func (s *Service) maySpend(ctx context.Context, g grant, first bool) error {
	return s.spending(ctx, g, Spending{First: first, Look: true})
}

// spend counts a download by a link that is good for a number of them. It comes
// when the bytes are at hand: what fails before is not to cost a download.
func (s *Service) spend(ctx context.Context, g grant, first bool) error {
	return s.spending(ctx, g, Spending{First: first})
}

func (s *Service) spending(ctx context.Context, g grant, d Spending) error {
	if !g.counted() {
		return nil
	}
	d.Link = g.file.ID + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, g.link.Count))
	d.Most, d.At, d.Until = g.link.Downloads, now(), g.link.Expires
	ok, err := s.ledger.Spend(ctx, d)
	if err == nil && !ok {
		err = errLinkSpent
	}
	return err
}
