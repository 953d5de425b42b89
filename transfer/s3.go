package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	// singlePut is the largest object S3 takes in one PUT.
	singlePut = 5 << 30
	// maxParts is how many parts S3 takes; times partSize it bounds an upload
	// of unknown size.
	maxParts = 10_000
	// storageStall is how long the storage may neither take nor give a byte.
	storageStall = 30 * time.Second
	// cleanUp bounds work that goes on after its request has ended.
	cleanUp = time.Minute
	// objectType is the type of all objects: what a file is, the ledger knows.
	objectType = "application/octet-stream"
)

// S3 is a Store in one bucket of an S3 server. It opens no connection before
// it is used, so a server that is down delays nothing but the requests that
// need it.
type S3 struct {
	settings  S3Settings
	core      *minio.Core
	signer    *minio.Client // of what phones send and get, see newSigner
	transport http.RoundTripper
	closeIdle func()
	buffers   *buffers
	ready     atomic.Bool // the bucket was seen
}

// NewS3 makes a store; budget is how many bytes the parts of all uploads of
// this process may hold in memory, at least 8 MiB.
func NewS3(s S3Settings, budget int64) (*S3, error) {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialStorage,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute, // assembling a large object takes a while
		ExpectContinueTimeout: 5 * time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   64, // about the uploads and downloads under way
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // objects are passed on as they are
	}
	return newS3(s, budget, transport, transport.CloseIdleConnections)
}

// newS3 is NewS3 over a transport that tests may have made unreliable.
func newS3(s S3Settings, budget int64, transport http.RoundTripper, closeIdle func()) (*S3, error) {
	core, err := minio.NewCore(s.Endpoint, &minio.Options{
		Creds:      credentials.NewStaticV4(s.AccessKey, s.SecretKey.Value(), ""),
		Secure:     s.Secure,
		Region:     s.Region, // or every bucket costs a request that asks for it
		Transport:  transport,
		MaxRetries: 3,
	})
	if err != nil {
		return nil, fmt.Errorf("S3 storage: %w", err)
	}
	signer, err := newSigner(s)
	if err != nil {
		return nil, err
	}
	return &S3{settings: s, core: core, signer: signer, transport: transport, closeIdle: closeIdle, buffers: newBuffers(budget)}, nil
}

// dialStorage opens connections whose writes fail rather than hang. Reads
// have a limit of their own: see download.
func dialStorage(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &storageConn{Conn: conn}, nil
}

type storageConn struct{ net.Conn }

func (c *storageConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(storageStall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

var sendBuffers = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

// ReadFrom implements io.ReaderFrom, which is how net/http copies a body where
// there is no TLS, with larger pieces than it would.
func (c *storageConn) ReadFrom(r io.Reader) (n int64, err error) {
	buf := sendBuffers.Get().(*[]byte)
	defer sendBuffers.Put(buf)
	for err == nil {
		var got int
		got, err = r.Read(*buf)
		n += int64(got)
		if _, werr := c.Write((*buf)[:got]); werr != nil {
			return n, werr
		}
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// Close implements Store.
func (s *S3) Close() error {
	s.closeIdle()
	return nil
}

// Ping implements Store: it asks for the bucket, and makes it where it is
// missing and the settings say so.
func (s *S3) Ping(ctx context.Context) error {
	found, err := s.core.BucketExists(ctx, s.settings.Bucket)
	if err == nil && !found && s.settings.CreateBucket {
		err = s.core.MakeBucket(ctx, s.settings.Bucket, minio.MakeBucketOptions{Region: s.settings.Region})
		found = err == nil
	}
	if err != nil {
		return s3Fault(err)
	}
	if !found {
		return errStoreAway.Because(fmt.Errorf("bucket %q does not exist", s.settings.Bucket))
	}
	s.ready.Store(true)
	return nil
}

// Put implements Store.
func (s *S3) Put(ctx context.Context, key string, r io.Reader, size int64) (int64, error) {
	if !s.ready.Load() {
		if err := s.Ping(ctx); err != nil {
			return 0, err
		}
	}
	src := newSource(ctx, r, size)
	err := s.put(ctx, key, src, size)
	if cause := src.failure(); cause != nil {
		return src.n, cause
	}
	err = s3Fault(err)
	if errors.Is(err, errNoObject) { // our multipart upload is gone
		err = errStoreAway.Because(err)
	}
	return src.n, err
}

// put chooses how: what fits into a part goes through memory, where it can be
// sent again, unless others need that; more of a known size is one request that
// streams, without memory; the rest goes in parts.
func (s *S3) put(ctx context.Context, key string, src *source, size int64) error {
	switch {
	case size > singlePut, size < 0:
		return s.putUnknown(ctx, key, src)
	case size <= partSize:
		p, err := s.buffers.gather(src)
		if err == io.EOF {
			return s.putPart(ctx, key, p)
		}
		if err != nil {
			return err
		}
		src.putBack(p)
	}
	return s.putStream(ctx, key, src, size)
}

// putStream sends a source of known size with one request.
func (s *S3) putStream(ctx context.Context, key string, src *source, size int64) error {
	defer src.shutdown()
	_, err := s.core.PutObject(ctx, s.settings.Bucket, key, src, size, "", "", s.fresh())
	return err
}

// putPart sends a part that is the whole object.
func (s *S3) putPart(ctx context.Context, key string, p *part) error {
	defer p.release()
	if p.size == 0 { // minio-go wants a body that it knows to be empty
		_, err := s.core.PutObject(ctx, s.settings.Bucket, key, bytes.NewReader(nil), 0, "", "", s.fresh())
		return err
	}
	body := &lease{part: p}
	defer body.end()
	o := s.fresh()
	_, err := s.core.PutObject(ctx, s.settings.Bucket, key, body, p.size, "", "", o)
	if errors.Is(s3Fault(err), errObjectTaken) { // maybe by the first of two tries
		err = s.confirm(ctx, key, o, p.size, err)
	}
	return err
}

// tokenName is the metadata that tells which Put an object is of.
const tokenName = "Minigate-Put"

// fresh are the options of a PUT that must not replace an object.
func (s *S3) fresh() minio.PutObjectOptions {
	o := minio.PutObjectOptions{ContentType: objectType, UserMetadata: map[string]string{tokenName: rand.Text()}}
	o.DisableContentSha256 = !s.settings.SignContent
	if s.settings.ConditionalWrites {
		o.SetMatchETagExcept("*")
	}
	return o
}

// Open implements Store with one request.
func (s *S3) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if length == 0 { // no Range header can say that
		size, err := s.Stat(ctx, key)
		if err == nil && (offset < 0 || offset > size) {
			err = errObjectRange
		}
		return http.NoBody, err
	}
	if err := setRange(&o, offset, length); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	body, info, _, err := s.core.GetObject(ctx, s.settings.Bucket, key, o)
	if err != nil {
		cancel()
		return nil, s3Fault(err)
	}
	d := &download{body: body, cancel: cancel, stall: time.AfterFunc(storageStall, cancel)}
	if length > 0 && info.Size != length { // S3 shortens a range that is too long
		_ = d.Close()
		return nil, errObjectRange
	}
	return d, nil
}

func setRange(o *minio.GetObjectOptions, offset, length int64) error {
	switch {
	case offset < 0:
		return errObjectRange
	case length > 0:
		return o.SetRange(offset, offset+length-1)
	case offset > 0:
		return o.SetRange(offset, 0) // "bytes=offset-"
	}
	return nil
}

// download is the body of a GET. It is cancelled when nothing comes for
// storageStall.
type download struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	stall  *time.Timer
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	d.stall.Reset(storageStall)
	n, err := d.body.Read(p)
	d.stall.Stop() // the time a slow client takes is not the storage's
	if err != nil && err != io.EOF {
		err = s3Fault(err)
	}
	return n, err
}

// Close ends the request, whether or not the body was read to its end.
func (d *download) Close() error {
	d.stall.Stop()
	d.cancel()
	return d.body.Close()
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, key string) (int64, error) {
	info, err := s.core.StatObject(ctx, s.settings.Bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return 0, s3Fault(err)
	}
	return info.Size, nil
}

// Delete implements Store. Multipart uploads that a crash left unfinished are
// found by their key, so nobody has to remember their ids.
func (s *S3) Delete(ctx context.Context, key string) error {
	if err := s.abortAll(ctx, key); err != nil {
		return s3Fault(err)
	}
	err := s.core.RemoveObject(ctx, s.settings.Bucket, key, minio.RemoveObjectOptions{})
	if err = s3Fault(err); errors.Is(err, errNoObject) {
		return nil
	}
	return err
}
