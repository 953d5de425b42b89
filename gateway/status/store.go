package status

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"time"
)

// Partitions is how many parts users are spread over. Each is looked at in
// turn, and reaches the backend in an order of its own.
const Partitions = 8

// The two values of Event.Status.
const (
	Online  = "online"
	Offline = "offline"
)

// User is somebody who has connections.
type User struct {
	ID      string // at most maxUser bytes
	AppID   string // of the mini-program; "" if there is none, as with JWTs
	UnionID string // "" if there is none
}

const maxUser = 255 // bytes; more is nobody's id

// about is what is stored of a User besides the id.
type about struct {
	AppID   string `json:"appid,omitempty"`
	UnionID string `json:"unionid,omitempty"`
}

func (u User) about() string {
	text, _ := json.Marshal(about{u.AppID, u.UnionID}) // two strings always can be
	return string(text)
}

// Event is what the backend is told of one user.
type Event struct {
	User string `json:"user"`
	about
	Status string `json:"status"` // Online or Offline
	Seq    int64  `json:"seq"`    // of this user: the greater, the later. Below 2^53
	At     int64  `json:"at"`     // when the user came, or was last there: Unix milliseconds
}

func newEvent(user string, online bool, seq, at int64, info string) Event {
	e := Event{User: user, Status: Offline, Seq: seq, At: at}
	if online {
		e.Status = Online
	}
	_ = json.Unmarshal([]byte(info), &e.about) // of a user whom only a lost store knew there is nothing
	return e
}

// Round is what one call of [Store.Due] finds.
type Round struct {
	Events  []Event       // to be told: at most as many as asked for
	More    bool          // ask again at once
	Buried  bool          // the last user of a node whose lease lapsed was taken from it
	Pending int           // decided in this part, and not confirmed by Done
	Oldest  time.Duration // since the first of these was decided
}

// Store is what nodes agree on. [FileStore] and [RedisStore] implement it. A
// node is called by a name of letters, digits, "-", "_", "." and "~" that
// nobody had before. Every method may fail halfway and may be repeated. Errors
// are those of what the store stands on. All methods are safe for concurrent use.
type Store interface {
	// Beat begins or prolongs a node's lease. whole is false where something that
	// was entered for the node is lost: it lapsed and was buried, or the store
	// fell back.
	Beat(ctx context.Context, node string) (whole bool, err error)
	// Arrive enters that a node has connections of users, Depart that it has
	// none any more. whole is as in Beat, false also for a node without a lease;
	// then not all may have arrived. With entered it is certain that they had been
	// entered before: if the store does not know one of them it has lost him, and
	// he is told of in any case.
	Arrive(ctx context.Context, node string, users []User, entered bool) (whole bool, err error)
	Depart(ctx context.Context, node string, users []User, entered bool) error
	// Leave ends a lease: the users that the node still holds leave now.
	Leave(ctx context.Context, node string) error

	// Due looks at no more than limit users of a part for which it is time. The
	// events are the caller's for the time of a lease, then anybody's.
	Due(ctx context.Context, part, limit int) (Round, error)
	// Done confirms events of a part: they will be told.
	Done(ctx context.Context, part int, events []Event) error
}

var (
	_ Store = (*FileStore)(nil)
	_ Store = (*RedisStore)(nil)
)

// Timing says how long things last.
type Timing struct {
	Grace time.Duration // how long a user may be away without being told of
	Lease time.Duration // how long a node counts as alive after its last beat; 0 takes DefaultLease
}

// DefaultLease is also about how long it takes until a killed node is noticed.
const DefaultLease = 10 * time.Second

func (t Timing) complete() Timing {
	if t.Lease == 0 {
		t.Lease = DefaultLease
	}
	return t
}

// beat is how often a node renews its lease.
func (t Timing) beat() time.Duration { return t.Lease / 4 }

// silence is how long nobody may beat before the store is thought to have been
// away.
func (t Timing) silence() time.Duration { return 2 * t.beat() }

// keepFor is how long users who are offline, and told to be, are remembered
// since they left. A seq begins with the time, so it grows even for those who
// were forgotten, unless clocks disagree by more than this.
const keepFor = time.Hour

// partition is the same on all nodes, and must stay so over versions.
func partition(user string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(user)) // never fails
	return int(h.Sum32() % Partitions)
}

// split sorts users by partition.
func split(users []User) (parts [Partitions][]User) {
	for _, u := range users {
		p := partition(u.ID)
		parts[p] = append(parts[p], u)
	}
	return parts
}
