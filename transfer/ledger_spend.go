package transfer

import "time"

// resumeTime is how long after the last download by a link that was let through
// other parts of the file may be read by it, to go on where that one broke off.
const resumeTime = 10 * time.Minute

// Spending is a download by a link that is good for a number of them. Only
// one that begins at the first byte counts.
type Spending struct {
	Link  string    // its id
	Most  int       // downloads it is good for
	First bool      // the download begins at the first byte
	Look  bool      // only tell whether it may be: nothing changes
	At    time.Time // when
	Until time.Time // when the link ends
}

// spent is what is kept of a link.
type spent struct {
	count int
	last  time.Time // of the last that was let through
}

// spend is the rule of both ledgers; the one in Redis has it in Lua.
func (d Spending) spend(s spent) (_ spent, ok bool) {
	if d.First {
		ok = s.count < d.Most
	} else {
		ok = s.count > 0 && d.At.Sub(s.last) <= resumeTime
	}
	if !ok || d.Look {
		return s, ok
	}
	if d.First {
		s.count++
	}
	s.last = d.At
	return s, true
}
