// Command files compares minigate's uploads with what else one would put there.
// With S3 (a MinIO server of its own) beside tusd with its s3store, and beside
// clients that send to the storage itself by presigned PUT, which is what the
// storage can do at most; with a folder beside an HTTP server that does nothing
// but copy the body into a file and sync it.
//
// It prints megabytes a second, the CPU time that a gigabyte costs in the
// gateway, and the memory that the gateway held at most. Client, gateway and
// storage share the machine, so the CPU time says more than the speed. Storage
// and client are on nobody's bill.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/minigate/minigate/bench/harness"
)

type options struct {
	rounds   int
	files    int
	size     int // bytes of a file
	clients  int
	minigate string
	minio    string
	only     string
	sign     bool
	markdown bool
	versions []string // of what is compared
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "serve" { // a server of the benchmark, in a process of its own
		if err := serve(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "`number` of rounds of each side, in turns")
	flag.IntVar(&o.files, "files", 8, "`number` of files in a round")
	flag.IntVar(&o.size, "size", 32<<20, "`bytes` of a file")
	flag.IntVar(&o.clients, "clients", 2, "`number` of clients that upload at the same time")
	flag.StringVar(&o.minigate, "minigate", "", "`program` to measure; built from the repository if empty")
	flag.StringVar(&o.minio, "minio", "", "`program` of MinIO; the one that make setup installs if empty")
	flag.StringVar(&o.only, "only", "", "`name` of the only side to measure, for its profile")
	flag.BoolVar(&o.sign, "sign", false, "both sign what they send to the storage, as over plain HTTP they do unless told otherwise; else neither does, as over HTTPS")
	flag.BoolVar(&o.markdown, "markdown", false, "print the table in Markdown")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "files:", err)
		os.Exit(1)
	}
}

// side is one way to upload.
type side struct {
	name  string
	group string // what it is compared with
	pid   int    // of the gateway; 0: there is none
	send  func(ctx context.Context, data []byte) error

	speeds []float64 // MB/s of each round
	costs  []float64 // CPU seconds per GB of each round
	peak   int64     // bytes
}

func (s *side) speed() float64 { return harness.Median(s.speeds) }
func (s *side) cost() float64  { return harness.Median(s.costs) }

// run measures all sides in turns, so that what else happens on the machine
// meets all of them.
func run(ctx context.Context, o options, out io.Writer) error {
	b := &bench{options: o}
	defer b.close()
	sides, err := b.start(ctx)
	if err != nil {
		return err
	}
	if o.only != "" {
		sides = slices.DeleteFunc(sides, func(s *side) bool { return s.name != o.only })
	}
	data := make([]byte, o.size)
	_, _ = rand.Read(data) // never fails
	for _, s := range sides {
		if err := s.send(ctx, data); err != nil { // warms up
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for range o.rounds {
		for _, s := range sides {
			err := s.round(ctx, o, data)
			if err == nil {
				err = b.dropContent()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return print(out, sides, b.options)
}

func (s *side) round(ctx context.Context, o options, data []byte) error {
	settleDisk()
	before, err := cpuTime(s.pid)
	if err != nil {
		return err
	}
	began := time.Now()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range o.clients {
		g.Go(func() error {
			for next.Add(1) <= int64(o.files) {
				if err := s.send(ctx, data); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	took, sent := time.Since(began), float64(o.files)*float64(o.size)
	after, err := cpuTime(s.pid)
	if err != nil {
		return err
	}
	s.speeds = append(s.speeds, sent/1e6/took.Seconds())
	s.costs = append(s.costs, (after-before).Seconds()/(sent/1e9))
	s.peak, err = peakMemory(s.pid)
	return err
}

// print writes a table of medians, and the ratios that matter.
func print(out io.Writer, sides []*side, o options) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	line := "%s\t%s\t%s\t%s\t\n"
	if o.markdown {
		line = "| %s | %s | %s | %s |\n"
	}
	row := func(cells ...any) { _, _ = fmt.Fprintf(t, line, cells...) } // Flush tells
	row("", "MB/s", "CPU-s per GB", "peak RSS")
	if o.markdown {
		row("---", "---:", "---:", "---:")
	}
	by := map[string]*side{}
	for i, s := range sides {
		if i > 0 && sides[i-1].group != s.group && !o.markdown {
			row("", "", "", "")
		}
		cpu, peak := "-", "-"
		if s.pid != 0 {
			cpu, peak = fmt.Sprintf("%.2f", s.cost()), fmt.Sprintf("%d MiB", s.peak>>20)
		}
		row(s.name, fmt.Sprintf("%.0f", s.speed()), cpu, peak)
		by[s.name] = s
	}
	if err := t.Flush(); err != nil || len(sides) < 2 {
		return err
	}
	_, err := fmt.Fprintf(out, "\nBytes per CPU-second, %s to %s: %.2f. Speed, %s to %s: %.2f.\n\n%s %d files of %d MB, %d at a time; medians of %d rounds.\n",
		tusS3, tusdS3, by[tusdS3].cost()/by[tusS3].cost(), formFolder, plainCopy, by[formFolder].speed()/by[plainCopy].speed(),
		harness.Describe(o.versions...), o.files, o.size/1_000_000, o.clients, o.rounds)
	return err
}
