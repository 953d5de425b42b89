package webhook

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/seal"
)

const (
	maxBody    = 512 << 10 // bytes
	maxKey     = 256       // bytes
	maxRecord  = maxBody + 8<<10
	maxFailure = 256 // bytes of Item.Failure
)

var (
	errItem     = fault.New(fault.Invalid, "webhook_item", "A delivery needs a hook, an event and a JSON body, of which none is too long.")
	errItemSize = fault.Newf(fault.TooLarge, "webhook_item_too_large", "The body of a delivery may have at most %d bytes.", maxBody)

	// ErrSealed answers for a delivery that cannot be opened: see Item.Failure.
	ErrSealed = fault.New(fault.Conflict, "delivery_sealed", "This delivery cannot be opened: its key is not among keys.sealing and keys.sealing_old, or it was damaged.")
)

// What Item.Failure says of a delivery that cannot be opened.
const (
	failureKey    = "delivery_sealed: it was sealed with a key that is not configured: add that key to keys.sealing_old, then replay it"
	failureBroken = "delivery_broken: what is stored was damaged or changed, and does not open"
)

// Item is a delivery in a queue.
type Item struct {
	ID    string          // of the delivery: 1 to 64 letters, digits and - _ .
	Hook  string          // name of the endpoint it goes to, likewise
	Event string          // likewise
	Key   string          // items of one hook and key arrive in order; "" stands for none; at most 256 bytes
	Body  json.RawMessage // at most 512 KiB

	Queued   time.Time // or replayed
	Attempts int       // that failed
	Failure  string    // what the last of them ended with
	Status   int       // of the last answer in HTTP, 0 if none came
	Died     time.Time // zero unless it is dead

	sealed []byte // key and body as they are stored; nil in one that never was
}

// header is the part of a record that is not sealed: what operators may see,
// and what says nothing about a user.
type header struct {
	ID       string    `json:"id"`
	Hook     string    `json:"hook"`
	Event    string    `json:"event"`
	Queued   time.Time `json:"queued"`
	Attempts int       `json:"attempts,omitempty"`
	Failure  string    `json:"failure,omitempty"`
	Status   int       `json:"status,omitempty"`
	Died     time.Time `json:"died,omitzero"`
}

func (i *Item) check() error {
	if len(i.Body) > maxBody {
		return errItemSize
	}
	if !i.named() || len(i.Key) > maxKey || !json.Valid(i.Body) {
		return errItem
	}
	return nil
}

func (i *Item) named() bool {
	return nameFormat.MatchString(i.ID) && nameFormat.MatchString(i.Hook) && nameFormat.MatchString(i.Event)
}

// encode makes the record that queues store: the header as JSON, a line feed,
// and key and body sealed. An item is sealed once, for all its attempts.
func (i *Item) encode(s *seal.Sealer) ([]byte, error) {
	if i.sealed == nil {
		plain := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen16+len(i.Key)+len(i.Body)), uint64(len(i.Key)))
		i.sealed = s.Seal(i.context(), append(append(plain, i.Key...), i.Body...))
	}
	head, err := json.Marshal(header{i.ID, i.Hook, i.Event, i.Queued, i.Attempts, i.Failure, i.Status, i.Died})
	if err != nil {
		return nil, err
	}
	return append(append(head, '\n'), i.sealed...), nil
}

// decodeHeader reads a record without opening it: key and body stay sealed.
func decodeHeader(data []byte) (*Item, error) {
	head, sealed, found := bytes.Cut(data, []byte{'\n'})
	if !found || len(data) > maxRecord {
		return nil, errors.New("a stored delivery is cut off or too long")
	}
	var h header
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, err
	}
	i := &Item{ID: h.ID, Hook: h.Hook, Event: h.Event, Queued: h.Queued, Attempts: h.Attempts, Failure: h.Failure, Status: h.Status, Died: h.Died}
	if !i.named() {
		return nil, errItem
	}
	i.sealed = bytes.Clone(sealed) // data may be gone when its transaction is
	return i, nil
}

// open fills in key and body. It answers ErrSealed, and then Failure says why.
func (i *Item) open(s *seal.Sealer) error {
	plain, err := s.Open(i.context(), i.sealed)
	if errors.Is(err, seal.ErrUnknownKey) {
		i.Failure = failureKey
		return ErrSealed.Because(err)
	}
	if err == nil {
		length, n := binary.Uvarint(plain)
		if n <= 0 || length > uint64(len(plain)-n) {
			length, n = 0, len(plain) // which leaves no body
		}
		i.Key, i.Body = string(plain[n:n+int(length)]), plain[n+int(length):]
		err = i.check()
	}
	if err != nil {
		i.Key, i.Body, i.Failure = "", nil, failureBroken
		return ErrSealed.Because(err)
	}
	return nil
}

// context is what the sealed part is bound to: it opens nowhere else.
func (i *Item) context() string {
	return "webhook\x00" + i.ID + "\x00" + i.Hook + "\x00" + i.Event
}

// lane names the items that i must keep its order with: 32 characters. An item
// without a key has one of its own.
func (i *Item) lane() string {
	sum := sha256.Sum256([]byte(i.Hook + "\x00" + cmp.Or(i.Key, "\x00"+i.ID)))
	return hex.EncodeToString(sum[:16])
}

// failed notes an attempt that ended with err.
func (i *Item) failed(err error) {
	i.Attempts++
	if i.Failure != "" && (errors.Is(err, errPaused) || errors.Is(err, errBusy)) {
		return // nobody was asked: what went wrong before says more
	}
	status, _ := errors.AsType[statusError](err)
	i.Status = int(status)
	text := err.Error()
	i.Failure = strings.ToValidUTF8(text[:min(len(text), maxFailure)], "")
}

// revive makes a dead item new, to be sealed with the key of today.
func (i *Item) revive(now time.Time) {
	i.Queued, i.Attempts, i.Died, i.sealed = now, 0, time.Time{}, nil
}
