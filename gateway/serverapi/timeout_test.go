package serverapi

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// All who ask at the same moment wait for the same end, which has not come.
func TestTimeoutAskedForAtOnce(t *testing.T) {
	for range 2000 {
		ctx := withTimeout(t.Context(), time.Hour)
		var asked [4]<-chan struct{}
		var ready, done sync.WaitGroup
		ready.Add(len(asked))
		for i := range asked {
			done.Go(func() {
				ready.Done()
				ready.Wait()
				asked[i] = ctx.Done()
			})
		}
		done.Wait()
		for _, end := range asked {
			select {
			case <-end:
				t.Fatal("it has ended")
			default:
			}
			if end != ctx.Done() {
				t.Fatal("two ends")
			}
		}
		ctx.cancel()
		<-asked[0]
	}
}

// TestTimeout: it ends as one of package context does, whether somebody waits
// for it or only looks.
func TestTimeout(t *testing.T) {
	type key struct{}
	for name, c := range map[string]struct {
		waits bool // before it ends
		end   func(parent, own func())
		want  error
	}{
		"deadline, waited for":     {true, func(_, _ func()) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"deadline, looked at":      {false, func(_, _ func()) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"the caller went, waiting": {true, func(parent, _ func()) { parent() }, context.Canceled},
		"the caller went, looking": {false, func(parent, _ func()) { parent() }, context.Canceled},
		"done with it, waiting":    {true, func(_, own func()) { own() }, context.Canceled},
		"too early, waiting":       {true, func(_, _ func()) { time.Sleep(time.Second - 1) }, nil},
		"too early, looking":       {false, func(_, _ func()) { time.Sleep(time.Second - 1) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
				defer leave()
				ctx := withTimeout(parent, time.Second)
				defer ctx.cancel()
				if c.waits {
					ctx.Done()
				}
				c.end(leave, ctx.cancel)
				synctest.Wait()
				if err := ctx.Err(); !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				select {
				case <-ctx.Done():
					if c.want == nil {
						t.Error("it has ended")
					}
				default:
					if c.want != nil {
						t.Error("who waits now is not told")
					}
				}
				if d, ok := ctx.Deadline(); !ok || c.want == nil && time.Until(d) != 1 {
					t.Errorf("deadline %v, %v", d, ok)
				}
				if ctx.Value(key{}) != "v" {
					t.Error("a value is lost")
				}
			})
		})
	}
}

// TestTimeoutOfTimeout: the nearer deadline counts, and children end with it
// without a goroutine that watches.
func TestTimeoutOfTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		ctx := withTimeout(parent, time.Hour)
		defer ctx.cancel()
		if d, _ := ctx.Deadline(); time.Until(d) != time.Second {
			t.Errorf("deadline in %v", time.Until(d))
		}
		before := runtime.NumGoroutine()
		child, stop := context.WithCancel(ctx)
		defer stop()
		if n := runtime.NumGoroutine(); n != before {
			t.Errorf("%d goroutines more", n-before)
		}
		<-child.Done()
		if !errors.Is(child.Err(), context.DeadlineExceeded) || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("%v, %v", child.Err(), ctx.Err())
		}
	})
}
