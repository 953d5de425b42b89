package webhook

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

const (
	maxBody    = 512 << 10 // bytes
	maxKey     = 256       // bytes
	maxRecord  = maxBody + 4<<10
	maxFailure = 256 // bytes of Item.Failure
)

var (
	errItem     = fault.New(fault.Invalid, "webhook_item", "A delivery needs a hook, an event and a JSON body, of which none is too long.")
	errItemSize = fault.Newf(fault.TooLarge, "webhook_item_too_large", "The body of a delivery may have at most %d bytes.", maxBody)
)

// Item is a delivery in a queue, and how queues store it.
type Item struct {
	ID    string          `json:"id"`            // of the delivery: 1 to 64 letters, digits and - _ .
	Hook  string          `json:"hook"`          // name of the endpoint it goes to, likewise
	Event string          `json:"event"`         // likewise
	Key   string          `json:"key,omitempty"` // items of one hook and key arrive in order; "" stands for none; at most 256 bytes
	Body  json.RawMessage `json:"body"`          // at most 64 KiB

	Queued   time.Time `json:"queued"`             // or replayed
	Attempts int       `json:"attempts,omitempty"` // that failed
	Failure  string    `json:"failure,omitempty"`  // what the last of them ended with
	Died     time.Time `json:"died,omitzero"`      // zero unless it is dead
}

func (i *Item) check() error {
	if len(i.Body) > maxBody {
		return errItemSize
	}
	if !nameFormat.MatchString(i.ID) || !nameFormat.MatchString(i.Hook) || !nameFormat.MatchString(i.Event) ||
		len(i.Key) > maxKey || !json.Valid(i.Body) {
		return errItem
	}
	return nil
}

func (i *Item) encode() ([]byte, error) { return json.Marshal(i) }

func decodeItem(data []byte) (*Item, error) {
	if len(data) > maxRecord {
		return nil, errors.New("a stored delivery is too long")
	}
	i := new(Item)
	if err := json.Unmarshal(data, i); err != nil {
		return nil, err
	}
	return i, i.check()
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
	text := err.Error()
	i.Failure = strings.ToValidUTF8(text[:min(len(text), maxFailure)], "")
}

// revive makes a dead item new.
func (i *Item) revive(now time.Time) {
	i.Queued, i.Attempts, i.Died = now, 0, time.Time{}
}
