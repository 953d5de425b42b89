package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// result is what a side did in one round, or in all of them.
type result struct {
	took   []time.Duration // of every request that was answered 200
	failed int
	wall   time.Duration
	cpu    time.Duration
}

func (r *result) add(o result) {
	r.took = append(r.took, o.took...)
	r.failed += o.failed
	r.wall += o.wall
	r.cpu += o.cpu
}

func (r *result) rate() float64 { return float64(len(r.took)) / r.wall.Seconds() }

func (r *result) cpuPerRequest() float64 {
	return float64(r.cpu.Microseconds()) / float64(len(r.took))
}

func (r *result) quantile(q float64) time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	slices.Sort(r.took)
	return r.took[min(int(q*float64(len(r.took))), len(r.took)-1)].Round(10 * time.Microsecond)
}

// load sends requests for a while: each connection the next one when it has
// the answer to the last.
func load(ctx context.Context, s *side, connections int, d time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		all     result
		problem error
		mu      sync.Mutex
		wg      sync.WaitGroup
	)
	start := time.Now()
	for range connections {
		wg.Go(func() {
			r, err := client(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			all.add(r)
			problem = errors.Join(problem, err)
		})
	}
	wg.Wait()
	all.wall = time.Since(start)
	if problem == nil && len(all.took) == 0 {
		problem = errors.New("no request was answered")
	}
	return all, problem
}

// client is one connection. It finishes what it has begun when ctx ends.
func client(ctx context.Context, s *side) (r result, err error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return r, err
	}
	defer func() { _ = conn.Close() }()
	// What a mini-program sends, about.
	request := fmt.Appendf(nil, "GET /api/orders?page=2 HTTP/1.1\r\nHost: gate.example.com\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nAccept-Encoding: gzip, deflate, br\r\nReferer: https://servicewechat.com/wx0000000000000dev/1/page-frame.html\r\n"+
		"User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.50 NetType/WIFI Language/zh_CN\r\n\r\n", s.token)
	in := bufio.NewReaderSize(conn, 16<<10)
	for first := true; first || ctx.Err() == nil; first = false {
		start := time.Now()
		if err := conn.SetDeadline(start.Add(time.Minute)); err != nil {
			return r, err
		}
		if _, err := conn.Write(request); err != nil {
			return r, err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return r, err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return r, err
		}
		if res.StatusCode != http.StatusOK {
			r.failed++
			continue
		}
		r.took = append(r.took, time.Since(start))
	}
	return r, nil
}
