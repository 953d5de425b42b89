package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

func TestOf(t *testing.T) {
	own := New(NotFound, "file_not_found", "There is no such file.")
	for name, c := range map[string]struct {
		err  error
		kind Kind
		code string
	}{
		"our own":            {own, NotFound, "file_not_found"},
		"our own, wrapped":   {fmt.Errorf("download: %w", own.Because(io.EOF)), NotFound, "file_not_found"},
		"a caller that left": {fmt.Errorf("get: %w", context.Canceled), Timeout, "canceled"},
		"too slow":           {context.DeadlineExceeded, UpstreamTimeout, "timeout"},
		"anything else":      {io.ErrUnexpectedEOF, Internal, "internal"},
	} {
		if e := Of(c.err); e.Kind != c.kind || e.Code != c.code {
			t.Errorf("%s: got %d %s, want %d %s", name, e.Kind, e.Code, c.kind, c.code)
		} else if !errors.Is(e, c.err) && !errors.Is(c.err, e) {
			t.Errorf("%s: the cause is lost: %v", name, e)
		}
	}
}

func TestCopiesLeaveTheOriginalAlone(t *testing.T) {
	base := Newf(Limited, "too_many", "At most %d.", 3)
	e := base.Because(io.EOF).After(time.Second)
	if !errors.Is(e, base) || !errors.Is(e, io.EOF) || e.RetryAfter != time.Second || e.Msg != "At most 3." {
		t.Errorf("the copy is %+v", e)
	}
	if base.RetryAfter != 0 || errors.Unwrap(base) != nil {
		t.Errorf("the original became %+v", base)
	}
	if errors.Is(e, New(Limited, "other", "")) || errors.Is(e, New(Invalid, "too_many", "")) {
		t.Error("it is taken for another error")
	}
	if got, want := e.Error(), "too_many: At most 3.: EOF"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
}
