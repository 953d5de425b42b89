package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/testdeps"
)

// uploadLoad is what comes to a node at the same time.
type uploadLoad struct {
	many, slow, huge      int64 // files of ordinary size, from slow clients, of huge size
	size, slowSize, giant int64 // bytes
}

// slowRate is how many bytes a second a slow client sends.
const slowRate = 200_000

// TestManyUploads sends files of all sizes and paces at once and looks at the
// memory that it took. All limits are those of the defaults, apart from those on
// size and number.
func TestManyUploads(t *testing.T) {
	const limit = int64(256 << 20)
	load := uploadLoad{many: 50, slow: 100, huge: 1, size: 2e6, slowSize: 400_000, giant: 100e6}
	if testdeps.Long() {
		load.size, load.slowSize, load.giant = 20e6, 6e6, 5e9
	}
	more := "  max_size: 6GiB\n  max_concurrent: 200\n"
	for name, files := range map[string]string{"folder": "files:\n", "s3": s3Files(testdeps.MinIO(t))} {
		t.Run(name, func(t *testing.T) {
			sim, wechatURL := simulator(t)
			p := startServe(t, baseConfig(t, wechatURL)+files+more)
			var tokens []string
			for i := range 20 {
				tokens = append(tokens, login(t, p.Public, sim.NewCode(testAppID, fmt.Sprint("user", i))).Token)
			}
			began := time.Now()
			u := &loadUploader{t: t, base: p.Public}
			sent := u.all(load, tokens)
			took := time.Since(began)
			rss := p.peakRSS(t)
			t.Logf("%s: %d x %d MB, %d x %d kB, %d x %d kB at %d kB/s in %v (%d MB/s), %d requests tried again, peak RSS %d MiB",
				name, load.huge, load.giant/1e6, load.many, load.size/1e3, load.slow, load.slowSize/1e3, slowRate/1000,
				took.Round(time.Second), int64(float64(sent)/1e6/took.Seconds()), u.again.Load(), rss>>20)
			if rss > limit {
				t.Errorf("peak RSS %d MiB, limit %d MiB", rss>>20, limit>>20)
			}
		})
	}
}

// loadUploader uploads and tries again where the node says so.
type loadUploader struct {
	t     testing.TB
	base  string
	again atomic.Int64
}

// all sends everything at once and returns how many bytes that were.
func (u *loadUploader) all(load uploadLoad, tokens []string) (sent int64) {
	var wg sync.WaitGroup
	n := 0
	send := func(count, size, rate int64) {
		for i := range count {
			token := tokens[n%len(tokens)]
			n++
			sent += size
			wg.Go(func() {
				switch {
				case size > 1e9, i%3 == 0:
					u.form(token, size, rate, "") // nobody says how large it is
				case i%3 == 1:
					u.form(token, size, rate, "?size="+strconv.FormatInt(size, 10))
				default:
					u.parts(token, size, rate)
				}
			})
		}
	}
	send(load.huge, load.giant, 0)
	send(load.slow, load.slowSize, slowRate)
	send(load.many, load.size, 0)
	wg.Wait()
	return sent
}

// do sends a request until it is answered with status, and decodes the answer.
func (u *loadUploader) do(method, path, token, contentType string, status int, out any, body func() io.Reader) {
	for broken := 0; ; {
		req := newRequest(method, u.base+path, token, body())
		req.Header.Set("Content-Type", contentType)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			// The node answers and closes before it has read all of a body that
			// it does not take, which some clients see as a broken connection.
			if broken++; broken == 100 {
				u.t.Errorf("%s %s: %v", method, path, err)
				return
			}
			u.again.Add(1)
			time.Sleep(time.Second)
			continue
		}
		raw, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		switch {
		case res.StatusCode == status && err == nil:
			if err := json.Unmarshal(raw, out); err != nil {
				u.t.Error(err)
			}
			return
		case res.StatusCode != http.StatusServiceUnavailable:
			u.t.Errorf("%s %s: %d %s, %v", method, path, res.StatusCode, raw, err)
			return
		}
		u.again.Add(1)
		pause, err := strconv.Atoi(res.Header.Get("Retry-After"))
		if err != nil {
			u.t.Errorf("%s: 503 without Retry-After", path)
			return
		}
		time.Sleep(time.Duration(pause) * time.Second) // as a client would
	}
}

func (u *loadUploader) form(token string, size, rate int64, query string) {
	head := "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n"
	sum := sha256.New()
	var f fileAnswer
	u.do("POST", "/files"+query, token, "multipart/form-data; boundary=x", http.StatusCreated, &f, func() io.Reader {
		sum.Reset()
		content := io.TeeReader(paced(noise(size), rate), sum)
		return io.MultiReader(bytes.NewBufferString(head), content, bytes.NewBufferString("\r\n--x--\r\n"))
	})
	if want := hex.EncodeToString(sum.Sum(nil)); f.Size != size || f.SHA256 != want {
		u.t.Errorf("answered %+v, want %d bytes with %s", f, size, want)
	}
}

func (u *loadUploader) parts(token string, size, rate int64) {
	var begun struct {
		ID       string
		PartSize int64 `json:"part_size"`
	}
	u.do("POST", "/files/uploads", token, "application/json", http.StatusCreated, &begun, func() io.Reader {
		return bytes.NewBufferString(fmt.Sprintf(`{"size":%d}`, size))
	})
	if begun.ID == "" {
		return
	}
	path := "/files/uploads/" + begun.ID
	for n := int64(1); (n-1)*begun.PartSize < size; n++ {
		piece := min(begun.PartSize, size-(n-1)*begun.PartSize)
		var p struct{ Size int64 }
		u.do("PUT", fmt.Sprintf("%s/parts/%d", path, n), token, "application/octet-stream", http.StatusOK, &p, func() io.Reader {
			return paced(noise(piece), rate)
		})
	}
	var f fileAnswer
	u.do("POST", path+"/complete", token, "", http.StatusCreated, &f, func() io.Reader { return http.NoBody })
	if f.Size != size {
		u.t.Errorf("answered %+v, want %d bytes", f, size)
	}
}

// paced passes r on at so many bytes a second, 0: as fast as it comes.
func paced(r io.Reader, rate int64) io.Reader {
	if rate == 0 {
		return r
	}
	return &pacedReader{r: r, rate: rate, began: time.Now()}
}

type pacedReader struct {
	r       io.Reader
	rate, n int64
	began   time.Time
}

// Read implements io.Reader.
func (p *pacedReader) Read(b []byte) (int, error) {
	due := p.began.Add(time.Duration(p.n) * time.Second / time.Duration(p.rate))
	time.Sleep(time.Until(due))
	n, err := p.r.Read(b[:min(len(b), 16<<10)])
	p.n += int64(n)
	return n, err
}
