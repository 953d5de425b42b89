package auth

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func bucketSizes(t *testing.T, db *bbolt.DB) (sizes [5]int) {
	t.Helper()
	err := db.View(func(tx *bbolt.Tx) error {
		for i, name := range [][]byte{bucketSessions, bucketUsers, bucketExpiry, bucketValues, bucketValueEnd} {
			sizes[i] = tx.Bucket(name).Stats().KeyN
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

func TestFileStoreSweep(t *testing.T) {
	s, db := newFileStore(t)
	err := db.Update(func(tx *bbolt.Tx) error { // more than one transaction's worth
		for range sweepBatch + 5 {
			r := newSession("old", -time.Minute)
			data, err := encodeSession(r)
			if err != nil {
				return err
			}
			if err := errors.Join(insert(tx, r, data), putValue(tx, r.Fingerprint[:], nil, r.Expires)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stays := mustOpen(t, s, newSession("old", time.Minute))
	stays.Expires = time.Now().Add(time.Hour)
	if err := s.Touch(t.Context(), []*Session{stays}); err != nil {
		t.Fatal(err)
	}
	if err := s.sweep(t.Context(), time.Now().Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if sizes := bucketSizes(t, db); sizes != [5]int{1, 1, 1, 1, 1} {
		t.Errorf("after the sweep the buckets hold %v, want the touched session only", sizes)
	}
	if err := s.sweep(t.Context(), time.Now().Add(2*sessionKeyLife)); err != nil {
		t.Fatal(err)
	}
	if sizes := bucketSizes(t, db); sizes != [5]int{} {
		t.Errorf("after everything expired the buckets hold %v", sizes)
	}
}

func TestFileStoreSurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.db")
	reopen := func() (*FileStore, *bbolt.DB) {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewFileStore(db)
		if err != nil {
			t.Fatal(err)
		}
		return s, db
	}
	s, db := reopen()
	r := mustOpen(t, s, newSession("ann", time.Hour))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, db = reopen()
	defer func() { _ = db.Close() }()
	if got, err := s.Get(t.Context(), r.Fingerprint); err != nil || got.User != r.User || !got.Expires.Equal(r.Expires) {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
}

func TestFileStoreDamagedRecord(t *testing.T) {
	s, db := newFileStore(t)
	for _, damage := range []string{"", "short", "12345678", "12345678{}", "\x7f2345678not JSON"} {
		r := mustOpen(t, s, newSession("ann", time.Hour))
		err := db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketSessions).Put(r.Fingerprint[:], []byte(damage))
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), r.Fingerprint); !errors.Is(err, ErrNoSession) {
			t.Errorf("%q: %v", damage, err)
		}
		wantSessions(t, s, "ann")
		if err := s.Delete(t.Context(), SessionEnd{r.Fingerprint, r.User, EndLogout}); err != nil {
			t.Errorf("%q: %v", damage, err)
		}
	}
}
