package auth

import (
	"sync"

	"golang.org/x/time/rate"

	"github.com/minigate/minigate/internal/fault"
)

var errUserRate = fault.New(fault.Limited, "user_rate", "Too many requests of this kind from this user: try again later.")

// userLimits bound what one user may ask of WeChat's secrets, per node.
type userLimits struct {
	rate  rate.Limit
	burst int

	mu    sync.Mutex
	users recent[User, *rate.Limiter]
}

func newUserLimits(s OpenDataSettings) *userLimits {
	return &userLimits{rate: rate.Limit(s.Rate), burst: s.Burst, users: newRecent[User, *rate.Limiter](maxLimited)}
}

// take answers `user_rate` with the time to wait where the user has spent his
// share.
func (l *userLimits) take(user User) error {
	if l.rate == 0 {
		return nil
	}
	user.UnionID = "" // it may appear later
	l.mu.Lock()
	limiter, ok := l.users.get(user)
	if !ok {
		limiter = rate.NewLimiter(l.rate, l.burst)
		l.users.put(user, limiter)
	}
	l.mu.Unlock()
	return takeFrom(limiter, errUserRate)
}
