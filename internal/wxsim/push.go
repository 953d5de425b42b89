package wxsim

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" //nolint:gosec // WeChat's push signature is SHA-1
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	maxQueued   = 1 << 10         // pushes that wait for Deliver
	pushTimeout = 5 * time.Second // WeChat waits as long
)

// PushTarget is what is entered at mp.weixin.qq.com for the message push, which
// is encrypted (the safe mode).
type PushTarget struct {
	URL    string
	Token  string
	AESKey string // EncodingAESKey, 43 characters
	XML    bool   // the envelope is XML, not JSON
}

type queuedPush struct {
	appID string
	event map[string]any
	media string // URL of the file that the event is a verdict on
}

// queue keeps an event for [Server.Deliver]. s.mu is held.
func (s *Server) queue(appID string, event map[string]any, media string) {
	if len(s.queued) < maxQueued {
		s.queued = append(s.queued, queuedPush{appID, event, media})
	}
}

// SealPush encrypts and signs a message as WeChat does: the query and the body
// of the POST that would carry it.
func (s *Server) SealPush(appID string, message []byte) (query url.Values, body []byte, err error) {
	target := s.targets[appID]
	key, err := base64.StdEncoding.DecodeString(target.AESKey + "=")
	if err != nil || len(key) != 32 {
		return nil, nil, errors.New("the mini-program has no EncodingAESKey")
	}
	plain := slices.Concat(random(16), binary.BigEndian.AppendUint32(nil, uint32(len(message))), message, []byte(appID))
	pad := 32 - len(plain)%32
	plain = append(plain, bytes.Repeat([]byte{byte(pad)}, pad)...)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(plain, plain)
	encrypted := base64.StdEncoding.EncodeToString(plain)

	timestamp, nonce := strconv.FormatInt(s.now().Unix(), 10), strconv.FormatUint(uint64(binary.BigEndian.Uint32(random(4))), 10)
	query = url.Values{
		"timestamp": {timestamp}, "nonce": {nonce}, "encrypt_type": {"aes"},
		"signature":     {sortedSHA1(target.Token, timestamp, nonce)},
		"msg_signature": {sortedSHA1(target.Token, timestamp, nonce, encrypted)},
	}
	if target.XML {
		return query, fmt.Appendf(nil, "<xml><ToUserName><![CDATA[gh_0000000000ab]]></ToUserName><Encrypt><![CDATA[%s]]></Encrypt></xml>", encrypted), nil
	}
	body, err = json.Marshal(map[string]string{"ToUserName": "gh_0000000000ab", "Encrypt": encrypted})
	return query, body, err
}

func sortedSHA1(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, ""))) //nolint:gosec // see import
	return hex.EncodeToString(sum[:])
}

// Push sends a message to the server of a mini-program, once. Anything but the
// answer "success" is an error.
func (s *Server) Push(ctx context.Context, appID string, message []byte) error {
	query, body, err := s.SealPush(appID, message)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.targets[appID].URL+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // what matters has been read
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err == nil && string(answer) != "success" {
		err = fmt.Errorf("the server answered %d %q", res.StatusCode, answer)
	}
	return err
}

// Deliver pushes the events that came up, such as verdicts on files, and says
// how many there were. Those of mini-programs without a target are dropped.
func (s *Server) Deliver(ctx context.Context) (int, error) {
	s.mu.Lock()
	queued := s.queued
	s.queued = nil
	s.mu.Unlock()
	n := 0
	for _, q := range queued {
		if s.targets[q.appID].URL == "" {
			continue
		}
		s.look(ctx, q)
		message, err := json.Marshal(q.event)
		if err == nil {
			err = s.Push(ctx, q.appID, message)
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// servePush is POST /sim/push {appid, user, data}: data is pushed as if the
// user had caused it.
func (s *Server) servePush(w http.ResponseWriter, r *http.Request) error {
	req, err := s.simRequest(w, r)
	if err != nil {
		return err
	}
	var message map[string]any
	if json.Unmarshal(req.Data, &message) != nil || message == nil {
		return fault.New(fault.Invalid, "data_invalid", "data must be a JSON object.")
	}
	message["FromUserName"], message["CreateTime"] = OpenID(req.AppID, req.User), s.now().Unix()
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if err := s.Push(r.Context(), req.AppID, data); err != nil {
		return fault.New(fault.Upstream, "push_refused", "The server did not take the push.").Because(err)
	}
	return rest.JSON(w, http.StatusOK, struct{}{})
}

// serveDeliver is POST /sim/deliver: see [Server.Deliver].
func (s *Server) serveDeliver(w http.ResponseWriter, r *http.Request) error {
	n, err := s.Deliver(r.Context())
	if err != nil {
		return fault.New(fault.Upstream, "push_refused", "The server did not take the push.").Because(err)
	}
	return rest.JSON(w, http.StatusOK, map[string]int{"delivered": n})
}
