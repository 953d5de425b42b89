package auth

import (
	"context"
	"encoding/json"
	"time"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/jws"
)

var (
	errOpenDataMissing = fault.New(fault.Invalid, "opendata_missing", "Give raw_data and signature, or encrypted_data and iv, or all four, as WeChat handed them to the phone.")
	errOpenDataInvalid = fault.New(fault.Invalid, "opendata_invalid", "This cannot be what WeChat handed to the phone.")
)

const (
	maxRawData = 64 << 10 // bytes
	// staleAfter is how long every refusal takes that depends on a key. The
	// work it hides takes a few hundred microseconds at most.
	staleAfter = 50 * time.Millisecond
	clockSkew  = 5 * time.Minute // between WeChat's clock and ours
)

// opener is what the service needs to open data and to vouch for it.
type opener struct {
	OpenDataSettings
	signer *jws.Signer
	limits *userLimits
}

func newOpener(o Options) (opener, error) {
	open := opener{o.Settings.WeChat.OpenData, o.Signer, newUserLimits(o.Settings.WeChat.OpenData)}
	var err error
	if open.signer == nil {
		open.signer, err = jws.New()
	}
	return open, err
}

// OpenDataRequest is what a wx API such as wx.getUserProfile or wx.getWeRunData
// handed to a phone: RawData with its Signature, EncryptedData with its IV, or
// both pairs.
type OpenDataRequest struct {
	RawData       string `json:"raw_data"` // byte for byte as it came, at most 64 KiB
	Signature     string `json:"signature"`
	EncryptedData string `json:"encrypted_data"` // at most 64 KiB decoded
	IV            string `json:"iv"`
}

// OpenedData is what WeChat vouches for.
type OpenedData struct {
	RawData json.RawMessage `json:"raw_data,omitempty"` // the signature is right
	Data    json.RawMessage `json:"data,omitempty"`     // decrypted, watermark included
	// JWS says the same to whoever asks our public keys, for as long as
	// wechat.open_data.proof_ttl.
	JWS string `json:"jws"`
}

// OpenData verifies and decrypts open data with the user's latest
// session_keys, of which one has to fit all that was given. The watermark must
// name the user's mini-program and be recent, and an openid in the data must be
// the user's.
//
// What is malformed under any key is Invalid `opendata_missing`,
// `opendata_invalid`. Everything else that can be wrong is one Conflict
// `session_key_stale`, also in the time it takes, so that nobody learns from it
// what is inside; the cure is the same for all: wx.login, log in, fetch the
// data again. Fault otherwise: Unavailable `sessions_unavailable`.
func (s *Service) OpenData(ctx context.Context, user User, req OpenDataRequest) (*OpenedData, error) {
	opened, err := s.openData(ctx, user, req)
	s.countOpenData("opendata", err)
	return opened, err
}

func (s *Service) openData(ctx context.Context, user User, req OpenDataRequest) (*OpenedData, error) {
	p, err := parseOpenData(req)
	if err != nil {
		return nil, err
	}
	keys, err := s.sessionKeys(ctx, user)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for _, key := range keys {
		if opened := p.open(user, key, start, s.opener.MaxAge); opened != nil {
			opened.JWS, err = s.prove(user, "opendata", proof{RawData: opened.RawData, Data: opened.Data})
			return opened, err
		}
	}
	if !sleep(ctx, time.Until(start.Add(staleAfter))) {
		return nil, ctx.Err()
	}
	return nil, wechat.ErrSessionKey
}

// parsedOpenData is a request in which everything is right that no key is
// needed for.
type parsedOpenData struct {
	raw, signature string
	cipher         *wechat.Ciphertext // nil where there is none
}

func parseOpenData(req OpenDataRequest) (p parsedOpenData, err error) {
	signed, encrypted := req.RawData != "" || req.Signature != "", req.EncryptedData != "" || req.IV != ""
	if !signed && !encrypted {
		return p, errOpenDataMissing
	}
	if signed {
		if len(req.RawData) > maxRawData || len(req.Signature) != 40 || !json.Valid([]byte(req.RawData)) {
			return p, errOpenDataInvalid
		}
		p.raw, p.signature = req.RawData, req.Signature
	}
	if encrypted {
		if p.cipher, err = wechat.ParseCiphertext(req.EncryptedData, req.IV); err != nil {
			return p, errOpenDataInvalid.Because(err)
		}
	}
	return p, nil
}

// open tries one key, and returns nil where anything at all is wrong.
func (p *parsedOpenData) open(user User, key string, now time.Time, maxAge time.Duration) *OpenedData {
	var opened OpenedData
	if p.raw != "" {
		if !wechat.CheckSignature(p.raw, p.signature, key) {
			return nil
		}
		opened.RawData = json.RawMessage(p.raw)
	}
	if p.cipher == nil {
		return &opened
	}
	d, err := p.cipher.Open(key)
	// Without the openid anybody could put another user's into his own data
	// by changing its iv.
	if err != nil || d.AppID != user.AppID || d.OpenID != "" && d.OpenID != user.OpenID ||
		d.At.Before(now.Add(-maxAge)) || d.At.After(now.Add(clockSkew)) {
		return nil
	}
	opened.Data = d.JSON
	return &opened
}

func (s *Service) countOpenData(kind string, err error) {
	result := "ok"
	if err != nil {
		result = fault.Of(err).Code
	}
	s.metrics.openData.WithLabelValues(kind, result).Inc()
}
