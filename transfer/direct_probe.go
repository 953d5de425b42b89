package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// probePause is how long a storage is left alone that could not be asked.
	probePause = 10 * time.Second
	probeTime  = 30 * time.Second // that one try may take
	probeType  = "text/plain"
	tornSize   = 512 << 10 // bytes of a part that breaks off: more than stays in buffers of ours
)

// direct is what is known of a storage that phones can send to.
type direct struct {
	s3      *S3
	wanted  bool
	metrics *Metrics
	// Whether it takes forms and parts, and nothing else than was signed. False
	// until that was tried.
	form, parts atomic.Bool
}

// newDirect returns nil where the store is not one that could be sent to. Where
// it is not wanted, what was reserved before can still be confirmed.
func newDirect(store Store, wanted bool, m *Metrics) *direct {
	for _, mode := range []string{ModeForm, ModeParts} {
		m.direct.WithLabelValues(mode).Set(0)
	}
	s3, ok := store.(*S3)
	if !ok {
		return nil
	}
	return &direct{s3: s3, wanted: wanted, metrics: m}
}

// tryUntil tries the storage until it has answered, or ctx ends.
func (d *direct) tryUntil(ctx context.Context) {
	if d == nil || !d.wanted {
		return
	}
	for {
		err := d.try(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		slog.WarnContext(ctx, "direct uploads come through the gateway until the storage has been tried", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(probePause):
		}
	}
}

// try finds out what the storage takes: not what it says, but what it does with
// a few bytes. An error means that it could not be asked.
func (d *direct) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	p := &probe{S3: d.s3, key: pendingPrefix + "probe-" + rand.Text()}
	defer p.clean(ctx)
	for _, one := range []struct {
		mode string
		try  func(context.Context) error
		can  *atomic.Bool
	}{{ModeForm, p.form, &d.form}, {ModeParts, p.parts, &d.parts}} {
		err := one.try(ctx)
		if errors.Is(err, errStoreAway) || ctx.Err() != nil {
			return err
		}
		one.can.Store(err == nil)
		if err == nil {
			d.metrics.direct.WithLabelValues(one.mode).Set(1)
			slog.InfoContext(ctx, "the storage takes direct uploads", "mode", one.mode)
		} else {
			slog.WarnContext(ctx, "the storage cannot take direct uploads safely: they come through the gateway", "mode", one.mode, "because", err)
		}
	}
	return nil
}

// probe tries a storage with a few bytes. It goes to the endpoint that we use
// ourselves: whether phones reach the other one nobody here can know.
type probe struct {
	*S3
	key string
}

func (p *probe) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	for _, key := range []string{p.key, p.key + "-else", p.key + "-parts", p.key + "-copy"} {
		if err := p.Delete(ctx, key); err != nil {
			slog.WarnContext(ctx, "a few bytes stay in the storage", "key", key, "error", err)
			return
		}
	}
}

// form tries a policy: it has to be kept to, and what it lets in to be copied
// without being replaced.
func (p *probe) form(ctx context.Context) error {
	form, err := signForm(ctx, p.core.Client, p.settings.Bucket, p.key, probeType, 3, time.Now().Add(time.Minute))
	if err != nil {
		return err
	}
	elsewhere, typed := maps.Clone(form.Fields), maps.Clone(form.Fields)
	elsewhere["key"], typed["Content-Type"] = p.key+"-else", "text/html"
	for _, wrong := range []struct {
		what   string
		fields map[string]string
		body   string
	}{
		{"more bytes", form.Fields, "four"},
		{"fewer bytes", form.Fields, "2!"},
		{"another key", elsewhere, "yes"},
		{"another type", typed, "yes"},
	} {
		if err := p.refused(p.post(ctx, form.URL, wrong.fields, wrong.body)); err != nil {
			return fmt.Errorf("a form with %s: %w", wrong.what, err)
		}
	}
	if err := p.taken(p.post(ctx, form.URL, form.Fields, "yes")); err != nil {
		return fmt.Errorf("a form: %w", err)
	}
	return p.copies(ctx)
}

// copies tries adopt.
func (p *probe) copies(ctx context.Context) error {
	size, tag, err := p.statPosted(ctx, p.key)
	if err == nil && size != 3 {
		err = fmt.Errorf("%d of 3 bytes are there", size)
	}
	if err != nil {
		return fmt.Errorf("a form that was taken: %w", err)
	}
	target := p.key + "-copy"
	if err := p.adopt(ctx, p.key, strings.Repeat("0", len(tag)), target, size); !errors.Is(err, errPostChanged) {
		return fmt.Errorf("a copy of something else: %w", orTaken(err))
	}
	if err := p.adopt(ctx, p.key, tag, target, size); err != nil {
		return fmt.Errorf("a copy: %w", err)
	}
	if !p.settings.ConditionalWrites {
		return nil
	}
	if err := p.adopt(ctx, p.key, tag, target, size); !errors.Is(err, errObjectTaken) {
		return fmt.Errorf("a copy over something: %w", orTaken(err))
	}
	return nil
}

var errTaken = errors.New("was taken, and should not have been")

func orTaken(err error) error {
	if err == nil {
		return errTaken
	}
	return err
}

// parts tries addresses of parts: exactly the size that was signed, and nothing
// where the connection breaks.
func (p *probe) parts(ctx context.Context) error {
	key := p.key + "-parts"
	id, err := p.core.NewMultipartUpload(ctx, p.settings.Bucket, key, minio.PutObjectOptions{ContentType: objectType})
	if err != nil {
		return s3Fault(err)
	}
	sizes, address := []int64{0, 3, tornSize, 3}, make([]string, 4)
	for n := 1; n <= 3; n++ {
		if address[n], err = signPart(ctx, p.core.Client, p.settings.Bucket, key, id, n, sizes[n], time.Minute); err != nil {
			return err
		}
	}
	if err := p.refused(p.send(ctx, http.MethodPut, address[1], "", strings.NewReader("four"), 4)); err != nil {
		return fmt.Errorf("a part of another size: %w", err)
	}
	torn := io.MultiReader(bytes.NewReader(make([]byte, tornSize/2)), cut{})
	_, _ = p.send(ctx, http.MethodPut, address[2], "", torn, tornSize) // cannot succeed
	if err := p.taken(p.send(ctx, http.MethodPut, address[3], "", strings.NewReader("yes"), 3)); err != nil {
		return fmt.Errorf("a part: %w", err)
	}
	there, err := p.Parts(ctx, key, "."+id)
	if err != nil {
		return err
	}
	if len(there) != 1 || there[0].N != 3 || there[0].Size != 3 {
		return fmt.Errorf("%d parts are there, some of them of connections that broke", len(there))
	}
	return nil
}

// cut is where a connection breaks.
type cut struct{}

// Read implements io.Reader.
func (cut) Read([]byte) (int, error) { return 0, errCut }

// post sends a form as wx.uploadFile does: the file last.
func (p *probe) post(ctx context.Context, url string, fields map[string]string, body string) (int, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		_ = w.WriteField(name, fields[name]) // into memory
	}
	file, err := w.CreateFormFile(postName, "probe")
	if err != nil {
		return 0, err
	}
	_, _ = io.WriteString(file, body) // into memory
	_ = w.Close()                     // into memory
	return p.send(ctx, http.MethodPost, url, w.FormDataContentType(), &b, int64(b.Len()))
}

// send returns the status of the answer.
func (p *probe) send(ctx context.Context, method, url, contentType string, body io.Reader, size int64) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, io.NopCloser(body))
	if err != nil {
		return 0, errors.New("the storage's address is malformed") // not to be repeated: it is signed
	}
	req.ContentLength = size
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return 0, errStoreAway.Because(err)
	}
	defer func() { _ = res.Body.Close() }() // only read
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	return res.StatusCode, nil
}

// refused wants a status that says no.
func (p *probe) refused(status int, err error) error {
	switch {
	case err != nil:
		return err
	case status >= 500 && status != http.StatusNotImplemented:
		return errStoreAway.Because(fmt.Errorf("HTTP %d", status))
	case status < 400:
		return errTaken
	}
	return nil
}

// taken wants a status that says yes.
func (p *probe) taken(status int, err error) error {
	switch {
	case err != nil:
		return err
	case status >= 500 && status != http.StatusNotImplemented:
		return errStoreAway.Because(fmt.Errorf("HTTP %d", status))
	case status >= 300:
		return fmt.Errorf("was refused with HTTP %d", status)
	}
	return nil
}
