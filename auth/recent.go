package auth

// recent is a map that holds at most about limit entries, and where that is
// asked for only entries that weigh so much together, and forgets those nobody
// asked for longest. It keeps two generations: when the young one is full it
// becomes the old one, and the old one is forgotten, except for what was asked
// for meanwhile. It needs a lock.
type recent[K comparable, V any] struct {
	half       int // size of a generation
	young, old map[K]V

	// Where weigh is set: what a generation may weigh, and the young one does.
	weigh             func(V) int
	halfWeight, heavy int
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
	r.unload(k)
	_, there := r.young[k]
	weight := 0
	if r.weigh != nil {
		weight = r.weigh(v)
	}
	tooMany, tooHeavy := !there && len(r.young) >= r.half, r.heavy > 0 && r.heavy+weight > r.halfWeight
	if tooMany || tooHeavy {
		delete(r.young, k)
		r.turn()
	}
	r.young[k] = v
	r.heavy += weight
}

// turn makes the young generation the old one and forgets that.
func (r *recent[K, V]) turn() {
	if len(r.young)+len(r.old) > 0 {
		r.old, r.young, r.heavy = r.young, make(map[K]V), 0
	}
}

func (r *recent[K, V]) remove(k K) {
	r.unload(k)
	delete(r.young, k)
	delete(r.old, k)
}

// unload takes what k weighs off the young generation.
func (r *recent[K, V]) unload(k K) {
	if r.weigh == nil {
		return
	}
	if v, there := r.young[k]; there {
		r.heavy -= r.weigh(v)
	}
}

func (r *recent[K, V]) clear() {
	r.young, r.old, r.heavy = make(map[K]V), nil, 0
}
