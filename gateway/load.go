package gateway

import (
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// loadInterval is the time over which the use of processors is measured.
const loadInterval = 5 * time.Second

// load is what this process takes of its machine. Only the clock measures it;
// where the system does not tell (it is not Linux) it stays zero.
type load struct {
	known    bool          // it was measured once
	measured time.Duration // when last, on the hub's clock
	spent    float64       // seconds of all processors by then

	mu  sync.Mutex
	cpu float64
	rss int64
}

// measure looks at the process if the interval is over, and the first time.
func (l *load) measure(now time.Duration) {
	if l.known && now-l.measured < loadInterval {
		return
	}
	spent, rss, err := process()
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known {
		l.cpu = (spent - l.spent) / (now - l.measured).Seconds()
	}
	l.known, l.measured, l.spent, l.rss = true, now, spent, rss
}

// now returns how many processors were busy over the last interval, and the
// resident memory in bytes.
func (l *load) now() (cpu float64, rss int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cpu, l.rss
}

// process returns the seconds that processors have spent on this process, and
// its resident memory in bytes.
func process() (spent float64, rss int64, err error) {
	p, err := procfs.Self()
	if err != nil {
		return 0, 0, err
	}
	stat, err := p.Stat()
	if err != nil {
		return 0, 0, err
	}
	return stat.CPUTime(), int64(stat.ResidentMemory()), nil
}
