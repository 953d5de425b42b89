package auth

import (
	"context"
	"sync"
	"time"
)

// maxUsedTickets bounds what usedTickets holds, about 16 MiB. At ten minutes
// per ticket that is more than 400 handshakes a second.
const maxUsedTickets = 1 << 18

// UseTicket implements Store. Used tickets are in memory only: a restart
// forgets them, so that one of the last ten minutes could be used once more.
func (f *FileStore) UseTicket(ctx context.Context, id TicketID, expires time.Time) (first bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return f.used.add(id, expires, time.Now())
}

// usedTickets is a set whose members leave when they expire. The zero value is
// empty.
type usedTickets struct {
	mu    sync.Mutex
	until map[TicketID]time.Time
	sweep time.Time // when to look next for members that expired
}

const usedSweepEvery = 10 * time.Second

// add reports whether id is new. A full set refuses: to forget a member would
// let it be used again.
func (u *usedTickets) add(id TicketID, expires, now time.Time) (first bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !now.Before(u.sweep) {
		u.sweep = now.Add(usedSweepEvery)
		for old, until := range u.until {
			if !now.Before(until) {
				delete(u.until, old)
			}
		}
	}
	if _, used := u.until[id]; used {
		return false, nil
	}
	if len(u.until) >= maxUsedTickets {
		return false, errTicketsBusy.After(usedSweepEvery)
	}
	if u.until == nil {
		u.until = make(map[TicketID]time.Time)
	}
	u.until[id] = expires
	return true, nil
}
