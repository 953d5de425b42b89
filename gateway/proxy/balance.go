package proxy

import "time"

// pick chooses the target for a request and counts it as under way there: of
// those that are well and were not tried (a bit for each index) the one with
// the fewest requests for its weight; equals take turns by their weights. Where
// none is well, any: a group is never worse than its targets would be alone.
// trial says that a request does no harm where it fails, so that it may find
// out whether a target is back.
func (u *Upstream) pick(tried uint64, trial bool) *Target {
	if len(u.targets) == 1 {
		u.targets[0].inflight.Add(1)
		return u.targets[0]
	}
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.onTrial(tried, trial, now)
	if t == nil {
		t = u.least(func(t *Target) bool { return tried&(1<<t.index) == 0 && !t.down.Load() })
	}
	if t == nil {
		t = u.least(func(t *Target) bool { return tried&(1<<t.index) == 0 })
	}
	t.inflight.Add(1)
	return t
}

// onTrial is a target whose pause is over. It gets one request, and the next
// after another pause unless that one succeeds.
func (u *Upstream) onTrial(tried uint64, trial bool, now time.Time) *Target {
	if !trial {
		return nil
	}
	for _, t := range u.targets {
		until := t.out.Load()
		if until == 0 || now.UnixNano() < until || tried&(1<<t.index) != 0 || t.unwell.Load() {
			continue
		}
		if t.out.CompareAndSwap(until, now.Add(u.settings.FailPause).UnixNano()) {
			return t
		}
	}
	return nil
}

// least wants u.mu; nil where no target is allowed.
func (u *Upstream) least(allowed func(*Target) bool) *Target {
	var first *Target // of those with the fewest
	var fewest, total int64
	for _, t := range u.targets {
		t.tied = false
		if !allowed(t) {
			continue
		}
		n := t.inflight.Load()
		switch {
		case first == nil || n*first.weight < fewest*t.weight:
			for _, before := range u.targets[:t.index] {
				before.tied = false
			}
			first, fewest, total = t, n, 0
		case n*first.weight > fewest*t.weight:
			continue
		}
		t.tied = true
		total += t.weight
	}
	if first == nil {
		return nil
	}
	// Smooth weighted round robin: everybody gains his weight, the richest is
	// chosen and pays for all.
	best := first
	for _, t := range u.targets {
		if !t.tied {
			continue
		}
		t.current += t.weight
		if t.current > best.current {
			best = t
		}
	}
	best.current -= total
	return best
}
