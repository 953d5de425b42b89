package transfer

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// State is where a file is in its life.
type State string

// The states. Only ready files can be downloaded, by others than their owner.
const (
	Pending  State = "pending"  // bytes are on their way; nobody knows the id yet
	Checking State = "checking" // whole and durable, and somebody looks at what is in it
	Ready    State = "ready"    // whole and durable
	Blocked  State = "blocked"  // may not be read, and its bytes are gone or about to be
	Deleting State = "deleting" // the bytes are being removed
)

// File is one uploaded file.
type File struct {
	ID      string    `json:"id"` // 26 characters, unguessable
	Owner   auth.User `json:"owner"`
	Name    string    `json:"name"`   // clean: see cleanName
	Size    int64     `json:"size"`   // bytes
	Type    string    `json:"type"`   // media type, as sniffed
	SHA256  string    `json:"sha256"` // in hexadecimal; "" where nobody has seen all bytes in order
	Created time.Time `json:"created"`
	Key     string    `json:"key"` // in the Store

	// Attributes are what the backend attached at the upload: a JSON object of
	// at most 4 KiB, "" for none.
	Attributes string `json:"attributes,omitempty"`

	State   State     `json:"state"`
	Changed time.Time `json:"changed"` // when State was set
	// Owed tells that nobody may have heard yet that the file is ready, or
	// blocked.
	Owed    bool      `json:"owed,omitempty"`
	Access  Access    `json:"access,omitzero"`  // who may read it beside its owner
	Expires time.Time `json:"expires,omitzero"` // when it ends; zero is never
	// Thumbs are the variants of a picture that may be in the Store, with a
	// space between them.
	Thumbs string `json:"thumbs,omitempty"`

	// Whole tells that all of the file has arrived, once. Records that are older
	// than this field have a SHA256 then.
	Whole bool `json:"whole,omitempty"`

	// Hold is how many bytes count against the owner's quota until the size is
	// known for good.
	Hold int64 `json:"hold,omitempty"`

	// Before is the account of the owner before, which may count it still: see
	// RedisLedger.
	Before string `json:"before,omitempty"`

	// Session is what is agreed on an upload in parts; zero for others.
	Session Session `json:"session,omitzero"`

	Check Check `json:"check,omitzero"` // of what is in it; zero where nobody looks
}

// Check is how far those are who look at what is in a file.
type Check struct {
	Began   time.Time `json:"began,omitzero"`
	Waiting string    `json:"waiting,omitempty"` // checkers that have not let it pass, with a space between them
	Asked   string    `json:"asked,omitempty"`   // those of them whose answer comes by itself
	AskedAt time.Time `json:"asked_at,omitzero"` // the last of these
	Tries   int       `json:"tries,omitempty"`
	// Due is when somebody has to see to the file; zero is never. Who does,
	// moves it on first.
	Due    time.Time `json:"due,omitzero"`
	Reason Reason    `json:"reason,omitzero"` // why the file is Blocked
}

// Reason is why a file is Blocked.
type Reason struct {
	Checker string `json:"checker"`
	Label   string `json:"label,omitempty"` // what it found, in its own words
}

// Session is an upload that comes in several requests, to any node and across
// restarts, until it is completed, aborted, or expires.
type Session struct {
	Way      string    `json:"way"`              // which of the ways in began it
	Key      string    `json:"key,omitempty"`    // by which its owner finds it again
	Upload   string    `json:"upload,omitempty"` // id of the upload in the Store
	PartSize int64     `json:"part_size"`        // bytes of every part but the last
	Size     int64     `json:"size"`             // bytes, as declared; -1: not yet
	Type     string    `json:"type,omitempty"`   // media type, as declared
	SHA256   string    `json:"sha256,omitempty"` // in hexadecimal, as declared
	CRC32C   string    `json:"crc32c,omitempty"` // in hexadecimal, as declared
	Expires  time.Time `json:"expires"`
	Note     string    `json:"note,omitempty"` // kept for the way in, at most 4 KiB
	Rev      int64     `json:"rev,omitempty"`  // counts the Updates
}

// inParts tells whether a file is or was uploaded in a session.
func (f File) inParts() bool { return !f.Session.Expires.IsZero() }

// wasWhole tells whether all of a file has ever been there.
func (f File) wasWhole() bool { return f.Whole || f.SHA256 != "" }

// kept tells whether an upload has become a file, which is still there.
func (f File) kept() bool { return f.State == Ready || f.State == Checking || f.State == Blocked }

// blocked tells whether a file is, or was before it was deleted.
func (f File) blocked() bool { return f.Check.Reason != Reason{} }

// etag is the entity tag of a file, or of a variant of it (RFC 9110): files
// never change, so the id does where the SHA-256 is not known.
func (f File) etag(variant ...string) string {
	return `"` + strings.Join(append([]string{cmp.Or(f.SHA256, f.ID)}, variant...), "-") + `"`
}

// newFile makes the pending record of an upload that begins now.
func newFile(owner auth.User) File {
	now := time.Now().UTC().Truncate(time.Millisecond)
	id := rand.Text()
	return File{
		ID: id, Owner: owner, Created: now, State: Pending, Changed: now,
		Key: now.Format("2006/01/02/") + id,
	}
}

// isID tells whether s has the form of a File.ID.
func isID(s string) bool {
	if len(s) != 26 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// Ledger knows which files exist, whose they are and in which state. What it
// has confirmed survives a crash of this process.
//
// Two implementations ship: [FileLedger] and [RedisLedger]. One contract test
// runs over both. Errors are of kind NotFound, Conflict (the file is not in
// the state asked for), NoSpace or Unavailable.
type Ledger interface {
	// Reserve enters a file whose State is Pending. Its Hold counts against the
	// owner's quota from now on; where that is too much nothing is entered, and
	// the error is Forbidden or Limited.
	Reserve(ctx context.Context, f File, q Quota) error
	// Update replaces the record of a pending file and counts Session.Rev up by
	// one. Where it is not what the record has, somebody else was faster: then
	// nothing changes, and the error is Conflict `upload_changed`. As of
	// Reserve, where Hold grows.
	Update(ctx context.Context, f File, q Quota) error
	// Commit makes a pending file Checking, where it says so, else Ready, with all
	// that is known of it now. Its
	// Size counts against the quota in the place of Hold: as of Reserve, where
	// that is more.
	Commit(ctx context.Context, f File, q Quota) error
	// Get returns a file in any state.
	Get(ctx context.Context, id string) (File, error)
	// Retire makes a file Deleting if it is in one of the states from, and
	// returns it. A file that is Deleting already is returned as well.
	Retire(ctx context.Context, id string, from ...State) (File, error)
	// Forget removes the record, and what it counts against the quota; one
	// that does not exist is no error.
	Forget(ctx context.Context, id string) error
	// Unfinished returns up to limit files, the oldest first, that have been in
	// one of the states, Pending or Deleting, since before the given time.
	// Sessions are among them only once they are Deleting.
	Unfinished(ctx context.Context, before time.Time, limit int, states ...State) ([]File, error)
	// ExpiredSessions returns up to limit pending files whose sessions expired
	// before the given time, the oldest first.
	ExpiredSessions(ctx context.Context, before time.Time, limit int) ([]File, error)
	// Sessions returns up to limit sessions of a user that are pending and have
	// not expired, those first that expire first.
	Sessions(ctx context.Context, owner auth.User, limit int) ([]File, error)
	// Settle notes that it is known in which state f is: it is not Owed any
	// more. One that is not in that state by now, or does not exist, is no error.
	Settle(ctx context.Context, f File) error
	// Owed returns up to limit Ready and Blocked files that have been Owed since
	// before the given time, the oldest first.
	Owed(ctx context.Context, before time.Time, limit int) ([]File, error)
	// List returns up to limit Checking, Ready and Blocked files, the newest
	// first: those of the
	// user with this openid, or all where that is "". It begins behind after,
	// at the newest where that is "", and answers where the next page begins,
	// "" where this one was the last. A page may have fewer files than limit
	// and not be the last.
	List(ctx context.Context, openID string, after Place, limit int) ([]File, Place, error)
	// Alias returns the id that alias stands for, with this owner; "" where it
	// has none. Where that is stale, it stands for id from now on, until a
	// given time, and id is returned. An empty id only looks.
	Alias(ctx context.Context, owner auth.User, alias, stale, id string, until time.Time) (string, error)
	// Usage returns what counts against the quotas of a user now.
	Usage(ctx context.Context, owner auth.User) (Usage, error)
	// Amend changes a Checking, Ready or Blocked file and returns it: its owner,
	// access, expiry, thumbs, Check, whether it is Owed, and which of these three
	// it is; the rest stays. What it counts against quotas moves with it to a
	// new owner, whatever that one's are; what was taken on a day does not.
	// change may be called more than once; after an error of it nothing is
	// changed.
	Amend(ctx context.Context, id string, change func(f *File) error) (File, error)
	// Expired returns up to limit Checking, Ready and Blocked files that Expire
	// before the given time, the first to end first.
	Expired(ctx context.Context, before time.Time, limit int) ([]File, error)
	// Due returns up to limit Checking and Blocked files whose Check is Due
	// before the given time, the first due first.
	Due(ctx context.Context, before time.Time, limit int) ([]File, error)
	// CountDue tells about how many files are or will be due.
	CountDue(ctx context.Context) (int, error)
	// Spend tells whether a download by a link that is good for a number of
	// them may go on, and counts it unless it only Looks. Counts end with their
	// links.
	Spend(ctx context.Context, d Spending) (ok bool, err error)
	// Claim tells whether this process is the one to do a task. No other is
	// told so within ttl.
	Claim(ctx context.Context, task string, ttl time.Duration) (bool, error)
	// Shared tells whether other processes may use the ledger too. Where none
	// do, whatever is unfinished at the start of this one is left over.
	Shared() bool
	// Ping tells whether the ledger works now.
	Ping(ctx context.Context) error
}

// Faults that both ledgers give.
var (
	errNoFile     = fault.New(fault.NotFound, "file_not_found", "There is no such file.")
	errFileState  = fault.New(fault.Conflict, "file_state", "The file is not in the state that this needs.")
	errChanged    = fault.New(fault.Conflict, "upload_changed", "Another request has changed this upload: look at what is there and go on from that.")
	errLedgerAway = fault.New(fault.Unavailable, "files_unavailable", "The list of files is not available right now.").After(2 * time.Second)
)

// Place is where a file stands in lists: 12 hexadecimal digits of Created in
// milliseconds and the id. Places sort as their files do, the oldest first.
type Place string

const placeTime = 12 // digits

func placeOf(f File) Place {
	ms := timeKey(f.Created)
	return Place(hex.EncodeToString(ms[len(ms)-placeTime/2:]) + f.ID)
}

// id is the file's.
func (p Place) id() string { return string(p[placeTime:]) }

// parsePlace checks a place that came from outside; "" is the beginning.
func parsePlace(text string) (Place, bool) {
	if text == "" {
		return "", true
	}
	if len(text) < placeTime || !isID(text[placeTime:]) || strings.Trim(text[:placeTime], "0123456789abcdef") != "" {
		return "", false
	}
	return Place(text), true
}
