package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// mortal counts steps until the process dies, half of them before and half of
// them after what the step does; or until one fails, and then it lives on.
type mortal struct {
	left  int
	lives bool
}

var errDead = errors.New("the process is dead")

func (m *mortal) step(do func() error) error {
	if m.fails() {
		return errDead
	}
	if err := do(); err != nil || !m.fails() {
		return err
	}
	return errDead
}

func (m *mortal) fails() bool {
	m.left--
	return m.left == -1 || m.left < -1 && !m.lives
}

type mortalStore struct {
	Store
	*mortal
}

func (s mortalStore) Abort(ctx context.Context, key, upload string) error {
	return s.step(func() error { return s.Store.Abort(ctx, key, upload) })
}

func (s mortalStore) Delete(ctx context.Context, key string) error {
	return s.step(func() error { return s.Store.Delete(ctx, key) })
}

func (s mortalStore) Put(ctx context.Context, key string, r io.Reader, size int64) (n int64, err error) {
	err = s.step(func() error { n, err = s.Store.Put(ctx, key, r, size); return err })
	return n, err
}

func (s mortalStore) PutPart(ctx context.Context, key, upload string, n int, r io.Reader, size int64) (p Part, err error) {
	err = s.step(func() error { p, err = s.Store.PutPart(ctx, key, upload, n, r, size); return err })
	return p, err
}

type mortalLedger struct {
	Ledger
	*mortal
}

func (l mortalLedger) Retire(ctx context.Context, id string, from ...State) (f File, err error) {
	err = l.step(func() error { f, err = l.Ledger.Retire(ctx, id, from...); return err })
	return f, err
}

func (l mortalLedger) Forget(ctx context.Context, id string) error {
	return l.step(func() error { return l.Ledger.Forget(ctx, id) })
}

func (l mortalLedger) Update(ctx context.Context, f File, q Quota) error {
	return l.step(func() error { return l.Ledger.Update(ctx, f, q) })
}

// A node that dies at any point while it removes an expired session leaves it to
// the next sweep; one that is open is not touched.
func TestSweepExpiredSessionCutShort(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		begin := func() Upload {
			t.Helper()
			u, err := h.Begin(ctx, alice, NewUpload{Way: WayParts, Size: minPart + 5})
			if err == nil {
				_, err = h.PutPart(ctx, alice, u.ID, 1, strings.NewReader(string(random(minPart))), NewPart{Size: minPart})
			}
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		alive := begin()
		const most = 8 // Retire, Abort, Delete and Forget, before and after
		for left := range most + 1 {
			t.Run(fmt.Sprint(left), func(t *testing.T) {
				u := begin()
				f, err := h.ledger.Get(ctx, u.ID)
				if err != nil {
					t.Fatal(err)
				}
				f.Session.Expires = now().Add(-2 * cleanUp)
				if err := h.ledger.Update(ctx, f, Quota{}); err != nil {
					t.Fatal(err)
				}
				m, store, ledger := &mortal{left: left}, h.store, h.ledger
				h.store, h.ledger = mortalStore{store, m}, mortalLedger{ledger, m}
				err = h.Sweep(ctx)
				h.store, h.ledger = store, ledger
				if errors.Is(err, errDead) != (left < most) {
					t.Errorf("the sweep that is cut short: %v", err)
				}
				// Deletions have time to end, as on any other node.
				err = h.sweepAll(ctx, func() ([]File, error) {
					return h.ledger.Unfinished(ctx, time.Now().Add(time.Second), sweepBatch, Deleting)
				})
				if err := errors.Join(err, h.Sweep(ctx)); err != nil {
					t.Fatal(err)
				}
				if _, err := h.ledger.Get(ctx, u.ID); !errors.Is(err, errNoFile) {
					t.Errorf("its record: %v", err)
				}
				if parts, err := h.store.Parts(ctx, f.Key, f.Session.Upload); !errors.Is(err, errNoUpload) {
					t.Errorf("its parts: %v, %v", parts, err)
				}
				wantUsage(t, h.ledger, "in the end", Usage{Stored: minPart + 5, Daily: minPart + 5, Sessions: 1})
			})
		}
		if got, err := h.Status(ctx, alice, alive.ID); err != nil || got.Received() != minPart {
			t.Errorf("the open one: %+v, %v", got, err)
		}
	})
}
