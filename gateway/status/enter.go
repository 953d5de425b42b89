package status

import "context"

// changes are what is to be entered into the store. Those who are known to have
// been entered before are kept apart.
type changes struct {
	came, left map[bool][]User
}

// flush enters what has changed. What fails stays to be entered.
func (t *Tracker) flush(ctx context.Context) error {
	for t.hasChanges() {
		if err := t.renewIfDue(ctx); err != nil { // nothing is tried while the store is away
			return err
		}
		c := t.take()
		if err := t.enter(ctx, c); err != nil {
			t.putBack(c)
			return err
		}
	}
	return nil
}

func (t *Tracker) hasChanges() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.changed) > 0
}

// take picks some of what has changed, as it is now.
func (t *Tracker) take() (c changes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.came, c.left = make(map[bool][]User), make(map[bool][]User)
	n := 0
	for user := range t.changed {
		if n++; n > changesMax {
			break
		}
		delete(t.changed, user)
		list, p := c.came, t.here[user]
		if p == nil {
			list, p = c.left, t.gone[user]
		} else {
			p.tried = true
		}
		if p != nil { // or else he has left long ago
			list[p.entered] = append(list[p.entered], p.user)
		}
	}
	return c
}

func (t *Tracker) putBack(c changes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, lists := range []map[bool][]User{c.came, c.left} {
		for _, list := range lists {
			for _, u := range list {
				t.changed[u.ID] = struct{}{}
			}
		}
	}
}

func (t *Tracker) enter(ctx context.Context, c changes) error {
	return call(ctx, func(ctx context.Context) error {
		for entered, users := range c.came {
			whole, err := t.o.Store.Arrive(ctx, t.name(), users, entered)
			if err != nil {
				return err
			}
			if !whole {
				return errLost // the next beat finds out how much
			}
			t.entered(users)
		}
		for entered, users := range c.left {
			if err := t.o.Store.Depart(ctx, t.name(), users, entered); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *Tracker) entered(users []User) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, u := range users {
		if p := t.here[u.ID]; p != nil {
			p.entered = true
		} else if p := t.gone[u.ID]; p != nil {
			p.entered = true
		}
	}
}

// report tells what is due, of all users, whichever node they are on.
func (t *Tracker) report(ctx context.Context) error {
	defer t.measure()
	for part := range Partitions {
		for more := true; more; {
			err := t.renewIfDue(ctx)
			if err == nil {
				more, err = t.tell(ctx, part)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// tell looks at some users of a part. What is found and not told comes again
// when its lease is over, from whichever node looks then.
func (t *Tracker) tell(ctx context.Context, part int) (more bool, err error) {
	var r Round
	err = call(ctx, func(ctx context.Context) (err error) {
		r, err = t.o.Store.Due(ctx, part, t.o.Batch)
		return err
	})
	if err != nil {
		return false, err
	}
	t.pending[part], t.oldest[part] = r.Pending, r.Oldest
	if r.Buried && part == 0 { // a node is in all of them
		t.o.Metrics.buried.Inc()
	}
	if len(r.Events) == 0 {
		return r.More, nil
	}
	t.stuck = call(ctx, func(ctx context.Context) error { return t.o.Tell(ctx, part, r.Events) })
	if t.stuck != nil {
		return false, t.stuck
	}
	for _, e := range r.Events {
		t.o.Metrics.events.WithLabelValues(e.Status).Inc()
	}
	t.pending[part] -= len(r.Events)
	if t.pending[part] == 0 {
		t.oldest[part] = 0
	}
	return r.More, call(ctx, func(ctx context.Context) error { return t.o.Store.Done(ctx, part, r.Events) })
}

func (t *Tracker) measure() {
	pending, oldest := 0, t.oldest[0]
	for part := range Partitions {
		pending += t.pending[part]
		oldest = max(oldest, t.oldest[part])
	}
	if pending == 0 { // another node has told it
		t.stuck = nil
	}
	t.o.Metrics.pending.Set(float64(pending))
	t.o.Metrics.oldest.Set(oldest.Seconds())
}
