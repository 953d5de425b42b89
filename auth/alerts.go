package auth

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/minigate/minigate/auth/wechat"
)

// Alert is a mistake in how a mini-program is set up, which only an operator
// can mend. It lasts until WeChat accepts the same call.
type Alert struct {
	AppID string    `json:"appid"`
	API   string    `json:"api"`          // which call WeChat refused
	Code  int       `json:"code"`         // WeChat's errcode
	Cause string    `json:"cause"`        // in plain words
	IP    string    `json:"ip,omitempty"` // our address, where WeChat does not let it in (errcode 40164)
	RID   string    `json:"rid"`          // WeChat's id of the latest refused call, for its support
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`  // when it was seen last
	Count int       `json:"count"` // how often it was seen
}

// alerts are what this node knows to be set up wrongly: at most one for each
// mini-program, API and known errcode.
type alerts struct {
	metrics *Metrics

	mu   sync.Mutex
	open map[alertKey]*Alert
}

type alertKey struct {
	appID, api string
	code       int
}

func newAlerts(m *Metrics) *alerts { return &alerts{metrics: m, open: make(map[alertKey]*Alert)} }

// Alerts lists what operators have to mend, the oldest first. Each node knows
// what it met itself.
func (s *Service) Alerts() []Alert {
	s.alerts.mu.Lock()
	defer s.alerts.mu.Unlock()
	list := make([]Alert, 0, len(s.alerts.open))
	for _, a := range s.alerts.open {
		list = append(list, *a)
	}
	slices.SortFunc(list, func(a, b Alert) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.Code, b.Code))
	})
	return list
}

// observe learns how a call to WeChat ended. Any answer but a mistake in the
// set-up proves that there is none now; no answer proves nothing.
func (a *alerts) observe(appID, api string, err error) {
	said := refusal(err)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil || said.Code > 0 && !errors.Is(err, wechat.ErrConfig):
		a.clear(appID, api)
	case said.Code > 0:
		a.raise(alertKey{appID, api, said.Code}, said)
	}
}

// refusal is what WeChat said; its Code is 0 where it said nothing and -1
// where it was too busy.
func refusal(err error) wechat.Error {
	if e, ok := errors.AsType[*wechat.Error](err); ok {
		return *e
	}
	return wechat.Error{}
}

// raise opens an alert or brings it up to date. a.mu is held.
func (a *alerts) raise(key alertKey, said wechat.Error) {
	now := time.Now()
	alert, known := a.open[key]
	if !known {
		alert = &Alert{AppID: key.appID, API: key.api, Code: key.code, Since: now}
		a.open[key] = alert
		a.count(key)
		slog.Error("wechat refuses a mini-program for how it is set up",
			"appid", key.appID, "api", key.api, "errcode", key.code, "cause", said.Hint, "rid", said.RID)
	}
	alert.Cause, alert.IP, alert.RID = said.Hint, said.IP, said.RID
	alert.Last, alert.Count = now, alert.Count+1
}

// clear ends the alerts of one API. a.mu is held.
func (a *alerts) clear(appID, api string) {
	for key := range a.open {
		if key.appID == appID && key.api == api {
			delete(a.open, key)
			a.count(key)
			slog.Info("wechat accepts the mini-program again", "appid", appID, "api", api, "errcode", key.code)
		}
	}
}

// count sets the metric, which does not tell APIs apart. a.mu is held.
func (a *alerts) count(changed alertKey) {
	n := 0.0
	for key := range a.open {
		if key.appID == changed.appID && key.code == changed.code {
			n = 1
		}
	}
	a.metrics.alerts.WithLabelValues(changed.appID, strconv.Itoa(changed.code)).Set(n)
}
