package transfer

import "time"

// resumeTime is how long after the last counted download by a link other parts
// of the file may be read by it, to go on where that one broke off.
const resumeTime = 10 * time.Minute

// Spending is a download by a link that is good for a number of them. Only
// one that begins at the first byte counts.
type Spending struct {
	Link  string    // its id
	Most  int       // downloads it is good for
	First bool      // the download begins at the first byte
	Until time.Time // when the link ends
}

// spent is what is kept of a link.
type spent struct {
	count int
	last  time.Time // of the last that was counted
}

// spend is the rule of both ledgers; the one in Redis has it in Lua.
func (d Spending) spend(s spent, now time.Time) (spent, bool) {
	switch {
	case !d.First:
		return s, s.count > 0 && now.Sub(s.last) <= resumeTime
	case s.count >= d.Most:
		return s, false
	}
	return spent{s.count + 1, now}, true
}
