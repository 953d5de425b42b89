package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/transfer/thumb"
)

const (
	maxThumbs    = 16               // of one file that are kept
	maxThumbSize = 16 << 20         // bytes of one that was kept
	thumbTime    = 20 * time.Second // for making one, its picture's way from the storage included
)

var (
	errThumbsOff  = fault.New(fault.Invalid, "thumbnails_off", "There are no thumbnails here: ask without w, h and fit.")
	errThumbQuery = fault.New(fault.Invalid, "thumbnail_invalid", "w and h are numbers of pixels; fit is contain, or cover with both of them.")
	errThumbType  = fault.New(fault.Unsupported, "thumbnail_unsupported", "There are no thumbnails of this file.")
	errThumbLarge = fault.New(fault.TooLarge, "picture_too_large", "The picture is too large for a thumbnail.")
	errThumbBusy  = fault.New(fault.Unavailable, "thumbnails_busy", "Too many thumbnails are being made: try again.").After(2 * time.Second)
	errThumbSlow  = fault.New(fault.Unavailable, "thumbnail_slow", "The thumbnail could not be made in time.").After(10 * time.Second)
)

// ThumbnailSettings are those of small versions of pictures.
type ThumbnailSettings struct {
	Enabled   bool          `yaml:"enabled" default:"false" doc:"Make thumbnails of JPEG, PNG and WebP pictures where a download asks for them (?w=&h=&fit=). Pictures are decoded in this process."`
	MaxEdge   int           `yaml:"max_edge" default:"1920" doc:"The largest w and h, in pixels, at most 8192."`
	MaxPixels int           `yaml:"max_pixels" default:"25000000" doc:"The largest picture that is decoded, width times height. Each worker may need up to 16 bytes of memory for each pixel."`
	MaxSize   settings.Size `yaml:"max_size" default:"32MiB" doc:"The largest file that is decoded."`
	Workers   int           `yaml:"workers" default:"2" doc:"How many thumbnails this node makes at the same time, each on one CPU."`
	Queue     int           `yaml:"queue" default:"32" doc:"How many more may wait for that before it answers 503."`
}

// Check reports settings that cannot work.
func (s *ThumbnailSettings) Check(report func(path, problem string)) {
	if s.MaxEdge < 1 || s.MaxEdge > 8192 {
		report("max_edge", "must be between 1 and 8192")
	}
	for path, n := range map[string]int{"max_pixels": s.MaxPixels, "workers": s.Workers} {
		if n <= 0 {
			report(path, "must be more than 0")
		}
	}
	if s.Queue < 0 {
		report("queue", "must not be negative")
	}
	if s.MaxSize <= 0 {
		report("max_size", "must be more than 0")
	}
}

// thumbs makes thumbnails, so many at a time and each once.
type thumbs struct {
	ThumbnailSettings
	making  singleflight.Group
	workers chan struct{}
	inside  atomic.Int64 // that are made or wait
}

func newThumbs(s ThumbnailSettings) *thumbs {
	return &thumbs{ThumbnailSettings: s, workers: make(chan struct{}, max(s.Workers, 1))}
}

// enter waits for a worker; leave must be called at the end of its work.
func (t *thumbs) enter(ctx context.Context) (leave func(), err error) {
	if t.inside.Add(1) > int64(t.Workers+t.Queue) {
		t.inside.Add(-1)
		return nil, errThumbBusy
	}
	select {
	case t.workers <- struct{}{}:
		return func() { <-t.workers; t.inside.Add(-1) }, nil
	case <-ctx.Done():
		t.inside.Add(-1)
		return nil, context.Cause(ctx)
	}
}

// wantsThumb tells whether a download asks for a thumbnail.
func wantsThumb(r *http.Request) bool {
	if r.URL.RawQuery == "" {
		return false
	}
	q := r.URL.Query()
	return q.Has("w") || q.Has("h") || q.Has("fit")
}

// variant reads which thumbnail a query asks for.
func (t *thumbs) variant(q url.Values) (v thumb.Variant, err error) {
	v.Fit = thumb.Contain
	for name, n := range map[string]*int{"w": &v.Width, "h": &v.Height} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		if *n, err = strconv.Atoi(text); err != nil || !digits(text) || *n < 1 || *n > t.MaxEdge {
			return v, errThumbQuery
		}
	}
	if q.Has("fit") {
		v.Fit = thumb.Fit(q.Get("fit"))
	}
	both, one := v.Width > 0 && v.Height > 0, v.Width > 0 || v.Height > 0
	if v.Fit == thumb.Cover && both || v.Fit == thumb.Contain && one {
		return v, nil
	}
	return v, errThumbQuery
}

// thumbnail is one that was made.
type thumbnail struct {
	data  []byte
	media string
}

// serveThumb answers a download that asks for a thumbnail (?w=&h=&fit=), at most
// as large as that, with a JPEG, or a PNG where something shows through. Ranges
// are not taken.
//
// Errors, beside those of ServeDownload: 400 thumbnails_off, thumbnail_invalid,
// 413 picture_too_large, 415 thumbnail_unsupported, 503 thumbnails_busy,
// thumbnail_slow.
func (s *Service) serveThumb(w http.ResponseWriter, r *http.Request, g grant) error {
	f := g.file
	if !s.thumbs.Enabled {
		return errThumbsOff
	}
	v, err := s.thumbs.variant(r.URL.Query())
	if err != nil {
		return err
	}
	if !thumb.Reads(f.Type) {
		return errThumbType
	}
	if f.Size > int64(s.thumbs.MaxSize) {
		return errThumbLarge
	}
	if done, err := s.conditions(w, r, g, f.etag(v.String())); done || err != nil {
		return err
	}
	counts := r.Method == http.MethodGet
	if counts {
		if err := s.maySpend(r.Context(), g, true); err != nil {
			return err
		}
	}
	small, err := s.thumb(r.Context(), f, v)
	if err == nil && counts {
		err = s.spend(r.Context(), g, true)
	}
	if err != nil {
		return err
	}
	describe(w.Header(), File{Name: thumbName(f.Name, small.media), Type: small.media, Size: int64(len(small.data))}, byteRange{length: int64(len(small.data))})
	w.Header().Del("Accept-Ranges")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if err := s.copy(w, bytes.NewReader(small.data), int64(len(small.data))); err != nil {
		panic(http.ErrAbortHandler) // the client is gone, or stalls
	}
	return nil
}

// thumbName is a file's name with the extension of what is sent.
func thumbName(name, media string) string {
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		name = name[:dot]
	}
	if media == "image/png" {
		return name + ".png"
	}
	return name + ".jpg"
}

// thumb returns a thumbnail that was kept, or makes it. What one caller began is
// ended for all who wait, also if the one has left.
func (s *Service) thumb(ctx context.Context, f File, v thumb.Variant) (thumbnail, error) {
	key := f.Key + "~" + v.String()
	made, err, _ := s.thumbs.making.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), thumbTime, errThumbSlow)
		defer cancel()
		f, err := s.ready(ctx, f.ID) // which may have got it since we looked; one that is being checked has none
		if err != nil {
			return nil, err
		}
		if slices.Contains(strings.Fields(f.Thumbs), v.String()) {
			kept, err := s.keptThumb(ctx, key)
			if !errors.Is(err, errNoObject) {
				return kept, err
			}
		}
		return s.makeThumb(ctx, f, v, key)
	})
	if err != nil {
		return thumbnail{}, err
	}
	return made.(thumbnail), nil
}

func (s *Service) keptThumb(ctx context.Context, key string) (thumbnail, error) {
	content, err := s.store.Open(ctx, key, 0, -1)
	if err != nil {
		return thumbnail{}, err
	}
	defer func() { _ = content.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(content, maxThumbSize))
	if err != nil {
		return thumbnail{}, errStoreAway.Because(err)
	}
	s.metrics.thumbs.WithLabelValues("kept").Inc()
	media := "image/jpeg"
	if bytes.HasPrefix(data, []byte("\x89PNG")) {
		media = "image/png"
	}
	return thumbnail{data, media}, nil
}

func (s *Service) makeThumb(ctx context.Context, f File, v thumb.Variant, key string) (t thumbnail, err error) {
	result := "made"
	defer func() { s.metrics.thumbs.WithLabelValues(result).Inc() }()
	leave, err := s.thumbs.enter(ctx)
	if err != nil {
		result = "busy"
		return t, err
	}
	defer leave()
	content, err := s.store.Open(ctx, f.Key, 0, -1)
	if err == nil {
		t.data, t.media, err = thumb.Make(ctx, content, f.Type, v, s.thumbs.MaxPixels)
		_ = content.Close() // only read
	}
	if err != nil {
		result = "failed"
		return t, thumbFault(err)
	}
	if err := s.keepThumb(ctx, f, v, key, t.data); err != nil {
		slog.WarnContext(ctx, "a thumbnail is made again the next time", "file", f.ID, "error", err)
	}
	return t, nil
}

func thumbFault(err error) error {
	switch {
	case errors.Is(err, thumb.ErrLarge):
		return errThumbLarge.Because(err)
	case errors.Is(err, thumb.ErrFormat):
		return errThumbType.Because(err)
	case errors.Is(err, errNoObject):
		return errLost.Because(err)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return errStoreAway.Because(err)
}

// errThumbsFull ends the keeping of thumbnails of one file; more are made each
// time.
var errThumbsFull = errors.New("the file has as many thumbnails as are kept")

// keepThumb stores a thumbnail. The file's record names it before it is there, so
// that it goes with the file.
func (s *Service) keepThumb(ctx context.Context, f File, v thumb.Variant, key string, data []byte) error {
	_, err := s.ledger.Amend(ctx, f.ID, func(f *File) error {
		if f.State != Ready {
			return errFileState
		}
		kept := strings.Fields(f.Thumbs)
		switch {
		case slices.Contains(kept, v.String()):
			return nil
		case len(kept) >= maxThumbs:
			return errThumbsFull
		}
		f.Thumbs = strings.Join(append(kept, v.String()), " ")
		return nil
	})
	if errors.Is(err, errThumbsFull) || errors.Is(err, errNoFile) || errors.Is(err, errFileState) {
		return nil // or deleted meanwhile
	}
	if err != nil {
		return err
	}
	_, err = s.store.Put(ctx, key, bytes.NewReader(data), int64(len(data)))
	if err != nil && !errors.Is(err, errObjectTaken) { // by another node
		return err
	}
	if now, err := s.ledger.Get(ctx, f.ID); err == nil && now.State == Ready {
		return nil
	}
	return s.store.Delete(ctx, key)
}

// deleteThumbs deletes the thumbnails of a file that is being deleted.
func (s *Service) deleteThumbs(ctx context.Context, f File) error {
	var errs []error
	for _, v := range strings.Fields(f.Thumbs) {
		errs = append(errs, s.store.Delete(ctx, f.Key+"~"+v))
	}
	return errors.Join(errs...)
}
