package transfer

import (
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// maxChannelName is the longest name of a channel that a file may be shared
// with, in bytes, as in the hub.
const maxChannelName = 255

var (
	errChannelName = fault.New(fault.Invalid, "channel_invalid", "channel must be the name of a channel, of at most 255 bytes.")
	errAccessBool  = fault.New(fault.Invalid, "access_invalid", "The parameter public is true or false.")
	errAccessBoth  = fault.New(fault.Invalid, "access_invalid", "A file is public or shared with a channel, not both.")
)

// Access says who, beside its owner, may read a file. The zero value is
// nobody.
type Access struct {
	Public  bool   `json:"public,omitempty"`  // anybody who knows the id, without a login
	Channel string `json:"channel,omitempty"` // whoever is in it while reading
}

// Kinds of access.
const (
	accessPrivate = "private"
	accessPublic  = "public"
	accessChannel = "channel"
)

// kind is what settings call a.
func (a Access) kind() string {
	switch {
	case a.Public:
		return accessPublic
	case a.Channel != "":
		return accessChannel
	}
	return accessPrivate
}

// check finds out whether a can be had.
func (a Access) check() error {
	if a.Public && a.Channel != "" {
		return errAccessBoth
	}
	if len(a.Channel) > maxChannelName {
		return errChannelName
	}
	for i := range len(a.Channel) {
		if a.Channel[i] <= ' ' || a.Channel[i] == 0x7f {
			return errChannelName
		}
	}
	return nil
}

// TTLSettings say how long files are kept, by who may read them.
type TTLSettings struct {
	Private time.Duration `yaml:"private" default:"0s" doc:"How long files are kept that only their owner may read; 0 keeps them."`
	Public  time.Duration `yaml:"public" default:"0s" doc:"How long public files are kept; 0 keeps them."`
	Channel time.Duration `yaml:"channel" default:"0s" doc:"How long files are kept that are shared with a channel; 0 keeps them."`
}

// of is how long files with this access are kept, 0 for ever.
func (t TTLSettings) of(a Access) time.Duration {
	switch a.kind() {
	case accessPublic:
		return t.Public
	case accessChannel:
		return t.Channel
	}
	return t.Private
}

// setAccess gives f an access and, counted from its upload, the end that files
// with that access have. An upload in parts counts from when it is completed.
func (s *Service) setAccess(f *File, a Access) {
	f.Access, f.Expires = a, time.Time{}
	from := f.Created
	if f.inParts() && f.kept() {
		from = f.Changed
	}
	if ttl := s.settings.TTL.of(a); ttl > 0 {
		f.Expires = from.Add(ttl)
	}
}
