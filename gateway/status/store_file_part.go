package status

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
)

// The buckets of a part, as the keys of RedisStore. Times are 8 bytes, Unix
// milliseconds, big endian, so that they sort.
var (
	bucketNodes = []byte("nodes") // node → its last beat
	bucketHeld  = []byte("held")  // NODE:USER → nothing
	bucketUsers = []byte("users") // user → record
	bucketDue   = []byte("due")   // when, user → nothing
	bucketOpen  = []byte("open")  // when it was decided, user → nothing; its sequence is how many there are
	bucketMarks = []byte("marks") // node → number of its latest entry
	keyHush     = []byte("hush")  // until when nobody is buried or goes offline

	partBuckets = [][]byte{bucketNodes, bucketHeld, bucketUsers, bucketDue, bucketOpen, bucketMarks}
)

// record is what is stored of a user.
type record struct {
	Online bool   `json:"on,omitempty"`     // what was decided last
	Seq    int64  `json:"seq,omitempty"`    // of that; 0 with Online: in doubt
	At     int64  `json:"at,omitempty"`     // of that
	Away   int64  `json:"away,omitempty"`   // when he was last seen to leave
	Due    int64  `json:"due,omitempty"`    // when to look at him; 0: never
	Opened int64  `json:"opened,omitempty"` // when it was decided what is not told yet; 0: all is told
	About  string `json:"about"`
}

// online tells whether the backend was told so, or will be.
func (r *record) online() bool { return r.Online && r.Seq > 0 }

// filePart is one part within a transaction. Its steps are those of the
// scripts in store_redis_scripts.go.
type filePart struct {
	root                                   *bbolt.Bucket
	nodes, held, users, due, opened, marks *bbolt.Bucket

	timing              Timing
	now, lease, silence int64
}

func openPart(tx *bbolt.Tx, part int, t Timing, now int64) *filePart {
	root := tx.Bucket(bucketStatus).Bucket([]byte(strconv.Itoa(part)))
	return &filePart{
		root: root, nodes: root.Bucket(bucketNodes), held: root.Bucket(bucketHeld), users: root.Bucket(bucketUsers),
		due: root.Bucket(bucketDue), opened: root.Bucket(bucketOpen), marks: root.Bucket(bucketMarks),
		timing: t, now: now, lease: t.Lease.Milliseconds(), silence: t.silence().Milliseconds(),
	}
}

func number(b []byte) int64 {
	if len(b) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func at(when int64, user string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(when)), user...)
}

func entry(node, user string) []byte { return []byte(node + ":" + user) }

// get returns nil for a user of whom nothing, or nothing readable, is known.
func (p *filePart) get(user string) *record {
	r := new(record)
	if data := p.users.Get([]byte(user)); data == nil || json.Unmarshal(data, r) != nil {
		return nil
	}
	return r
}

// put stores a record, to be looked at at the given time, 0 being never.
func (p *filePart) put(user string, r *record, due int64) error {
	var errs []error
	if r.Due != due {
		if r.Due != 0 {
			errs = append(errs, p.due.Delete(at(r.Due, user)))
		}
		if due != 0 {
			errs = append(errs, p.due.Put(at(due, user), nil))
		}
		r.Due = due
	}
	data, err := json.Marshal(r)
	return errors.Join(append(errs, err, p.users.Put([]byte(user), data))...)
}

func (p *filePart) alive(node string) bool { return p.nodes.Get([]byte(node)) != nil }
func (p *filePart) mark(node string) int64 { return number(p.marks.Get([]byte(node))) }

func (p *filePart) isHeld(user string) (held bool) {
	_ = p.nodes.ForEach(func(node, _ []byte) error { // it returns what the function does
		held = held || p.held.Get(entry(string(node), user)) != nil
		return nil
	})
	return held
}

// oldest and newest are the beats of the nodes that beat first and last.
func (p *filePart) beats() (first string, oldest, newest int64) {
	_ = p.nodes.ForEach(func(node, beat []byte) error {
		if n := number(beat); first == "" || n < oldest {
			first, oldest = string(node), n
		}
		newest = max(newest, number(beat))
		return nil
	})
	return first, oldest, newest
}

// quiet is until when there is a hush, a time in the past if there is none.
func (p *filePart) quiet() int64 {
	until := number(p.root.Get(keyHush))
	if until > p.now+p.lease { // a clock has gone back
		until = 0
	}
	if _, _, newest := p.beats(); newest+p.silence < p.now {
		until = max(until, p.now+1000)
	}
	return until
}

// lapsed names a node to be buried, or "".
func (p *filePart) lapsed() string {
	if first, oldest, _ := p.beats(); first != "" && oldest < p.now-p.lease && p.quiet() <= p.now {
		return first
	}
	return ""
}

func (p *filePart) beat(node string) error {
	if _, _, newest := p.beats(); newest+p.silence < p.now {
		if err := p.root.Put(keyHush, at(p.now+p.lease, "")); err != nil {
			return err
		}
	}
	return p.nodes.Put([]byte(node), at(p.now, ""))
}

// find is get, but a user who was entered, and whom nobody knows, is lost with
// all that was told of him: it may have been that he is online.
func (p *filePart) find(user, info string, entered bool) *record {
	r := p.get(user)
	if r == nil && entered {
		r = &record{Online: true, At: p.now, About: info}
	}
	return r
}

func (p *filePart) arrive(node string, u User, entered bool) error {
	if err := p.held.Put(entry(node, u.ID), nil); err != nil {
		return err
	}
	r := cmp.Or(p.find(u.ID, "", entered), &record{})
	r.About = u.about()
	due := p.now
	switch {
	case r.Opened != 0: // what was decided is told first
		due = r.Due
	case r.online():
		due = 0
	}
	return p.put(u.ID, r, due)
}

func (p *filePart) depart(node string, u User, entered bool) error {
	return errors.Join(p.held.Delete(entry(node, u.ID)), p.leave(u.ID, u.about(), p.now, entered))
}

// leave notes that a user left a node.
func (p *filePart) leave(user, info string, when int64, entered bool) error {
	r := p.find(user, info, entered)
	if r == nil {
		return nil
	}
	r.Away = min(max(r.Away, when), p.now) // a clock may have gone back
	due := r.Due
	if r.Online && r.Opened == 0 {
		due = max(p.now, r.Away+p.timing.Grace.Milliseconds())
	}
	return p.put(user, r, due)
}

// bury takes some users from a node, and tells whether they were the last.
func (p *filePart) bury(node string, when int64, limit int) (last bool, err error) {
	if err := p.marks.Delete([]byte(node)); err != nil {
		return false, err
	}
	prefix := entry(node, "")
	var list [][]byte
	c := p.held.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(list) < limit; k, _ = c.Next() {
		list = append(list, bytes.Clone(k))
	}
	for _, k := range list {
		if err := errors.Join(p.held.Delete(k), p.leave(string(k[len(prefix):]), "{}", when, true)); err != nil {
			return false, err
		}
	}
	if len(list) == limit {
		return false, nil
	}
	return true, p.nodes.Delete([]byte(node))
}

// look lists those whom it is time to look at: keys of due.
func (p *filePart) look(limit int) (list [][]byte) {
	c := p.due.Cursor()
	for k, _ := c.First(); k != nil && number(k) <= p.now && len(list) < limit; k, _ = c.Next() {
		list = append(list, bytes.Clone(k))
	}
	return list
}

// pending counts what is decided and not told, and measures its age.
func (p *filePart) pending() (n int, oldest time.Duration) {
	if k, _ := p.opened.Cursor().First(); k != nil {
		oldest = max(0, time.Duration(p.now-number(k))*time.Millisecond)
	}
	return int(p.opened.Sequence()), oldest
}

// round is Store.Due.
func (p *filePart) round(limit int) (r Round, err error) {
	if node := p.lapsed(); node != "" {
		r.More = true
		r.Buried, err = p.bury(node, number(p.nodes.Get([]byte(node))), limit)
	} else {
		quiet, list := p.quiet(), p.look(limit)
		r.More = len(list) == limit
		for _, due := range list {
			if err := p.visit(due, quiet, &r); err != nil {
				return Round{}, err
			}
		}
	}
	r.Pending, r.Oldest = p.pending()
	return r, err
}

func (p *filePart) visit(key []byte, quiet int64, round *Round) error {
	user := string(key[8:])
	r := p.get(user)
	if r == nil { // damaged
		return errors.Join(p.users.Delete([]byte(user)), p.due.Delete(key))
	}
	if r.Opened != 0 {
		return p.tell(user, r, round)
	}
	switch held := p.isHeld(user); {
	case held && r.online():
		return p.put(user, r, 0)
	case held:
		return p.decide(user, r, true, p.now, round)
	case r.Online:
		due := r.Away + p.timing.Grace.Milliseconds()
		if quiet > p.now {
			due = max(due, quiet)
		}
		if due > p.now {
			return p.put(user, r, due)
		}
		return p.decide(user, r, false, r.Away, round)
	case r.Away+keepFor.Milliseconds() > p.now:
		return p.put(user, r, r.Away+keepFor.Milliseconds())
	default:
		return errors.Join(p.users.Delete([]byte(user)), p.due.Delete(key))
	}
}

func (p *filePart) decide(user string, r *record, online bool, when int64, round *Round) error {
	r.Online, r.Seq, r.At, r.Opened = online, max(r.Seq+1, p.now), when, p.now
	return errors.Join(p.opened.Put(at(r.Opened, user), nil), p.opened.SetSequence(p.opened.Sequence()+1), p.tell(user, r, round))
}

func (p *filePart) tell(user string, r *record, round *Round) error {
	round.Events = append(round.Events, newEvent(user, r.Online, r.Seq, r.At, r.About))
	return p.put(user, r, p.now+p.lease)
}

// done is Store.Done.
func (p *filePart) done(events []Event) error {
	for _, e := range events {
		r := p.get(e.User)
		if r == nil || r.Seq != e.Seq || r.Opened == 0 {
			continue
		}
		err := errors.Join(p.opened.Delete(at(r.Opened, e.User)), p.opened.SetSequence(p.opened.Sequence()-1))
		r.Opened = 0
		due := int64(0)
		switch held := p.isHeld(e.User); {
		case held && r.Online:
		case held:
			due = p.now
		case r.Online:
			due = max(p.now, r.Away+p.timing.Grace.Milliseconds())
		default:
			due = r.Away + keepFor.Milliseconds()
		}
		if err := errors.Join(err, p.put(e.User, r, due)); err != nil {
			return err
		}
	}
	return nil
}
