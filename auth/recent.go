package auth

// recent is a bounded map that forgets what was not used lately. It keeps two
// generations: when the young one is full it becomes the old one, and the old
// one is forgotten, except for what was asked for meanwhile. It needs a lock.
type recent[K comparable, V any] struct {
	half       int // size of a generation
	young, old map[K]V
}

func newRecent[K comparable, V any](limit int) recent[K, V] {
	return recent[K, V]{half: limit / 2, young: make(map[K]V)}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	if ok {
		r.put(k, v)
	}
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if _, there := r.young[k]; !there && len(r.young) >= r.half {
		r.old, r.young = r.young, make(map[K]V)
	}
	r.young[k] = v
}

func (r *recent[K, V]) remove(k K) {
	delete(r.young, k)
	delete(r.old, k)
}
