package gateway

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/minigate/minigate/internal/cgroup"
)

const (
	// memoryInterval is how often memory is measured.
	memoryInterval = time.Second
	// memoryPatience is how long too much memory is in use before anybody is
	// closed for it: refusing new connections may be enough.
	memoryPatience = 5 * time.Second
	// collectInterval is how often at most garbage is collected for it.
	collectInterval = time.Minute
	// lazyAfter is how long nothing moved for a reader who is closed for memory.
	lazyAfter = time.Second
)

// memory watches what this process uses against soft limits: past one of them
// new connections are refused, and if that does not help the laziest readers
// are closed, an eighth of them a second.
type memory struct {
	measures []measure // read only
	metrics  *Metrics
	collect  func() // gives garbage back to the system
	alarm    chan struct{}

	measured time.Duration // when last; of the clock

	mu        sync.Mutex // guards what follows
	past      bool
	since     time.Duration // of past
	excess    int64         // bytes
	collected time.Duration // when collect was called last, 0: never
}

// measure is one way to look at memory.
type measure struct {
	name  string
	limit int64 // bytes
	used  func() (int64, error)
}

// newMemory looks for limits: one of our own, of what is alive in this process,
// and one for the whole control group, where the system has set one, with what
// the kernel keeps for sockets.
func newMemory(limit int64, m *Metrics) *memory {
	mem := &memory{metrics: m, collect: debug.FreeOSMemory, alarm: make(chan struct{}, 1)}
	if limit == 0 {
		if goLimit := debug.SetMemoryLimit(-1); goLimit != math.MaxInt64 {
			limit = goLimit / 10 * 9
		}
	}
	if limit > 0 {
		mem.measures = append(mem.measures, measure{"process", limit, aliveMemory})
	}
	if group, ok := cgroup.Memory(); ok {
		mem.measures = append(mem.measures, measure{"cgroup", group.Limit / 10 * 9, group.Used})
	}
	for _, one := range mem.measures {
		m.memoryLimit.WithLabelValues(one.name).Set(float64(one.limit))
	}
	return mem
}

// look measures if the interval is over. It is called by the clock.
func (m *memory) look(now time.Duration, o *overload) {
	if len(m.measures) == 0 || m.measured > 0 && now-m.measured < memoryInterval {
		return
	}
	m.measured = now
	if m.assess(now, o) {
		select {
		case m.alarm <- struct{}{}:
		default:
		}
	}
}

// assess measures, and reports whether too much is used. Where it was, it is
// until a little less than the limit is used.
func (m *memory) assess(now time.Duration, o *overload) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	over := int64(math.MinInt64)
	for _, one := range m.measures {
		used, err := one.used()
		if err != nil {
			slog.Debug("memory cannot be measured", "of", one.name, "error", err)
			continue
		}
		m.metrics.memoryUsed.WithLabelValues(one.name).Set(float64(used))
		limit := one.limit
		if m.past {
			limit -= limit / 20
		}
		over = max(over, used-limit)
	}
	m.excess = over
	switch past := over > 0; {
	case past == m.past:
	case past:
		m.past, m.since = true, now
		slog.Warn("memory is over its soft limit: new connections are refused", "excess", over)
	default:
		m.past = false
		slog.Info("memory is within its soft limit again")
	}
	o.memory.Store(m.past)
	return m.past
}

// mayCollect tells whether garbage may be collected now, and notes that it is.
func (m *memory) mayCollect(now time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.collected != 0 && now-m.collected < collectInterval {
		return false
	}
	m.collected = now
	return true
}

// owes is how many bytes too many are used; 0 while there is still patience.
func (m *memory) owes(now time.Duration) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.past || now-m.since < memoryPatience {
		return 0
	}
	return m.excess
}

// alive are what this process cannot do without: no garbage, which the
// collector takes away before GOMEMLIMIT is reached, and nothing that was given
// back. What is alive in the heap is known from the last collection.
var alive = []string{
	"/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/memory/classes/os-stacks:bytes",
	"/memory/classes/metadata/mcache/inuse:bytes", "/memory/classes/metadata/mspan/inuse:bytes", "/memory/classes/metadata/other:bytes",
	"/memory/classes/profiling/buckets:bytes", "/memory/classes/other:bytes",
}

func aliveMemory() (int64, error) {
	samples := make([]metrics.Sample, len(alive))
	for i, name := range alive {
		samples[i].Name = name
	}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		sum += s.Value.Uint64()
	}
	return int64(sum), nil
}

// relieve does what is due while too much memory is in use.
func (h *Hub) relieve() {
	m := h.memory
	if m.mayCollect(h.now()) {
		m.collect()
		m.assess(h.now(), &h.overload)
	}
	if owed := m.owes(h.now()); owed > 0 {
		h.shedForMemory(owed)
	}
}

// shedForMemory closes those that have left most unread for longest, until as
// many bytes are free, at most an eighth of all who have left anything: what
// they free is seen before the next ones go. Messages that are shared are nobody's,
// but what the kernel keeps of them for a socket is.
func (h *Hub) shedForMemory(owed int64) {
	now := h.now()
	holders, _ := h.holders(now, h.kernelKeeps())
	holders = slices.DeleteFunc(holders, func(l holder) bool { return now-l.since < lazyAfter })
	for _, l := range holders[:(len(holders)+7)/8] {
		if owed <= 0 {
			return
		}
		owed -= l.held
		l.c.tooSlow(slowMemory)
	}
}

// kernelKeeps is about how many bytes the kernel keeps for a socket that is full.
func (h *Hub) kernelKeeps() int64 {
	const byItself = 64 << 10 // and more in time
	if n := int64(h.settings.WebSocket.SendBuffer); n > 0 {
		return 2 * n // Linux counts what it needs itself, too
	}
	return byItself
}

// shed closes connections while too much waits on this node, or too much memory
// is in use.
func (h *Hub) shed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.budget.over:
			h.shedLaziest()
			if !sleep(ctx, wheelTick) { // for what was closed to let go of its bytes
				return
			}
		case <-h.memory.alarm: // comes again with the next measurement
			h.relieve()
		}
	}
}
