// Package health watches what minigate depends on and tells load balancers,
// operators and the log about it.
package health

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	defaultInterval = 2 * time.Second
	defaultTimeout  = 5 * time.Second
)

// Status says whether this process can do its work.
type Status string

// The statuses.
const (
	Starting Status = "starting" // not everything was checked yet
	Ready    Status = "ready"
	Degraded Status = "degraded" // something is down
	Stopping Status = "stopping"
)

// Dependency is what the last check of one dependency found.
type Dependency struct {
	Name     string    `json:"name"`
	Critical bool      `json:"critical"`        // without it nothing works
	Up       bool      `json:"up"`              // false until the first check
	Since    time.Time `json:"since,omitzero"`  // when Up became what it is; zero until the first check
	Error    string    `json:"error,omitempty"` // why it is down, without secrets
}

// Snapshot is the health of the process at one moment.
type Snapshot struct {
	Status       Status       `json:"status"`
	Dependencies []Dependency `json:"dependencies"` // in the order they were watched
}

// Registry knows the dependencies. Its methods may be called from any
// goroutine; Interval and Timeout may be changed until Run is called.
type Registry struct {
	Interval time.Duration // pause between two checks of a dependency, 2 s
	Timeout  time.Duration // how long a check may take, 5 s
	Metrics  *Metrics      // nil counts nothing

	mu       sync.Mutex
	watched  []*watched
	stopping bool
}

// watched is a dependency with its check; dep is guarded by Registry.mu.
type watched struct {
	check func(ctx context.Context) error
	dep   Dependency
}

// New returns a Registry that watches nothing yet.
func New() *Registry {
	return &Registry{Interval: defaultInterval, Timeout: defaultTimeout}
}

// Watch adds a dependency; call it before Run. check answers nil while the
// dependency works and must end when its context does. Its error goes to the
// log as it is; others see no more of it than is surely free of secrets.
func (reg *Registry) Watch(name string, critical bool, check func(ctx context.Context) error) {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	reg.watched = append(reg.watched, &watched{check, Dependency{Name: name, Critical: critical}})
}

// Run checks every dependency now and then every Interval until ctx ends. It
// returns when no check is running any more.
func (reg *Registry) Run(ctx context.Context) {
	reg.mu.Lock()
	all := reg.watched
	reg.mu.Unlock()
	var wg sync.WaitGroup
	for _, w := range all {
		wg.Go(func() { reg.watch(ctx, w) })
	}
	wg.Wait()
}

// watch checks one dependency; each has a goroutine of its own so that one
// that hangs does not keep the others from being checked.
func (reg *Registry) watch(ctx context.Context, w *watched) {
	pause := time.NewTicker(reg.Interval)
	defer pause.Stop()
	for {
		checkCtx, cancel := context.WithTimeout(ctx, reg.Timeout)
		err := w.check(checkCtx)
		cancel()
		if ctx.Err() != nil {
			return // we are stopping: err says nothing about the dependency
		}
		reg.note(w, err)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// note keeps the result of a check and logs it where it is news.
func (reg *Registry) note(w *watched, err error) {
	now, up := time.Now(), err == nil
	reg.mu.Lock()
	before := w.dep
	w.dep.Error = publicText(err)
	if first := before.Since.IsZero(); first || before.Up != up {
		w.dep.Up, w.dep.Since = up, now
	}
	reg.mu.Unlock()

	if reg.Metrics != nil {
		reg.Metrics.set(w.dep.Name, up)
	}
	known := !before.Since.IsZero()
	switch {
	case !up && (!known || before.Up):
		slog.Warn(w.dep.Name+" is away", "critical", w.dep.Critical, "error", err)
	case up && known && !before.Up:
		slog.Info(w.dep.Name+" is back", "away_for", now.Sub(before.Since).Round(time.Millisecond))
	}
}

// publicText is what may be shown of a check's error: what the network said,
// and what our own edges wrote for clients. Other texts of libraries may
// contain URLs with passwords.
func publicText(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e.Msg
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "It does not answer in time."
	}
	return "It cannot be used; the log says why."
}

// SetStopping makes the process not ready for good.
func (reg *Registry) SetStopping() {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	reg.stopping = true
}

// Snapshot returns the health as it is now.
func (reg *Registry) Snapshot() Snapshot {
	reg.mu.Lock()
	defer reg.mu.Unlock()
	s := Snapshot{Status: Ready, Dependencies: make([]Dependency, len(reg.watched))}
	for i, w := range reg.watched {
		s.Dependencies[i] = w.dep
		switch {
		case w.dep.Since.IsZero():
			s.Status = Starting
		case !w.dep.Up && s.Status == Ready:
			s.Status = Degraded
		}
	}
	if reg.stopping {
		s.Status = Stopping
	}
	return s
}

// Serving reports whether requests are welcome: everything was checked,
// everything critical is up, and the process is not about to end.
func (s Snapshot) Serving() bool {
	for _, d := range s.Dependencies {
		if d.Critical && !d.Up {
			return false
		}
	}
	return s.Status == Ready || s.Status == Degraded
}

// ServeHealthz answers 200 while the process lives: where it does not, a
// restart helps. What it depends on plays no part, a restart would not help.
func (reg *Registry) ServeHealthz(w http.ResponseWriter, _ *http.Request) error {
	return rest.JSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ServeReadyz answers the Snapshot: 200 while requests are welcome, else 503.
func (reg *Registry) ServeReadyz(w http.ResponseWriter, _ *http.Request) error {
	s, status := reg.Snapshot(), http.StatusServiceUnavailable
	if s.Serving() {
		status = http.StatusOK
	}
	return rest.JSON(w, status, s)
}
