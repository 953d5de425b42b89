// Package transfer is the file side of minigate: what wx.uploadFile sends is
// checked and streamed into a [Store], entered in a [Ledger], and handed out
// again to wx.downloadFile.
//
// An upload is reserved in the ledger before its first byte is stored, and
// committed after its last one is durable. Between the two nothing can be read
// under its id, and if it never gets to the commit, because the client, the
// storage or this process went away, the sweeper removes what is left.
package transfer

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/sync/singleflight"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/webhook"
)

// Options are what a Service is made of.
type Options struct {
	Settings Settings
	Store    Store
	Ledger   Ledger
	Metrics  *Metrics
	// Webhook and Webhooks, where the first names an endpoint, ask the backend
	// at each upload.
	Webhook  WebhookSettings
	Webhooks *webhook.Client
	// DownloadWebhook, where it names an endpoint, asks at each download.
	DownloadWebhook DownloadWebhookSettings
	// Tell, where set, passes news of files on. Once it has returned nil they
	// have to be safe; after an error they are told again later, with the same
	// Delivery.
	Tell func(ctx context.Context, n News) error
	// Notify, where set, tells users of files while they are connected. It is
	// called by Run, one notice after the other; an error means that this one is
	// lost.
	Notify func(ctx context.Context, n Notice) error
	// SignLink makes a link to a file.
	SignLink func(l auth.Link) string
	// Member tells whether a user is in a channel now; ctx is that of the user's
	// request, or of one with a link that stands for the user. nil: nobody is.
	Member func(ctx context.Context, user auth.User, channel string) (bool, error)
	// WeChat returns the client of a mini-program, nil where there is none. It is
	// needed where files.check.wechat is on.
	WeChat func(appID string) *wechat.Client
	// CheckWebhook, where it names an endpoint, asks about what is in each file.
	CheckWebhook CheckWebhookSettings
	// Ticket, where set, makes what may go on with an upload for ttl in the
	// place of the login that ctx is of.
	Ticket func(ctx context.Context, upload string, ttl time.Duration) string
}

// Service takes and hands out files.
type Service struct {
	settings Settings
	store    Store
	ledger   Ledger
	metrics  *Metrics
	hook     *uploadHook // nil: nobody is asked
	tell     func(context.Context, News) error
	notify   func(context.Context, Notice) error // nil: nobody listens
	notices  chan Notice
	signLink func(l auth.Link) string
	member   func(ctx context.Context, user auth.User, channel string) (bool, error) // nil: nobody is
	ticket   func(ctx context.Context, upload string, ttl time.Duration) string
	direct   *direct // nil: the storage is not one that phones could reach
	uploads  *uploads
	started  time.Time

	downloadHook *downloadHook // nil: nobody is asked
	thumbs       *thumbs
	checks       *checks // without checkers where nobody looks

	compared   time.Time          // when storage and ledger were; compareUntil's own
	beginning  singleflight.Group // by account, way and key of the upload
	completing singleflight.Group // by id of the upload
	chunked    singleflight.Group // by account and identifier of miniprogram-file-uploader

	held *buffers // pieces of uploads over tus
	tus  *handler.UnroutedHandler
}

// New makes a Service. Run must be running for it to keep house.
func New(o Options) (*Service, error) {
	hook, err := newUploadHook(o.Webhook, o.Webhooks, o.Metrics)
	if err != nil {
		return nil, err
	}
	downloadHook, err := newDownloadHook(o.DownloadWebhook, o.Webhooks, o.Metrics)
	if err != nil {
		return nil, err
	}
	s := &Service{
		settings: o.Settings, store: o.Store, ledger: o.Ledger, metrics: o.Metrics,
		hook: hook, tell: o.Tell, notify: o.Notify, notices: make(chan Notice, maxNotices), signLink: o.SignLink, member: o.Member,
		downloadHook: downloadHook, thumbs: newThumbs(o.Settings.Thumbnails),
		ticket: o.Ticket, direct: newDirect(o.Store, o.Settings.S3.Direct, o.Metrics),
		uploads: newUploads(o.Settings.MaxConcurrent, o.Settings.MaxPerUser),
		started: now(),
		held:    newBuffers(int64(o.Settings.BufferBudget)),
	}
	if s.checks, err = newChecks(s, o); err != nil {
		return nil, err
	}
	s.tus, err = newTus(s)
	return s, err
}

var errNoSession = fault.New(fault.Unauthenticated, "token_missing", "This needs a login token.")

// caller returns the user of a request that passed auth.Service.Require.
func caller(r *http.Request) (auth.User, error) {
	if s := auth.SessionFrom(r.Context()); s != nil {
		return s.User, nil
	}
	return auth.User{}, errNoSession
}

// owned returns a file of the caller. Files of others do not exist for
// them, so that ids tell nothing.
func (s *Service) owned(r *http.Request) (File, error) {
	user, err := caller(r)
	if err != nil {
		return File{}, err
	}
	f, err := s.find(r.Context(), r.PathValue("id"))
	if err == nil && ownerOf(f.Owner) != ownerOf(user) {
		err = errNoFile
	}
	return f, err
}

// ready returns a file that can be downloaded.
func (s *Service) ready(ctx context.Context, id string) (File, error) {
	f, err := s.find(ctx, id)
	if err == nil {
		err = grant{file: f}.withheld()
	}
	return f, err
}

// find returns a file that is kept, and whose time is not over.
func (s *Service) find(ctx context.Context, id string) (File, error) {
	if !isID(id) {
		return File{}, errNoFile
	}
	f, err := s.ledger.Get(ctx, id)
	if err == nil && (!f.kept() || !f.Expires.IsZero() && !now().Before(f.Expires)) {
		err = errNoFile
	}
	return f, err
}

// ServeDelete answers DELETE /files/{id}: 204 once the file cannot be read any
// more. Where the storage is away, its bytes go later.
func (s *Service) ServeDelete(w http.ResponseWriter, r *http.Request) error {
	f, err := s.owned(r)
	if err != nil {
		return err
	}
	if err := s.delete(r.Context(), f.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// delete ends a file. Where the storage is away, its bytes go later.
func (s *Service) delete(ctx context.Context, id string) error {
	f, err := s.ledger.Retire(ctx, id, Ready, Checking, Blocked)
	if err == nil {
		s.removeLater(ctx, f)
	}
	return err
}

// removeLater removes a retired file even if ctx has ended. What fails here
// is left to the sweeper.
func (s *Service) removeLater(ctx context.Context, f File) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	if err := s.remove(ctx, f); err != nil {
		slog.WarnContext(ctx, "file is removed later", "file", f.ID, "error", err)
	}
}

// remove removes the bytes and then the record of a retired file. What has to be
// known of its end is told first; the bytes need not wait for it.
func (s *Service) remove(ctx context.Context, f File) error {
	var told error
	switch {
	case s.tell == nil || !f.wasWhole():
	case !f.blocked():
		told = s.tell(ctx, newsOf(FileDeleted, f))
	case f.Owed: // else it is known that nobody reads it any more
		told = s.tell(ctx, newsOf(FileBlocked, f))
	}
	if err := errors.Join(told, s.removeBytes(ctx, f)); err != nil {
		return err
	}
	return s.ledger.Forget(ctx, f.ID)
}

// removeBytes removes all that the storage has of a file. It may be repeated.
func (s *Service) removeBytes(ctx context.Context, f File) error {
	if f.Session.Upload != "" {
		if err := s.store.Abort(ctx, f.Key, f.Session.Upload); err != nil {
			return err
		}
	}
	beside := tusKeys(f)
	if f.posted() {
		beside = append(beside, f.postKey())
	}
	for _, key := range beside {
		if err := s.store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return errors.Join(s.deleteThumbs(ctx, f), s.store.Delete(ctx, f.Key))
}

// sweepBatch is how many remains one look into the ledger finds.
const sweepBatch = 500

// Run sweeps now and every sweep_interval, until ctx ends. Meanwhile it tries
// whether the storage takes direct uploads, looks at what is in files, tells
// users of them, and compares them with what is stored.
func (s *Service) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.direct.tryUntil(ctx) })
	beside.Go(func() { s.giveNotices(ctx) })
	beside.Go(func() { s.checkUntil(ctx) })
	beside.Go(func() { s.compareUntil(ctx) })
	tick := time.NewTicker(s.settings.SweepInterval)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "remains of uploads are swept later", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep sends news that are still owed, deletes files whose time is over, ends
// deletions that stopped half way, and removes uploads that have been
// unfinished for longer than pending_ttl, and sessions that have expired. Nobody
// works on any of that any more, since none of it may take that long; in a ledger
// of our own neither does anybody on what is older than this process. Where files
// are not checked any more it lets go on what waits for that; else checkUntil
// does, and may have a lot to do. It is safe on several nodes at once.
func (s *Service) Sweep(ctx context.Context) error {
	err := errors.Join(
		s.sweepOwed(ctx),
		s.sweepExpired(ctx),
		s.sweepUnfinished(ctx, Deleting, 2*cleanUp),
		s.sweepUnfinished(ctx, Pending, s.settings.PendingTTL+cleanUp),
		s.sweepSessions(ctx),
	)
	if !s.checks.on() {
		err = errors.Join(err, s.sweepChecks(ctx))
	}
	return err
}

// longAgo is when what nobody works on any more began to be so, of what takes
// at most so long.
func (s *Service) longAgo(most time.Duration) time.Time {
	before := now().Add(-most)
	if !s.ledger.Shared() && s.started.After(before) {
		before = s.started
	}
	return before
}

// sweepUnfinished removes what has been in a state for longer than most.
func (s *Service) sweepUnfinished(ctx context.Context, state State, most time.Duration) error {
	before := s.longAgo(most)
	return s.sweepAll(ctx, func() ([]File, error) { return s.ledger.Unfinished(ctx, before, sweepBatch, state) })
}

// sweepAll removes all that look finds, sweepBatch at a time.
func (s *Service) sweepAll(ctx context.Context, look func() ([]File, error)) error {
	for {
		files, err := look()
		if err != nil {
			return err
		}
		var failures []error
		for _, f := range files {
			if err := s.sweep(ctx, f); err != nil {
				failures = append(failures, err)
			}
		}
		if len(failures) > 0 || len(files) < sweepBatch {
			return errors.Join(failures...)
		}
	}
}

func (s *Service) sweep(ctx context.Context, f File) error {
	if f.State == Pending && f.Session.Way == WayDirect {
		if confirmed, err := s.confirmExpired(ctx, f); confirmed || err != nil {
			return err
		}
	}
	f, err := s.ledger.Retire(ctx, f.ID, Pending)
	if errors.Is(err, errFileState) || errors.Is(err, errNoFile) {
		return nil // finished meanwhile, or swept by another node
	}
	if err == nil {
		err = s.remove(ctx, f)
	}
	if err == nil {
		s.metrics.swept.Inc()
	}
	return err
}
