package wxsim

import (
	"container/list"
	"time"
)

// table remembers at most max values, each until it expires. Expired ones are
// swept when something is put; when that is not enough the oldest goes.
type table[V any] struct {
	max     int
	entries map[string]*list.Element // of *entry[V]
	order   *list.List               // oldest first
}

type entry[V any] struct {
	key     string
	value   V
	expires time.Time
}

func newTable[V any](limit int) table[V] {
	return table[V]{max: limit, entries: make(map[string]*list.Element), order: list.New()}
}

func (t *table[V]) put(key string, v V, now, expires time.Time) {
	t.remove(key)
	for front := t.order.Front(); front != nil; front = t.order.Front() {
		oldest := front.Value.(*entry[V])
		if t.order.Len() < t.max && now.Before(oldest.expires) {
			break
		}
		t.remove(oldest.key)
	}
	t.entries[key] = t.order.PushBack(&entry[V]{key, v, expires})
}

// get returns the entry itself, which the caller may change, or nil.
func (t *table[V]) get(key string, now time.Time) *entry[V] {
	el, ok := t.entries[key]
	if !ok {
		return nil
	}
	e := el.Value.(*entry[V])
	if !now.Before(e.expires) {
		t.remove(key)
		return nil
	}
	return e
}

func (t *table[V]) remove(key string) {
	if el, ok := t.entries[key]; ok {
		t.order.Remove(el)
		delete(t.entries, key)
	}
}
