package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/tus/tusd/v2/pkg/handler"
	"github.com/tus/tusd/v2/pkg/memorylocker"
	"github.com/tus/tusd/v2/pkg/s3store"
	"golang.org/x/exp/slog"

	"github.com/minigate/minigate/bench/harness"
)

const (
	accessKey = "minigate-bench"
	secretKey = "minigate-bench-secret"
	region    = "us-east-1"
	bucket    = "bench"
)

// bench owns the processes of a run.
type bench struct {
	options
	dir     string
	running []*exec.Cmd
}

// close ends what was started last first, and waits for it.
func (b *bench) close() {
	for i := len(b.running) - 1; i >= 0; i-- {
		_ = b.running[i].Process.Signal(syscall.SIGTERM)
		_ = b.running[i].Wait()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// dropContent removes what has been uploaded: else the system's cache fills in
// time, and whoever comes last pays for room in it.
func (b *bench) dropContent() error {
	const small = 1 << 20 // bytes: what servers keep beside content
	return filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".db" || path == b.minigate {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > small {
			err = os.Remove(path)
		}
		return err
	})
}

func (b *bench) launch(cmd *exec.Cmd) error {
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	b.running = append(b.running, cmd)
	return nil
}

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts everything.
func (b *bench) start(ctx context.Context) ([]*side, error) {
	var err error
	if b.dir, err = os.MkdirTemp("", "minigate-bench-"); err != nil {
		return nil, err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, err
	}
	repository := filepath.Dir(strings.TrimSpace(string(root)))
	storage, err := b.startMinIO(ctx, repository)
	if err != nil {
		return nil, fmt.Errorf("minio: %w", err)
	}
	if err := b.build(ctx, repository); err != nil {
		return nil, err
	}
	if err := b.noteVersions(ctx, repository); err != nil {
		return nil, err
	}
	tusd, tusdPID, err := b.own("tusd", storage, strconv.FormatBool(b.sign))
	if err != nil {
		return nil, err
	}
	cloud, err := b.startMinigate(ctx, "s3", "MINIGATE_FILES_STORE=s3", "MINIGATE_FILES_S3_ENDPOINT="+storage, "MINIGATE_FILES_S3_BUCKET="+bucket,
		"MINIGATE_FILES_S3_ACCESS_KEY="+accessKey, "MINIGATE_FILES_S3_SECRET_KEY="+secretKey, "MINIGATE_FILES_S3_SECURE=false",
		"MINIGATE_FILES_S3_SIGN_CONTENT="+strconv.FormatBool(b.sign))
	if err != nil {
		return nil, err
	}
	plain, plainPID, err := b.own("copy", filepath.Join(b.dir, "copies"))
	if err != nil {
		return nil, err
	}
	folder, err := b.startMinigate(ctx, "folder", "MINIGATE_FILES_MIN_FREE=0")
	if err != nil {
		return nil, err
	}
	return []*side{
		{name: presigned, group: "S3", send: put(storage)},
		{name: tusdS3, group: "S3", pid: tusdPID, send: tus("http://"+tusd+"/files/", "")},
		{name: tusS3, group: "S3", pid: cloud.pid, send: tus(cloud.url+"/files/tus/", cloud.token)},
		{name: formS3, group: "S3", pid: cloud.pid, send: form(cloud.url, cloud.token)},
		{name: partsS3, group: "S3", pid: cloud.pid, send: parts(cloud.url, cloud.token)},
		{name: plainCopy, group: "folder", pid: plainPID, send: func(ctx context.Context, data []byte) error {
			_, _, err := call(ctx, "POST", "http://"+plain, "", data, http.StatusNoContent)
			return err
		}},
		{name: formFolder, group: "folder", pid: folder.pid, send: form(folder.url, folder.token)},
		{name: tusFolder, group: "folder", pid: folder.pid, send: tus(folder.url+"/files/tus/", folder.token)},
	}, nil
}

// noteVersions notes what minigate is compared with.
func (b *bench) noteVersions(ctx context.Context, repository string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	said, err := exec.CommandContext(ctx, b.minioProgram(repository), "--version").Output()
	if err != nil {
		return fmt.Errorf("minio: %w", err)
	}
	b.versions = []string{harness.ModuleVersion(self, "github.com/tus/tusd/v2")}
	if words := strings.Fields(string(said)); len(words) > 2 { // minio version RELEASE…
		b.versions = append(b.versions, "MinIO "+words[2])
	}
	return nil
}

func (b *bench) minioProgram(repository string) string {
	if b.minio != "" {
		return b.minio
	}
	return filepath.Join(repository, ".cache", "bin", "minio")
}

func (b *bench) startMinIO(ctx context.Context, repository string) (string, error) {
	addr, err := freeAddress()
	if err != nil {
		return "", err
	}
	data := filepath.Join(b.dir, "minio")
	if err := os.MkdirAll(filepath.Join(data, bucket), 0o700); err != nil { // a folder is a bucket
		return "", err
	}
	cmd := exec.Command(b.minioProgram(repository), "server", "--quiet", "--address", addr, data)
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_ROOT_USER="+accessKey, "MINIO_ROOT_PASSWORD="+secretKey)
	if err := b.launch(cmd); err != nil {
		return "", err
	}
	return addr, await(ctx, "http://"+addr+"/minio/health/cluster")
}

func (b *bench) build(ctx context.Context, repository string) error {
	if b.minigate != "" {
		return nil
	}
	b.minigate = filepath.Join(b.dir, "minigate-program")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.minigate, "./cmd/minigate")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

type gateway struct {
	url, token string
	pid        int
}

// startMinigate runs the real program with its simulated WeChat, and logs in.
func (b *bench) startMinigate(ctx context.Context, name string, environ ...string) (g gateway, err error) {
	public, err1 := freeAddress()
	ops, err2 := freeAddress()
	if err := errors.Join(err1, err2); err != nil {
		return g, err
	}
	cmd := exec.Command(b.minigate, "dev", "--listen", public, "--ops", ops, "--data", filepath.Join(b.dir, "data-"+name))
	cmd.Env = append(append(os.Environ(), "MINIGATE_LOG_LEVEL=warn"), environ...)
	if err := b.launch(cmd); err != nil {
		return g, err
	}
	if err := await(ctx, "http://"+ops+"/healthz"); err != nil {
		return g, fmt.Errorf("minigate: %w", err)
	}
	_, _ = fmt.Fprintln(os.Stderr, name+": minigate's profiles are at http://"+ops+"/debug/pprof/")
	g = gateway{url: "http://" + public, pid: cmd.Process.Pid}
	_, text, err := call(ctx, "POST", g.url+"/auth/login", "", []byte(`{"code":"sim:bench"}`), http.StatusOK, "Content-Type", "application/json")
	if err != nil {
		return g, err
	}
	var answer struct{ Token string }
	err = json.Unmarshal(text, &answer)
	g.token = answer.Token
	return g, err
}

// await returns once url is answered with 200.
func await(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, _, err := call(ctx, "GET", url, "", nil, http.StatusOK)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// own starts a server of this program and returns where it listens.
func (b *bench) own(what string, args ...string) (addr string, pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	cmd := exec.Command(self, append([]string{"serve", what}, args...)...)
	cmd.Stderr = os.Stderr
	if _, err = cmd.StdinPipe(); err != nil { // closed when we end
		return "", 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := b.launch(cmd); err != nil {
		return "", 0, err
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(addr), cmd.Process.Pid, err
}

// serve is what own starts. It ends with its input.
func serve(what string, args []string) error {
	var h http.Handler
	var err error
	if what == "tusd" {
		h, err = tusd(args[0], args[1] == "true")
	} else {
		h, err = copier(args[0])
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
		_ = l.Close()
	}()
	if err := http.Serve(l, h); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func storageClient(storage string, change ...func(*s3.Options)) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + storage), Region: region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	}, change...)
}

// unsigned leaves the content out of signatures. Checksums that would take its
// place are sent only where S3 wants them.
func unsigned(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
}

// tusd is the tus server of the protocol's authors, as its own program sets it
// up, with its logs away.
func tusd(storage string, sign bool) (http.Handler, error) {
	var change []func(*s3.Options)
	if !sign {
		change = append(change, unsigned)
	}
	composer := handler.NewStoreComposer()
	s3store.New(bucket, storageClient(storage, change...)).UseIn(composer)
	memorylocker.New().UseIn(composer)
	h, err := handler.NewHandler(handler.Config{
		BasePath: "/files/", StoreComposer: composer,
		Logger: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1})),
	})
	return http.StripPrefix("/files/", h), err
}

// copier keeps bodies, durably, and does nothing else.
func copier(dir string) (http.Handler, error) {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := filepath.Join(dir, fmt.Sprint(n.Add(1)))
		file, err := os.Create(name + ".tmp")
		if err == nil {
			_, err = io.Copy(file, r.Body)
			err = errors.Join(err, file.Sync(), file.Close())
		}
		if err == nil {
			err = os.Rename(name+".tmp", name)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}), os.MkdirAll(dir, 0o700)
}

// put sends to the storage itself.
func put(storage string) func(ctx context.Context, data []byte) error {
	sign := s3.NewPresignClient(storageClient(storage))
	var n atomic.Int64
	return func(ctx context.Context, data []byte) error {
		req, err := sign.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(fmt.Sprint("direct-", n.Add(1)))})
		if err != nil {
			return err
		}
		_, _, err = call(ctx, req.Method, req.URL, "", data, http.StatusOK)
		return err
	}
}
