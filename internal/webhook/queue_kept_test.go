package webhook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/minigate/minigate/internal/redisclient"
)

func newFileQueue(t testing.TB, o QueueOptions) (*FileQueue, *bbolt.DB) {
	t.Helper()
	return openFileQueue(t, filepath.Join(t.TempDir(), "queue.db"), o)
}

func openFileQueue(t testing.TB, path string, o QueueOptions) (*FileQueue, *bbolt.DB) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	q, err := NewFileQueue(db, o)
	must(t, err)
	return q, db
}

func newRedisClient(t testing.TB, addr string) redisclient.Client {
	client := redisclient.Open(redisclient.Settings{Addresses: []string{addr}})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// kept is a queue of the contract and what it stands on.
type kept struct {
	Queue
	breakIt func()
	again   func(o QueueOptions) Queue           // opens the same queue with other options
	records func(change func(id, record string)) // shows every record
	set     func(id, record string)              // replaces one
	dump    func() []byte                        // everything that is stored, as it is
}

func openKeptFile(t *testing.T, o QueueOptions) *kept {
	q, db := newFileQueue(t, o)
	return &kept{
		Queue: q, breakIt: func() { _ = db.Close() },
		again: func(o QueueOptions) Queue {
			q, err := NewFileQueue(db, o)
			must(t, err)
			return q
		},
		records: func(see func(id, record string)) {
			must(t, db.View(func(tx *bbolt.Tx) error {
				return open(tx).items.ForEach(func(k, v []byte) error { see(string(k), string(v)); return nil })
			}))
		},
		set: func(id, record string) {
			must(t, db.Update(func(tx *bbolt.Tx) error { return open(tx).items.Put([]byte(id), []byte(record)) }))
		},
		dump: func() []byte {
			must(t, db.Sync())
			raw, err := os.ReadFile(db.Path())
			must(t, err)
			return raw
		},
	}
}

func openKeptRedis(t *testing.T, client redisclient.Client, kill func(), prefix string, o QueueOptions) *kept {
	q, ctx := NewRedisQueue(client, prefix, o), t.Context()
	return &kept{
		Queue: q, breakIt: kill,
		again: func(o QueueOptions) Queue { return NewRedisQueue(client, prefix, o) },
		records: func(see func(id, record string)) {
			all, err := client.HGetAll(ctx, q.items).Result()
			must(t, err)
			for id, record := range all {
				see(id, record)
			}
		},
		set: func(id, record string) { must(t, client.HSet(ctx, q.items, id, record).Err()) },
		dump: func() []byte {
			keys, err := client.Keys(ctx, prefix+":*").Result()
			must(t, err)
			dump := []byte(strings.Join(keys, " "))
			for _, key := range keys {
				raw, err := client.Dump(ctx, key).Result() // as it would go to disk, but for compression
				must(t, err)
				dump = append(dump, raw...)
			}
			return dump
		},
	}
}
