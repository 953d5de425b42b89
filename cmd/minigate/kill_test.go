package main

import (
	"bytes"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/transfer"
)

// waysIn are the ways in which a file can be uploaded. Each sends data and
// returns the id of the file once that was acknowledged, or an error as soon as
// the node is gone.
type wayIn struct {
	name string
	send func(k *killing, data []byte) (id string, err error)
}

var waysIn = []wayIn{
	{"form", (*killing).sendForm},
	{"parts", (*killing).sendParts},
	{"direct", (*killing).sendDirect},
	{"tus", (*killing).sendTus},
	{"uploader", (*killing).sendChunks},
}

// waysOf are the ways in that have these names.
func waysOf(names ...string) (ways []wayIn) {
	for _, w := range waysIn {
		if slices.Contains(names, w.name) {
			ways = append(ways, w)
		}
	}
	return ways
}

// killing are uploads to a node that is killed again and again.
type killing struct {
	t     testing.TB
	node  *program // of this round
	token string
	ways  []wayIn
	large int // bytes of some of the files, at most; 0: none is

	mu    sync.Mutex
	sent  map[string]bool   // SHA-256 of all that was ever sent
	acked map[string]string // id of a file to the SHA-256 that it must have
	begun map[string]begun  // uploads that go on, and are not acknowledged
	half  [][]byte          // data whose upload has no id yet

	refusal error             // the last
	keys    map[string][]byte // data of uploads in parts that may have begun, by their Idempotency-Key
}

// begun is an upload that can go on.
type begun struct {
	data   []byte
	resume func(id string, data []byte) error
}

// do sends one request, and decodes an answer of this status into v.
func (k *killing) do(method, path, contentType string, body []byte, status int, v any, header ...string) error {
	return k.request(method, k.node.Public+path, k.token, contentType, body, status, v, header...)
}

func (k *killing) request(method, url, token, contentType string, body []byte, status int, v any, header ...string) error {
	req := newRequest(method, url, token, bytes.NewReader(body))
	if token == "" {
		req.Header.Del("Authorization")
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != status {
		return fmt.Errorf("%s %s: %d %s", method, req.URL.Path, res.StatusCode, raw)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(raw, v)
}

const killForm = "multipart/form-data; boundary=x"

// formWith is a form of fields, and a file behind them.
func formWith(fields map[string]string, data []byte) []byte {
	var b bytes.Buffer
	for name, value := range fields {
		fmt.Fprintf(&b, "--x\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", name, value)
	}
	b.WriteString("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n")
	b.Write(data)
	b.WriteString("\r\n--x--\r\n")
	return b.Bytes()
}

func (k *killing) sendForm(data []byte) (string, error) {
	var f fileAnswer
	err := k.do("POST", "/files", killForm, formWith(nil, data), http.StatusCreated, &f)
	return f.ID, err
}

const killPart = 64 << 10 // bytes

func (k *killing) sendParts(data []byte) (string, error) {
	key := crand.Text()
	k.mu.Lock()
	k.keys[key] = data
	k.mu.Unlock()
	id, err := k.beginParts(key, data)
	if err != nil {
		return "", err
	}
	return id, k.resume(id, data)
}

// beginParts begins an upload in parts, or finds the one that has this key.
func (k *killing) beginParts(key string, data []byte) (string, error) {
	var u struct{ ID string }
	body := fmt.Sprintf(`{"name":"a.bin","size":%d,"part_size":%d}`, len(data), killPart)
	err := k.do("POST", "/files/uploads", "application/json", []byte(body), http.StatusCreated, &u, "Idempotency-Key", key)
	if err != nil {
		return "", err
	}
	k.remember(u.ID, data, k.resume)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, key)
	return u.ID, nil
}

func (k *killing) sendDirect(data []byte) (string, error) {
	var u struct{ ID string }
	mode := []string{transfer.ModeForm, transfer.ModeParts}[rand.IntN(2)]
	reserve := fmt.Sprintf(`{"name":"a.bin","size":%d,"mode":%q}`, len(data), mode)
	if err := k.do("POST", "/files/direct", "application/json", []byte(reserve), http.StatusCreated, &u); err != nil {
		return "", err
	}
	k.remember(u.ID, data, k.resumeDirect)
	return u.ID, k.resumeDirect(u.ID, data)
}

// resumeDirect sends what is missing of a direct upload to where the answer
// says, without a login, and confirms it.
func (k *killing) resumeDirect(id string, data []byte) error {
	var u struct {
		Target   string
		PartSize int64 `json:"part_size"`
		Upload   *transfer.Form
		Put      []transfer.Address
	}
	if err := k.do("GET", "/files/direct/"+id, "", nil, http.StatusOK, &u); err != nil {
		return err
	}
	at := func(url string) string {
		if u.Target == "gateway" {
			return k.node.Public + url
		}
		return url
	}
	if f := u.Upload; f != nil {
		status := map[string]int{"gateway": http.StatusCreated, "storage": http.StatusOK}[u.Target]
		if err := k.request("POST", at(f.URL), "", killForm, formWith(f.Fields, data), status, nil); err != nil {
			return err
		}
	}
	for _, a := range u.Put {
		piece := data[int64(a.N-1)*u.PartSize:][:a.Size]
		if err := k.request("PUT", at(a.URL), "", "application/octet-stream", piece, http.StatusOK, nil); err != nil {
			return err
		}
	}
	return k.do("POST", "/files/"+id+"/confirm", "", nil, http.StatusCreated, &fileAnswer{})
}

// remember notes an upload that has begun.
func (k *killing) remember(id string, data []byte, resume func(id string, data []byte) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun[id] = begun{data, resume}
}

// resume sends what is missing of an upload in parts, and completes it.
func (k *killing) resume(id string, data []byte) error {
	path := "/files/uploads/" + id
	var u struct {
		PartSize int `json:"part_size"`
		Missing  []int
		File     *fileAnswer
	}
	if err := k.do("GET", path, "", nil, http.StatusOK, &u); err != nil {
		return err
	}
	for _, n := range u.Missing {
		piece := data[(n-1)*u.PartSize : min(n*u.PartSize, len(data))]
		if err := k.do("PUT", fmt.Sprintf("%s/parts/%d", path, n), "application/octet-stream", piece, http.StatusOK, &struct{}{}); err != nil {
			return err
		}
	}
	return k.do("POST", path+"/complete", "", nil, http.StatusCreated, &fileAnswer{})
}

// send uploads random data in one of the ways; it tells whether that went well.
func (k *killing) send() bool {
	size := rand.IntN(4 * killPart)
	if k.large > 0 && rand.IntN(8) == 0 {
		size = rand.IntN(k.large)
	}
	data := make([]byte, size)
	_, _ = crand.Read(data) // never fails
	sum := sha256.Sum256(data)
	want := hex.EncodeToString(sum[:])
	k.mu.Lock()
	k.sent[want] = true
	k.mu.Unlock()
	id, err := k.ways[rand.IntN(len(k.ways))].send(k, data)
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.refusal = err
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.acked[id] = want
	delete(k.begun, id)
	return true
}

// round uploads from several clients at once until the node is killed, after
// so many acknowledgements.
func (k *killing) round(after int) {
	enough := len(k.acked) + after
	var wg sync.WaitGroup
	var kill sync.Once
	for range 6 {
		wg.Go(func() {
			for failures := 0; failures < 5; { // one may be the storage's, which is busy
				if !k.send() {
					failures++
				}
				k.mu.Lock()
				now := len(k.acked) >= enough
				k.mu.Unlock()
				if now {
					kill.Do(k.node.kill) // under the others
				}
			}
		})
	}
	wg.Wait()
	kill.Do(func() { k.t.Fatalf("the node is alive and refuses, lastly with %v:\n%s", k.refusal, k.node.Output()) })
}

// sum downloads a file; "" where there is none.
func (k *killing) sum(id string) string {
	k.t.Helper()
	status, raw := callRaw(k.t, "GET", k.node.Public+"/files/"+id, bearer(k.token), nil)
	if status == http.StatusNotFound {
		return ""
	}
	if status != http.StatusOK {
		k.t.Fatalf("download: status %d %s", status, raw)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// list returns the sizes of all files by id.
func (k *killing) list() map[string]int64 {
	k.t.Helper()
	sizes := map[string]int64{}
	for cursor, more := "", true; more; more = cursor != "" {
		var page transfer.ListAnswer
		_, raw := filesAPI(k.t, k.node, testAPIKey, "", fmt.Sprintf(`{"limit":500,"cursor":%q}`, cursor))
		if err := json.Unmarshal([]byte(raw), &page); err != nil {
			k.t.Fatal(err)
		}
		for _, f := range page.Files {
			sizes[f.ID] = f.Size
		}
		cursor = page.Cursor
	}
	return sizes
}

// TestKilledUnderUploads kills a node at random moments while files come in in
// every way: what was acknowledged is whole, nothing else can be read unless it
// is whole, too, uploads go on afterwards, and nothing stays behind, neither in
// the storage nor in quotas.
func TestKilledUnderUploads(t *testing.T) {
	t.Run("folder", func(t *testing.T) { killUnder(t, waysIn, "files:\n  part_size: 64KiB\n"+killHouse, true) })
	onS3 := waysOf("form", "parts", "direct", "tus") // chunks of the uploader are too small for S3
	t.Run("s3", func(t *testing.T) { killUnder(t, onS3, s3Files(testdeps.MinIO(t))+killHouse, false) })
	if testdeps.Long() { // what is left in Redis is left alone for minutes
		t.Run("s3 and redis", func(t *testing.T) {
			killUnder(t, onS3, s3Files(testdeps.MinIO(t))+killHouse+"  pending_ttl: 1m\n"+redisConfig(testdeps.Redis(t)), false)
		})
	}
}

// TestKilledUnderDirectUploads does it while they go past the node.
func TestKilledUnderDirectUploads(t *testing.T) {
	killUnder(t, waysOf("direct"), s3Files(testdeps.MinIO(t))+"    direct: true\n"+killHouse, false)
}

// redisConfig has what several nodes have in common.
func redisConfig(addr string) string {
	return fmt.Sprintf(`keys:
  sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  signing: [MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=]
  tickets: [{id: t1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=}]
redis:
  addresses: [%s]
`, addr)
}

const killHouse = "  sweep_interval: 1s\n  max_sessions_per_user: 0\n"

func killUnder(t *testing.T, ways []wayIn, files string, folder bool) {
	rounds := 3
	if testdeps.Long() {
		rounds = 100
		files = strings.Replace(files, "files:\n", "files:\n  session_ttl: 2m\n", 1)
	}
	if text := os.Getenv("ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	sim, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL) + files
	k := &killing{t: t, node: startServe(t, config), ways: ways, sent: map[string]bool{}, acked: map[string]string{}, begun: map[string]begun{}, keys: map[string][]byte{}}
	if !folder {
		k.large = 11 << 20 // parts on S3 have 5 MiB at least
	}
	k.token = login(t, k.node.Public, sim.NewCode(testAppID, "alice")).Token
	for range rounds {
		if strings.Contains(files, "direct: true") {
			waitDirect(t, k.node, "storage")
		}
		k.round(1 + rand.IntN(25))
		k.node = startServe(t, config)
		k.afterwards()
	}
	k.abortRest()
	var stored int64
	sizes := k.list()
	for id, size := range sizes {
		stored += size
		if got := k.sum(id); !k.sent[got] {
			t.Errorf("%s has bytes that nobody sent", id)
		}
	}
	t.Logf("%d files, %d of them acknowledged, after %d kills", len(sizes), len(k.acked), rounds)
	if folder {
		data := regexp.MustCompile(`(?m)^data: (.*)$`).FindStringSubmatch(config)[1]
		k.settles("nothing but files is left on disk", func() bool { return diskUsage(t, filepath.Join(data, "files")) == stored })
	}
	k.settles("storage and list of files are the same", func() bool {
		return k.differences() == 0
	})
	var usage struct{ Stored, Sessions int64 }
	k.settles("nothing but files counts", func() bool {
		if err := k.do("GET", "/files/usage", "", nil, http.StatusOK, &usage); err != nil {
			t.Fatal(err)
		}
		return usage.Stored == stored && usage.Sessions == 0
	})
}

// differences compares storage and list of files.
func (k *killing) differences() (n int) {
	k.t.Helper()
	for cursor, more := "", true; more; more = cursor != "" {
		var page transfer.VerifyAnswer
		_, raw := filesAPI(k.t, k.node, testAPIKey, "/verify", fmt.Sprintf(`{"side":"storage","limit":500,"cursor":%q}`, cursor))
		if err := json.Unmarshal([]byte(raw), &page); err != nil {
			k.t.Fatal(err)
		}
		n, cursor = n+len(page.Differences), page.Cursor
	}
	return n
}

// settles waits for what the sweeper does, which begins minutes after a session
// has expired.
func (k *killing) settles(what string, cond func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if cond() {
			return
		}
	}
	_, raw := filesAPI(k.t, k.node, testAPIKey, "/verify", `{"side":"storage","limit":500}`)
	k.t.Errorf("never happened: %s; %s", what, raw)
}

// afterwards looks what is left after a kill, and goes on with it.
func (k *killing) afterwards() {
	k.t.Helper()
	for id, want := range k.acked {
		if got := k.sum(id); got != want {
			k.t.Errorf("%s was acknowledged with %s and has %q", id, want, got)
		}
	}
	for key, data := range maps.Clone(k.keys) {
		if _, err := k.beginParts(key, data); err != nil {
			k.t.Errorf("beginning again: %v", err)
		}
	}
	for id, u := range k.begun {
		sum := sha256.Sum256(u.data)
		want := hex.EncodeToString(sum[:])
		if got := k.sum(id); got != "" && got != want {
			k.t.Errorf("%s is readable and torn", id)
		}
		switch fate := rand.IntN(4); {
		case fate == 0: // the phone forgets about it; the sweeper does not
		case fate == 1: // the phone gives up
			status, raw := callRaw(k.t, "DELETE", k.node.Public+"/files/uploads/"+id, bearer(k.token), nil)
			if status != http.StatusNoContent && !strings.Contains(string(raw), "upload_completed") {
				k.t.Errorf("abort of %s: %d %s", id, status, raw)
			}
		default:
			if err := u.resume(id, u.data); err != nil {
				k.t.Errorf("resume of %s: %v", id, err)
			} else {
				k.acked[id] = want
			}
		}
		delete(k.begun, id)
	}
	half := k.half
	k.half = nil
	for _, data := range half {
		sum := sha256.Sum256(data)
		id, err := k.sendChunks(data)
		if err != nil {
			k.t.Errorf("resume of chunks: %v", err)
		}
		k.acked[id] = hex.EncodeToString(sum[:])
	}
}

// abortRest ends the uploads that nobody knows of, since the answer to their
// beginning was lost.
func (k *killing) abortRest() {
	k.t.Helper()
	for {
		var open struct{ Uploads []struct{ ID string } }
		if err := k.do("GET", "/files/uploads", "", nil, http.StatusOK, &open); err != nil {
			k.t.Fatal(err)
		}
		if len(open.Uploads) == 0 {
			return
		}
		for _, u := range open.Uploads {
			if err := k.do("DELETE", "/files/uploads/"+u.ID, "", nil, http.StatusNoContent, nil); err != nil {
				k.t.Fatal(err)
			}
		}
	}
}
