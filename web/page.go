package web

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// The page as `make build` leaves it in console/dist; a plain one where the
// binary was built without it.
//
//go:embed console/plain.html all:console/dist
var files embed.FS

// servePage serves the page and its assets. The page itself needs no sign-in:
// it contains nothing but the form.
func servePage(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'")

	name := "console/dist/index.html"
	switch {
	case r.URL.Path == "/":
		h.Set("Cache-Control", "no-cache")
	case strings.HasPrefix(r.URL.Path, "/assets/"):
		name = "console/dist" + path.Clean(r.URL.Path)
		h.Set("Cache-Control", "public, max-age=31536000, immutable") // the name carries a hash
	default:
		http.NotFound(w, r)
		return
	}
	if _, err := fs.Stat(files, name); err != nil {
		if r.URL.Path != "/" {
			h.Del("Cache-Control")
			http.NotFound(w, r)
			return
		}
		name = "console/plain.html"
	}
	http.ServeFileFS(w, r, files, name)
}
