package proxy

import "strings"

// cutPrefix removes prefix from the front of an escaped path. The prefix may
// be spelled with escapes there, but it has as many slashes: rest.OddPath let
// no encoded one through.
func cutPrefix(escaped, prefix string) string {
	for range strings.Count(prefix, "/") {
		_, escaped, _ = strings.Cut(escaped, "/")
	}
	return "/" + escaped
}
