package proxy

import (
	"net/http"
	"slices"
	"strings"

	"github.com/minigate/minigate/internal/fault"
)

// methods are what wx.request can send, less TRACE and CONNECT, plus PATCH.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
	http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// effectiveMethod is the method the backend will see. wx.request knows no
// PATCH, so a POST may name its real method in X-HTTP-Method-Override. It is
// decided here, once: the header goes no further, and no backend can act on a
// method other than the one that was looked at.
func effectiveMethod(r *http.Request) (string, error) {
	if !slices.Contains(methods, r.Method) {
		return "", fault.New(fault.NotAllowed, "method_not_allowed", "This method is not passed on.")
	}
	override := r.Header.Values("X-Http-Method-Override")
	if len(override) == 0 || r.Method != http.MethodPost {
		return r.Method, nil
	}
	if len(override) > 1 {
		return "", fault.New(fault.Invalid, "method_override_invalid", "X-HTTP-Method-Override is given more than once.")
	}
	switch m := strings.ToUpper(override[0]); m {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return m, nil
	}
	return "", fault.New(fault.Invalid, "method_override_invalid", "X-HTTP-Method-Override on a POST may be PUT, PATCH or DELETE.")
}

// wantsSocket tells whether r asks for another protocol. A WebSocket key
// alone counts: some front proxies drop the Upgrade header beside it.
func wantsSocket(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 || len(r.Header["Sec-Websocket-Key"]) > 0
}

func tooLarge(rt *route) error {
	return fault.Newf(fault.TooLarge, "body_too_large", "The body may have at most %d bytes.", rt.MaxBody)
}
