package transfer

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// precondition evaluates the conditional headers of a GET or HEAD in the order
// of RFC 9110 §13.2.2 and returns 200, 304 or 412.
func precondition(h http.Header, etag string, modified time.Time) int {
	if list := h.Values("If-Match"); len(list) > 0 {
		if !matchETag(strings.Join(list, ","), etag, true) {
			return http.StatusPreconditionFailed
		}
	} else if t, err := http.ParseTime(h.Get("If-Unmodified-Since")); err == nil && modified.After(t) {
		return http.StatusPreconditionFailed
	}
	if list := h.Values("If-None-Match"); len(list) > 0 {
		if matchETag(strings.Join(list, ","), etag, false) {
			return http.StatusNotModified
		}
	} else if t, err := http.ParseTime(h.Get("If-Modified-Since")); err == nil && !modified.After(t) {
		return http.StatusNotModified
	}
	return http.StatusOK
}

// pinned tells whether a request is for one version of a file alone. Clients that
// follow a redirect take the mark of that version along, and a storage knows it
// by another: it would refuse it, or not look at it.
func pinned(h http.Header) bool {
	return h.Get("If-Match") != "" || h.Get("If-Unmodified-Since") != "" || h.Get("If-Range") != ""
}

// matchETag tells whether list ("*", or entity tags between commas) has etag,
// which is strong. A strong comparison passes over weak tags. What follows a
// tag that is not well-formed does not count.
func matchETag(list, etag string, strong bool) bool {
	for {
		list = strings.TrimLeft(list, ", \t")
		if strings.HasPrefix(list, "*") {
			return true
		}
		tag, weak := strings.CutPrefix(list, "W/")
		if !strings.HasPrefix(tag, `"`) {
			return false
		}
		end := strings.IndexByte(tag[1:], '"')
		if end < 0 {
			return false
		}
		end += 2
		if tag[:end] == etag && (!weak || !strong) {
			return true
		}
		list = tag[end:]
	}
}

// byteRange is what of a file is sent.
type byteRange struct {
	start, length int64
	partial       bool // 206 rather than 200
}

// requested returns what a GET asks for of size bytes: all of it, unless there
// is a Range whose If-Range holds. It answers false where the range begins
// behind the end.
func requested(h http.Header, etag string, modified time.Time, size int64) (byteRange, bool) {
	all := byteRange{length: size}
	header := h.Get("Range")
	if header == "" || !ifRange(h.Get("If-Range"), etag, modified) {
		return all, true
	}
	return parseRange(header, size)
}

// ifRange tells whether a range may be answered (RFC 9110 §13.1.5).
func ifRange(value, etag string, modified time.Time) bool {
	if value == "" || value == etag {
		return true
	}
	t, err := http.ParseTime(value)
	return err == nil && t.Equal(modified)
}

// parseRange reads a Range header (RFC 9110 §14.2). More than one range, other
// units and what is not well-formed are answered with the whole file, as the
// RFC allows.
func parseRange(header string, size int64) (byteRange, bool) {
	all := byteRange{length: size}
	unit, spec, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return all, true
	}
	first, last, ok := strings.Cut(textproto.TrimString(spec), "-")
	if !ok || !digits(first) || !digits(last) || first == "" && last == "" {
		return all, true
	}
	if first == "" {
		n := min(number(last), size)
		switch {
		case number(last) == 0:
			return all, false
		case n == 0:
			return all, true // the end of nothing
		}
		return byteRange{size - n, n, true}, true
	}
	start, end := number(first), size-1
	if last != "" {
		if number(last) < start {
			return all, true
		}
		end = min(number(last), end)
	}
	if start >= size {
		return all, false
	}
	return byteRange{start, end - start + 1, true}, true
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// number is the value of digits; what does not fit is larger than any file.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // out of range gives the largest int64
	return n
}
