package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

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

// killing are uploads to a node that is killed again and again.
type killing struct {
	t     testing.TB
	node  *program // of this round
	token string
	ways  []wayIn

	mu    sync.Mutex
	sent  map[string]bool   // SHA-256 of all that was ever sent
	acked map[string]string // id of a file to the SHA-256 that it must have
	begun map[string]begun  // uploads that go on, and are not acknowledged
	half  [][]byte          // data whose upload has no id yet
}

// begun is an upload that can go on.
type begun struct {
	data   []byte
	resume func(id string, data []byte) error
}

// do sends one request, and decodes an answer of this status into v.
func (k *killing) do(method, path, contentType string, body []byte, status int, v any) error {
	return k.request(method, k.node.Public+path, k.token, contentType, body, status, v)
}

func (k *killing) request(method, url, token, contentType string, body []byte, status int, v any) error {
	req := newRequest(method, url, token, bytes.NewReader(body))
	if token == "" {
		req.Header.Del("Authorization")
	}
	req.Header.Set("Content-Type", contentType)
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
	var u struct{ ID string }
	begin := fmt.Sprintf(`{"name":"a.bin","size":%d,"part_size":%d}`, len(data), killPart)
	if err := k.do("POST", "/files/uploads", "application/json", []byte(begin), http.StatusCreated, &u); err != nil {
		return "", err
	}
	k.remember(u.ID, data, k.resume)
	return u.ID, k.resume(u.ID, data)
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
		Missing []int
		File    *fileAnswer
	}
	if err := k.do("GET", path, "", nil, http.StatusOK, &u); err != nil {
		return err
	}
	for _, n := range u.Missing {
		piece := data[(n-1)*killPart : min(n*killPart, len(data))]
		if err := k.do("PUT", fmt.Sprintf("%s/parts/%d", path, n), "application/octet-stream", piece, http.StatusOK, &struct{}{}); err != nil {
			return err
		}
	}
	return k.do("POST", path+"/complete", "", nil, http.StatusCreated, &fileAnswer{})
}

// send uploads random data in one of the ways; it tells whether the node lives.
func (k *killing) send() bool {
	data := make([]byte, rand.IntN(4*killPart))
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(data)
	want := hex.EncodeToString(sum[:])
	k.mu.Lock()
	k.sent[want] = true
	k.mu.Unlock()
	id, err := k.ways[rand.IntN(len(k.ways))].send(k, data)
	if err != nil {
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
			for k.send() {
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
	kill.Do(func() { k.t.Fatalf("the node is alive and refuses:\n%s", k.node.Output()) })
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
// is whole, too, uploads go on afterwards, and nothing stays behind.
func TestKilledUnderUploads(t *testing.T) {
	killUnder(t, waysIn, "files:\n  part_size: 64KiB\n"+killHouse, true)
}

// TestKilledUnderDirectUploads does it while they go past the node.
func TestKilledUnderDirectUploads(t *testing.T) {
	killUnder(t, waysIn[len(waysIn)-1:], s3Files(testdeps.MinIO(t))+"    direct: true\n"+killHouse, false)
}

const killHouse = "  sweep_interval: 1s\n  max_sessions_per_user: 0\n"

func killUnder(t *testing.T, ways []wayIn, files string, folder bool) {
	rounds := 3
	if testdeps.Long() {
		rounds = 60
	}
	sim, wechatURL := simulator(t)
	config := baseConfig(t, wechatURL) + files
	data := regexp.MustCompile(`(?m)^data: (.*)$`).FindStringSubmatch(config)[1]
	k := &killing{t: t, node: startServe(t, config), ways: ways, sent: map[string]bool{}, acked: map[string]string{}, begun: map[string]begun{}}
	k.token = login(t, k.node.Public, sim.NewCode(testAppID, "alice")).Token
	for range rounds {
		if !folder {
			waitDirect(t, k.node, "storage")
		}
		k.round(1 + rand.IntN(25))
		k.node = startServe(t, config)
		k.afterwards()
	}
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
		eventually(t, "nothing but files is left on disk", func() bool { return diskUsage(t, filepath.Join(data, "files")) == stored })
	}
	var usage struct {
		Stored   int64
		Sessions int64
	}
	if err := k.do("GET", "/files/usage", "", nil, http.StatusOK, &usage); err != nil {
		t.Fatal(err)
	}
	// Uploads whose begin was never answered are held until they expire.
	if more := usage.Stored - stored; more < 0 || more > usage.Sessions*4*killPart {
		t.Errorf("%d bytes count, of which %d are files, and %d sessions", usage.Stored, stored, usage.Sessions)
	}
}

// afterwards looks what is left after a kill, and goes on with it.
func (k *killing) afterwards() {
	k.t.Helper()
	for id, want := range k.acked {
		if got := k.sum(id); got != want {
			k.t.Errorf("%s was acknowledged with %s and has %q", id, want, got)
		}
	}
	for id, u := range k.begun {
		sum := sha256.Sum256(u.data)
		want := hex.EncodeToString(sum[:])
		if got := k.sum(id); got != "" && got != want {
			k.t.Errorf("%s is readable and torn", id)
		}
		if rand.IntN(2) == 0 { // the phone gives up
			status, raw := callRaw(k.t, "DELETE", k.node.Public+"/files/uploads/"+id, bearer(k.token), nil)
			if status != http.StatusNoContent && !strings.Contains(string(raw), "upload_completed") {
				k.t.Errorf("abort of %s: %d %s", id, status, raw)
			}
		} else if err := u.resume(id, u.data); err != nil {
			k.t.Errorf("resume of %s: %v", id, err)
		} else {
			k.acked[id] = want
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
