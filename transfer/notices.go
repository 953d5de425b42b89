package transfer

import (
	"context"
	"log/slog"
	"time"

	"github.com/minigate/minigate/auth"
)

// What users hear of files over their sockets. It is news while it is fresh, and
// no record: a notice is given once, from memory, and one that cannot be given
// in time is counted as lost. Whoever has to know asks, or is the backend, which
// has webhooks.files.

const (
	// NoticeType is what every Notice says it is, among all that travels to users.
	NoticeType = "minigate.file"
	// FileShared is the event that the members of a channel hear of.
	FileShared = "file_shared"

	maxNotices    = 1000            // that wait
	noticeTimeout = 2 * time.Second // for one of them
)

// NotifySettings say what users hear of files over their sockets.
type NotifySettings struct {
	Owner   bool `yaml:"owner" default:"true" doc:"Tell users in their personal channels of files of theirs that have become ready or were blocked."`
	Channel bool `yaml:"channel" default:"false" doc:"Publish in a channel what files are shared with it. They count in its history like all that is published there."`
}

// Notice is what a user, or the members of a channel, are told about a file.
type Notice struct {
	Type  string     `json:"type"` // NoticeType
	Event string     `json:"event"`
	File  NoticeFile `json:"file"`

	// Who is told: User, where Channel is "".
	User    auth.User `json:"-"`
	Channel string    `json:"-"`
}

// NoticeFile is a file as an upload is answered, and what others see of it. It
// has nothing that the backend attached.
type NoticeFile struct {
	uploaded
	Owner   string `json:"owner"`             // openid
	Channel string `json:"channel,omitempty"` // that it is shared with
}

// userEvents are the states of which the owner of a file hears.
var userEvents = map[State]string{Ready: FileReady, Blocked: FileBlocked}

// tellUsers is for a file that has got the state that it is in now. It tells the
// owner, and where others may read the file the members of its channel. It never
// waits.
func (s *Service) tellUsers(f File) {
	if event := userEvents[f.State]; event != "" && s.settings.Notify.Owner {
		s.queueNotice(event, f, "")
	}
	s.tellChannel(f)
}

// tellChannel tells the members of the channel of f, if any, that they may read
// it now.
func (s *Service) tellChannel(f File) {
	if f.State == Ready && s.settings.Notify.Channel && f.Access.Channel != "" {
		s.queueNotice(FileShared, f, f.Access.Channel)
	}
}

func (s *Service) queueNotice(event string, f File, channel string) {
	if s.notify == nil {
		return
	}
	n := Notice{
		Type: NoticeType, Event: event, User: f.Owner, Channel: channel,
		File: NoticeFile{s.answerOf(f), f.Owner.OpenID, f.Access.Channel},
	}
	select {
	case s.notices <- n:
	default:
		s.metrics.notices.WithLabelValues("lost").Inc() // an engine that hangs; the log is full of that already
	}
}

// giveNotices gives notices in their order until ctx ends.
func (s *Service) giveNotices(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-s.notices:
			s.giveNotice(ctx, n)
		}
	}
}

func (s *Service) giveNotice(ctx context.Context, n Notice) {
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	if err := s.notify(ctx, n); err != nil {
		s.metrics.notices.WithLabelValues("lost").Inc()
		slog.WarnContext(ctx, "users were not told of a file", "file", n.File.ID, "event", n.Event, "channel", n.Channel, "error", err)
		return
	}
	s.metrics.notices.WithLabelValues("given").Inc()
}
