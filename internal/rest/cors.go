package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// CORS says which web pages may call us from a browser: the H5 build of a
// mini-program, for instance. Mini-programs themselves need none of this.
// Cookies are never allowed, we use none.
type CORS struct {
	AllowedOrigins []string `yaml:"allowed_origins" doc:"Origins of web pages that may call, such as https://h5.example.com, or * for all; empty switches CORS off."`
	AllowedHeaders []string `yaml:"allowed_headers" doc:"Request headers that pages may send to your backend beside the usual ones."`
}

// Check reports origins that no browser would ever send.
func (c *CORS) Check(report func(path, problem string)) {
	for i, o := range c.AllowedOrigins {
		u, err := url.Parse(o)
		if o != "*" && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != o) {
			report("allowed_origins["+strconv.Itoa(i)+"]", "must be an origin such as https://h5.example.com, without a slash at the end")
		}
	}
}

const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
	corsHeaders = "Authorization, Content-Type, X-HTTP-Method-Override, Range, If-Match, If-None-Match, If-Range, X-Request-Id, Idempotency-Key, Content-Digest, X-Checksum-Sha256, X-Checksum-Crc32c, " + tusHeaders
	corsExposed = "X-Request-Id, Content-Range, ETag, Content-Disposition, Retry-After, X-Minigate-File, Location, Upload-Expires, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, " + tusHeaders
	// tusHeaders are those of tus that pages send and read.
	tusHeaders = "Tus-Resumable, Upload-Length, Upload-Offset, Upload-Metadata, Upload-Defer-Length, Upload-Checksum"
	corsMaxAge = "600" // seconds a browser keeps the answer of a preflight
)

// Wrap answers preflights of allowed origins and marks every answer to them.
// Other origins are served without the mark, which the browser then refuses.
func (c CORS) Wrap(next http.Handler) http.Handler {
	if len(c.AllowedOrigins) == 0 {
		return next
	}
	headers := strings.Join(append([]string{corsHeaders}, c.AllowedHeaders...), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if !c.allows(origin) {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", headers)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h.Set("Access-Control-Expose-Headers", corsExposed)
		next.ServeHTTP(w, r)
	})
}

func (c CORS) allows(origin string) bool {
	return origin != "" && slices.ContainsFunc(c.AllowedOrigins, func(o string) bool {
		return o == "*" || strings.EqualFold(o, origin)
	})
}
