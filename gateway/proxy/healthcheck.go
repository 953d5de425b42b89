package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// Run asks the targets that have a health check until ctx ends.
func (p *Proxy) Run(ctx context.Context) error {
	var asking sync.WaitGroup
	for _, t := range p.Targets() {
		if t.upstream.settings.HealthCheck.Path != "" {
			asking.Go(func() { t.keepAsking(ctx) })
		}
	}
	asking.Wait()
	return nil
}

func (t *Target) keepAsking(ctx context.Context) {
	pause := time.NewTicker(t.upstream.settings.HealthCheck.Interval)
	defer pause.Stop()
	for {
		t.ask(ctx)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// ask is one health check.
func (t *Target) ask(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, t.upstream.settings.HealthCheck.Timeout)
	defer cancel()
	err := t.healthOf(limited)
	if ctx.Err() != nil {
		return // says nothing about the target
	}
	t.heard(err)
}

// maxHealthAnswer is how much of a health check's answer is read, so that the
// connection can be used again.
const maxHealthAnswer = 64 << 10

func (t *Target) healthOf(ctx context.Context) error {
	path := t.upstream.settings.HealthCheck.Path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.base.Scheme+"://"+t.base.Host, http.NoBody)
	if err != nil {
		return err
	}
	req.URL.Path = path
	req.Header.Set("User-Agent", "minigate")
	res, err := t.upstream.transport(t.upstream.settings.HealthCheck.Timeout).RoundTrip(req) // and no client, which would follow redirections
	if err != nil {
		return errUnhealthy.Because(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxHealthAnswer)
	if res.StatusCode/100 != 2 {
		return fault.New(errUnhealthy.Kind, errUnhealthy.Code, fmt.Sprintf("Its health check answers %d.", res.StatusCode))
	}
	return nil
}

// heard makes of the results of checks what is told.
func (t *Target) heard(err error) {
	s := t.upstream.settings.HealthCheck
	t.mu.Lock()
	t.asked = true
	if err == nil {
		t.good, t.bad = t.good+1, 0
	} else {
		t.good, t.bad = 0, t.bad+1
	}
	switch {
	case err == nil && t.good >= s.HealthyAfter:
		t.sick = nil
		t.unwell.Store(false)
	case err != nil && (t.sick != nil || t.bad >= s.UnhealthyAfter):
		t.sick = err
		t.unwell.Store(true)
	}
	t.tell(t.sick)
	t.mu.Unlock()
	if err == nil {
		t.reachable()
	}
}
