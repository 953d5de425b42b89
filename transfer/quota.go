package transfer

import (
	"net/http"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// Quota bounds what one user may keep and send; 0 stands for no bound.
type Quota struct {
	Stored   int64 // bytes of all files together, those on their way included
	Daily    int64 // bytes of files that begin on one day (UTC)
	Sessions int   // uploads in parts that are not completed
}

// Usage is what counts against a Quota.
type Usage struct {
	Stored   int64 `json:"stored"`
	Daily    int64 `json:"daily"`
	Sessions int   `json:"sessions"`
}

// Faults of quotas that both ledgers give.
var (
	errQuota    = fault.New(fault.Forbidden, "quota_exceeded", "Your files would take more space than you may use: delete some first.")
	errDaily    = fault.New(fault.Limited, "daily_quota_exceeded", "You have uploaded as much as you may in one day.")
	errSessions = fault.New(fault.Limited, "too_many_sessions", "You have begun too many uploads: complete or abort some first.").After(time.Minute)
)

// check refuses a change of usage that goes beyond q. What does not grow is
// never refused.
func (q Quota) check(old, now Usage) error {
	over := func(old, now, limit int64) bool { return limit > 0 && now > old && now > limit }
	switch {
	case over(old.Stored, now.Stored, q.Stored):
		return errQuota
	case over(old.Daily, now.Daily, q.Daily):
		return tomorrow(errDaily)
	case over(int64(old.Sessions), int64(now.Sessions), int64(q.Sessions)):
		return errSessions
	}
	return nil
}

// tomorrow tells a client to come back on the next day.
func tomorrow(e *fault.Error) error {
	today := now()
	return e.After(today.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(today))
}

// charge is what f counts. What was taken on a day stays taken when the file
// goes, unless it never became one.
func (f File) charge() (u Usage) {
	u.Stored, u.Daily = f.Hold, f.Hold
	if f.wasWhole() {
		u.Stored, u.Daily = f.Size, f.Size
	}
	if f.blocked() {
		u.Stored = 0
	}
	if f.State == Pending && f.inParts() {
		u.Sessions = 1
	}
	return u
}

// lasting is what f counts for its owner when it goes, or has gone to another.
func (f File) lasting() (u Usage) {
	if f.wasWhole() {
		u.Daily = f.Size
	}
	return u
}

// day is the one that an upload counts for, as in 20260102.
func (f File) day() string { return dayOf(f.Created) }

func dayOf(t time.Time) string { return t.UTC().Format("20060102") }

// dayKept is how long days are remembered.
const dayKept = 48 * time.Hour

// quota is that of every user.
func (s *Service) quota() Quota {
	return Quota{int64(s.settings.UserQuota), int64(s.settings.DailyQuota), s.settings.MaxSessions}
}

// usageAnswer is what ServeUsage answers.
type usageAnswer struct {
	Usage
	Limits struct {
		Stored   int64 `json:"stored,omitempty"`
		Daily    int64 `json:"daily,omitempty"`
		Sessions int   `json:"sessions,omitempty"`
		Size     int64 `json:"size"`
	} `json:"limits"`
}

// ServeUsage answers GET /files/usage: how many bytes the caller's files have,
// how many were taken today (UTC), how many uploads in parts are open, and the
// limits of that, where there are any. Errors: 503 files_unavailable.
func (s *Service) ServeUsage(w http.ResponseWriter, r *http.Request) error {
	user, err := caller(r)
	if err != nil {
		return err
	}
	var a usageAnswer
	if a.Usage, err = s.ledger.Usage(r.Context(), user); err != nil {
		return err
	}
	q := s.quota()
	a.Limits.Stored, a.Limits.Daily, a.Limits.Sessions, a.Limits.Size = q.Stored, q.Daily, q.Sessions, int64(s.settings.MaxSize)
	return rest.JSON(w, http.StatusOK, a)
}

// accountOf is who a quota is of.
func accountOf(u auth.User) string { return u.AppID + "/" + u.OpenID }
