package proxy

import (
	"fmt"
	"slices"
	"time"
)

const (
	maxTargets = 64
	maxTries   = 10
)

// UpstreamSettings are a group of backends that do the same work.
type UpstreamSettings struct {
	Name           string              `yaml:"name" doc:"What routes call the group: letters, digits, - and _, at most 64."`
	Targets        []TargetSettings    `yaml:"targets" doc:"The backends, 1 to 64."`
	Audience       string              `yaml:"audience" doc:"Whom the signed identity is for (aud). Empty: the group's name; for routes with a URL its host:port."`
	H2C            bool                `yaml:"h2c" default:"false" doc:"Whether HTTP/2 is spoken to http targets, without TLS. https targets choose it by themselves."`
	Tries          int                 `yaml:"tries" default:"3" doc:"How many targets a request is offered at most, 1 to 10. Another one is tried where the first cannot be reached and nothing of the body was sent, or where a GET, HEAD, OPTIONS, PUT or DELETE without a body fails before its answer begins."`
	ConnectTimeout time.Duration       `yaml:"connect_timeout" default:"5s" doc:"How long connecting may take, and the TLS handshake again."`
	MaxFails       int                 `yaml:"max_fails" default:"3" doc:"After how many failures in a row a target gets no requests for fail_pause. One that cannot be reached is left out at once. Answers are no failures, whatever their status."`
	FailPause      time.Duration       `yaml:"fail_pause" default:"10s" doc:"How long; then one request tries it again. Where all targets are left out all are tried."`
	HealthCheck    HealthCheckSettings `yaml:"health_check" doc:"Asking every target whether it is well."`
}

// TargetSettings are one backend of a group.
type TargetSettings struct {
	URL    string `yaml:"url" doc:"An http or https URL without user and query; a path in it is put before the request's."`
	Weight int    `yaml:"weight" default:"1" doc:"Its share of the requests, compared with the other targets', 1 to 1000."`
}

// HealthCheckSettings say how the targets of a group are asked.
type HealthCheckSettings struct {
	Path           string        `yaml:"path" doc:"Path that every target is asked for by GET: 2xx is well. Empty: only whether it accepts connections is looked at, every 2s."`
	Interval       time.Duration `yaml:"interval" default:"5s" doc:"Pause between two checks of a target."`
	Timeout        time.Duration `yaml:"timeout" default:"2s" doc:"How long a target may take to answer."`
	UnhealthyAfter int           `yaml:"unhealthy_after" default:"3" doc:"After how many failed checks in a row a target gets no more requests."`
	HealthyAfter   int           `yaml:"healthy_after" default:"2" doc:"After how many good ones it gets them again."`
}

func (s *Settings) upstream(name string) *UpstreamSettings {
	i := slices.IndexFunc(s.Upstreams, func(u UpstreamSettings) bool { return u.Name == name })
	if i < 0 || name == "" {
		return nil
	}
	return &s.Upstreams[i]
}

func (s *Settings) checkUpstreams(report func(path, problem string)) {
	for i := range s.Upstreams {
		u := &s.Upstreams[i]
		in := func(path, problem string) { report(fmt.Sprintf("upstreams[%d].%s", i, path), problem) }
		if !isName(u.Name) {
			in("name", "must be 1 to 64 letters, digits, - and _")
		} else if s.upstream(u.Name) != u {
			in("name", "is the same as another group's")
		}
		u.check(in)
	}
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if !isAlnum(c) && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (u *UpstreamSettings) check(report func(path, problem string)) {
	if n := len(u.Targets); n == 0 || n > maxTargets {
		report("targets", fmt.Sprintf("must be 1 to %d", maxTargets))
	}
	seen := map[string]bool{}
	for i, t := range u.Targets {
		at := fmt.Sprintf("targets[%d].", i)
		if to, err := parseUpstream(t.URL); err != nil {
			report(at+"url", err.Error())
		} else {
			if seen[address(to)] {
				report(at+"url", "has the host and port of another target")
			}
			seen[address(to)] = true
			if u.H2C && to.Scheme != "http" {
				report(at+"url", "must be an http URL where h2c is on")
			}
		}
		if t.Weight < 1 || t.Weight > 1000 {
			report(at+"weight", "must be between 1 and 1000")
		}
	}
	for name, n := range map[string]int{"max_fails": u.MaxFails, "health_check.unhealthy_after": u.HealthCheck.UnhealthyAfter, "health_check.healthy_after": u.HealthCheck.HealthyAfter} {
		if n < 1 || n > 1000 {
			report(name, "must be between 1 and 1000")
		}
	}
	if u.Tries < 1 || u.Tries > maxTries {
		report("tries", fmt.Sprintf("must be between 1 and %d", maxTries))
	}
	if u.ConnectTimeout <= 0 || u.ConnectTimeout > time.Minute {
		report("connect_timeout", "must be more than 0 and at most 1m")
	}
	if u.FailPause < 100*time.Millisecond || u.FailPause > time.Hour {
		report("fail_pause", "must be between 100ms and 1h")
	}
	u.HealthCheck.check(func(path, problem string) { report("health_check."+path, problem) })
}

func (h *HealthCheckSettings) check(report func(path, problem string)) {
	if h.Path != "" {
		if problem := checkPathProblem(h.Path); problem != "" {
			report("path", problem)
		}
	}
	if h.Interval < 100*time.Millisecond || h.Interval > time.Hour {
		report("interval", "must be between 100ms and 1h")
	}
	if h.Timeout <= 0 || h.Timeout > time.Minute {
		report("timeout", "must be more than 0 and at most 1m")
	}
}

// checkPathProblem wants a path in the form in which it is sent.
func checkPathProblem(path string) string {
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || c == '#' || c == '?' || c == '%' {
			return "must be a plain path, without query and escapes"
		}
	}
	if path[0] != '/' {
		return "must begin with a slash"
	}
	return ""
}
