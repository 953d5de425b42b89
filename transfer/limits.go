package transfer

import (
	"sync"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

var errManyUploads = fault.New(fault.Limited, "too_many_uploads", "You are uploading too many files at the same time.").After(2 * time.Second)

// owner is who counts as one user.
type owner struct{ appID, openID string }

func ownerOf(u auth.User) owner { return owner{u.AppID, u.OpenID} }

// uploads are the uploads under way on this node.
type uploads struct {
	max, maxPerUser int

	mu     sync.Mutex
	total  int
	byUser map[owner]int
}

func newUploads(limit, perUser int) *uploads {
	return &uploads{max: limit, maxPerUser: perUser, byUser: map[owner]int{}}
}

// enter lets an upload in; leave must be called at its end.
func (u *uploads) enter(who owner) (leave func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byUser[who] >= u.maxPerUser {
		return nil, errManyUploads
	}
	if u.total >= u.max {
		return nil, errBusy
	}
	u.total++
	u.byUser[who]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.total--
		if u.byUser[who]--; u.byUser[who] == 0 {
			delete(u.byUser, who)
		}
	}, nil
}
