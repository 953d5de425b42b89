package proxy

import (
	"net/http"
	"testing"
)

func TestDropCORS(t *testing.T) {
	h := http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Expose-Headers": {"X"}, "Vary": {"Origin"}}
	dropCORS(h)
	if len(h) != 1 || h.Get("Vary") != "Origin" {
		t.Errorf("left %v", h)
	}
}
