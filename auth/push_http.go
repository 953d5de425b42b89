package auth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// wellFormedEcho is what WeChat has us repeat. Nothing signs it, so it must
// not become anything else in somebody's browser.
var wellFormedEcho = regexp.MustCompile(`^[0-9A-Za-z+/=_-]{1,256}$`)

// ServePush is GET and POST /wechat/push/{appid}: the URL to enter at
// mp.weixin.qq.com for the message push. GET answers WeChat's question whether
// it is ours; POST takes a message and answers "success" when it was passed on,
// or had been before.
//
// A message has to be encrypted for its mini-program, signed, and sent within
// the last five minutes; see [PushSettings]. Everything else is 403
// `push_invalid`, whatever is wrong.
func (s *Service) ServePush(w http.ResponseWriter, r *http.Request) error {
	app := s.pushes.apps[r.PathValue("appid")]
	if app == nil {
		return errPushOff
	}
	v := r.URL.Query()
	q := pushQuery{v.Get("signature"), v.Get("msg_signature"), v.Get("timestamp"), v.Get("nonce")}
	if r.Method == http.MethodGet {
		return app.echo(w, q, v)
	}
	result := "ok"
	duplicate, err := s.servePush(w, r, app, q)
	switch {
	case errors.Is(err, errPushInvalid) || err != nil && fault.Of(err).Kind == fault.TooLarge:
		result = "refused"
	case err != nil:
		result = "failed"
	case duplicate:
		result = "duplicate"
	}
	s.metrics.pushes.WithLabelValues(result).Inc()
	if err != nil {
		return err
	}
	return answerText(w, "success")
}

func (s *Service) servePush(w http.ResponseWriter, r *http.Request, app *pushApp, q pushQuery) (duplicate bool, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), pushTimeout)
	defer cancel()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(pushTimeout)) // where the connection has one
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPush))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return false, fault.Newf(fault.TooLarge, "body_too_large", "The body may have at most %d bytes.", maxPush)
	}
	if err != nil {
		return false, errPushInvalid.Because(err)
	}
	p, replay, err := app.open(ctx, q, body)
	if err != nil {
		return false, err
	}
	return s.takePush(ctx, p, replay)
}

// echo answers the GET with which mp.weixin.qq.com checks a URL.
func (a *pushApp) echo(w http.ResponseWriter, q pushQuery, v url.Values) error {
	text := v.Get("echostr")
	if !q.recent(time.Now()) || !wellFormedEcho.MatchString(text) || !a.keys.Signed(q.signature, q.timestamp, q.nonce) {
		return errPushInvalid
	}
	return answerText(w, text)
}

func answerText(w http.ResponseWriter, text string) error {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, text) // the caller may be gone
	return nil
}
