package wxsim

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// RiskyText is what the simulator calls risky in version 2. RiskyTextV1 is the
// sample of the old documentation, which only version 1 objects to.
const (
	RiskyText   = "sim-违规"
	RiskyTextV1 = "特3456书yuuo莞6543李zxcz蒜7782法fgnv级"
)

const (
	maxContent  = 2500          // characters
	activeFor   = 2 * time.Hour // users whose content may be checked
	suggestPass = "pass"
)

type checkResult struct {
	Suggest string `json:"suggest"`
	Label   any    `json:"label"` // a number here, a string in pushes
}

// msgSecCheck is POST /wxa/msg_sec_check. It looks at the bytes of the body as
// the real one does: text in \u escapes passes unread.
func (s *Server) msgSecCheck(r *http.Request) (any, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	var req struct {
		Version any    `json:"version"`
		OpenID  string `json:"openid"`
		Scene   int    `json:"scene"`
		Content string `json:"content"`
	}
	if err != nil || len(body) > maxBody || json.Unmarshal(body, &req) != nil {
		return nil, &apiError{47001, "data format error"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	appID, err := s.accessToken(r.URL.Query().Get("access_token"))
	if err != nil {
		return nil, err
	}
	if req.Version == nil {
		if strings.Contains(string(body), RiskyTextV1) {
			return nil, &apiError{87014, "risky content"}
		}
		return success, nil
	}
	if err := s.checkActive(appID, req.OpenID, req.Scene); err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(req.Content) > maxContent {
		return nil, &apiError{45002, "content size out of limit"}
	}
	result := checkResult{suggestPass, 100}
	if strings.Contains(string(body), RiskyText) {
		result = checkResult{"risky", 20001}
	}
	return struct {
		failure
		TraceID string      `json:"trace_id"`
		Result  checkResult `json:"result"`
	}{success, s.traceID(), result}, nil
}

// mediaCheck is POST /wxa/media_check_async. Files with "risky" in their URL
// are. The verdict waits for [Server.Deliver].
func (s *Server) mediaCheck(r *http.Request) (any, error) {
	var req struct {
		OpenID string `json:"openid"`
		Scene  int    `json:"scene"`
		Type   int    `json:"media_type"`
		URL    string `json:"media_url"`
	}
	if err := readJSON(r, &req); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	appID, err := s.accessToken(r.URL.Query().Get("access_token"))
	if err != nil {
		return nil, err
	}
	if err := s.checkActive(appID, req.OpenID, req.Scene); err != nil {
		return nil, err
	}
	if req.Type != 1 && req.Type != 2 || !strings.HasPrefix(req.URL, "http") {
		return nil, &apiError{40097, "invalid args"}
	}
	result := checkResult{suggestPass, "100"}
	if strings.Contains(req.URL, "risky") {
		result = riskyMedia
	}
	id := s.traceID()
	s.queue(appID, map[string]any{
		"ToUserName": "gh_0000000000ab", "FromUserName": req.OpenID, "CreateTime": s.now().Unix(),
		"MsgType": "event", "Event": "wxa_media_check", "appid": appID, "trace_id": id, "version": 2,
		"result": result,
		"detail": []any{map[string]any{"strategy": "content_model", "errcode": 0, "suggest": result.Suggest, "label": result.Label, "prob": 90}},
	}, req.URL)
	return struct {
		failure
		TraceID string `json:"trace_id"`
	}{success, id}, nil
}

var riskyMedia = checkResult{"risky", "20002"}

// look fetches the file that a queued verdict is on, and corrects that.
func (s *Server) look(ctx context.Context, q queuedPush) {
	if s.fetch == nil || q.media == "" {
		return
	}
	content, err := s.fetchMedia(ctx, q.media)
	switch {
	case err != nil:
		q.event["errcode"], q.event["errmsg"] = -1008, err.Error()
		delete(q.event, "result")
	case bytes.Contains(content, []byte(RiskyText)):
		q.event["result"] = riskyMedia
	}
}

func (s *Server) fetchMedia(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := s.fetch.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("download: HTTP %d", res.StatusCode)
	}
	return io.ReadAll(io.LimitReader(res.Body, 10<<20))
}

// checkActive wants a user who logged in lately. s.mu is held.
func (s *Server) checkActive(appID, openID string, scene int) error {
	if scene < 1 || scene > 4 {
		return &apiError{40097, "invalid args: scene"}
	}
	now := s.now()
	key := s.keys.get(userKey(appID, openID), now)
	if key == nil {
		return &apiError{40003, "invalid openid"}
	}
	if login := key.expires.Add(-keyLife); now.Sub(login) > activeFor {
		return &apiError{61010, "code is expired"}
	}
	return nil
}

func (s *Server) traceID() string {
	id := random(8)
	return fmt.Sprintf("%08x-%s-%s", s.now().Unix(), hex.EncodeToString(id[:4]), hex.EncodeToString(id[4:]))
}
