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
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// Options are what a Service is made of.
type Options struct {
	Settings Settings
	Store    Store
	Ledger   Ledger
	Metrics  *Metrics
	// Notify, where set, is called when a file has become ready, before the
	// client gets its answer. It must not block.
	Notify func(ctx context.Context, f File)
}

// Service takes and hands out files.
type Service struct {
	settings Settings
	store    Store
	ledger   Ledger
	metrics  *Metrics
	notify   func(context.Context, File)
	uploads  *uploads
	started  time.Time
}

// New makes a Service. Run must be running for it to keep house.
func New(o Options) *Service {
	s := &Service{
		settings: o.Settings, store: o.Store, ledger: o.Ledger, metrics: o.Metrics, notify: o.Notify,
		uploads: newUploads(o.Settings.MaxConcurrent, o.Settings.MaxPerUser),
		started: now(),
	}
	if s.notify == nil {
		s.notify = func(context.Context, File) {}
	}
	return s
}

var errNoSession = fault.New(fault.Unauthenticated, "token_missing", "This needs a login token.")

// caller returns the user of a request that passed auth.Service.Require.
func caller(r *http.Request) (auth.User, error) {
	if s := auth.SessionFrom(r.Context()); s != nil {
		return s.User, nil
	}
	return auth.User{}, errNoSession
}

// owned returns a ready file of the caller. Files of others do not exist for
// them, so that ids tell nothing.
func (s *Service) owned(r *http.Request) (File, error) {
	user, err := caller(r)
	if err != nil {
		return File{}, err
	}
	id := r.PathValue("id")
	if !isID(id) {
		return File{}, errNoFile
	}
	f, err := s.ledger.Get(r.Context(), id)
	if err != nil {
		return File{}, err
	}
	if f.State != Ready || ownerOf(f.Owner) != ownerOf(user) {
		return File{}, errNoFile
	}
	return f, nil
}

// ServeDelete answers DELETE /files/{id}: 204 once the file cannot be read any
// more. Where the storage is away, its bytes go later.
func (s *Service) ServeDelete(w http.ResponseWriter, r *http.Request) error {
	f, err := s.owned(r)
	if err != nil {
		return err
	}
	if f, err = s.ledger.Retire(r.Context(), f.ID, Ready); err != nil {
		return err
	}
	s.removeLater(r.Context(), f)
	w.WriteHeader(http.StatusNoContent)
	return nil
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

// remove removes the bytes and then the record of a retired file.
func (s *Service) remove(ctx context.Context, f File) error {
	if err := s.store.Delete(ctx, f.Key); err != nil {
		return err
	}
	return s.ledger.Forget(ctx, f.ID)
}

// sweepBatch is how many remains one look into the ledger finds.
const sweepBatch = 500

// Run sweeps now and every sweep_interval, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
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

// Sweep removes what has been unfinished for longer than pending_ttl. Nobody
// works on that any more, since no upload may take that long; in a ledger of
// our own neither does anybody on what is older than this process. It is safe
// on several nodes at once.
func (s *Service) Sweep(ctx context.Context) error {
	before := now().Add(-s.settings.PendingTTL - cleanUp)
	if !s.ledger.Shared() && s.started.After(before) {
		before = s.started
	}
	for {
		files, err := s.ledger.Unfinished(ctx, before, sweepBatch)
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
