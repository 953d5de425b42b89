package wxsim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" //nolint:gosec // WeChat's open-data signature is SHA-1
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

type simRequest struct {
	AppID string          `json:"appid"`
	User  string          `json:"user"`
	Data  json.RawMessage `json:"data"`

	Template string `json:"template"` // of /sim/grant
}

type codeAnswer struct {
	Code string `json:"code"`
}

type watermark struct {
	Timestamp int64  `json:"timestamp"` // Unix seconds
	AppID     string `json:"appid"`
}

// profile is the userInfo of the phone's open-data calls, in their order.
type profile struct {
	NickName  string `json:"nickName"`
	Gender    int    `json:"gender"`
	Language  string `json:"language"`
	City      string `json:"city"`
	Province  string `json:"province"`
	Country   string `json:"country"`
	AvatarURL string `json:"avatarUrl"`
}

// OpenData is what wx.getUserInfo and its kin hand to the mini-program.
type OpenData struct {
	RawData       string `json:"rawData"`
	Signature     string `json:"signature"`
	EncryptedData string `json:"encryptedData"`
	IV            string `json:"iv"`
}

// serveLogin is POST /sim/login, the simulator's wx.login.
func (s *Server) serveLogin(w http.ResponseWriter, r *http.Request) error {
	req, err := s.simRequest(w, r)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, codeAnswer{s.NewCode(req.AppID, req.User)})
}

// servePhone is POST /sim/phone, the simulator's getPhoneNumber button.
func (s *Server) servePhone(w http.ResponseWriter, r *http.Request) error {
	req, err := s.simRequest(w, r)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, codeAnswer{s.NewPhoneCode(req.AppID, req.User)})
}

// serveOpenData is POST /sim/opendata: data (a made-up profile where absent),
// signed and encrypted under the user's current session_key.
func (s *Server) serveOpenData(w http.ResponseWriter, r *http.Request) error {
	req, err := s.simRequest(w, r)
	if err != nil {
		return err
	}
	raw, plain, err := s.openData(req)
	if err != nil {
		return err
	}
	key, ok := s.sessionKey(req.AppID, OpenID(req.AppID, req.User))
	if !ok {
		return fault.New(fault.Conflict, "not_logged_in", "This user has no session_key yet: redeem a login code first.")
	}
	iv := random(aes.BlockSize)
	encrypted, err := encrypt(key, iv, plain)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, OpenData{
		RawData:       string(raw),
		Signature:     signature(raw, key),
		EncryptedData: base64.StdEncoding.EncodeToString(encrypted),
		IV:            base64.StdEncoding.EncodeToString(iv),
	})
}

func (s *Server) sessionKey(appID, openID string) (key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.keys.get(userKey(appID, openID), s.now()); e != nil {
		return e.value, true
	}
	return "", false
}

func (s *Server) simRequest(w http.ResponseWriter, r *http.Request) (*simRequest, error) {
	var req simRequest
	if err := rest.Decode(w, r, maxBody, &req); err != nil {
		return nil, err
	}
	if _, known := s.secrets[req.AppID]; !known {
		return nil, fault.New(fault.Invalid, "appid_unknown", "The simulator does not know this appid.")
	}
	if !validName(req.User) {
		return nil, fault.Newf(fault.Invalid, "user_invalid", "A user name has 1 to %d letters, digits, or any of _ . -", maxName)
	}
	return &req, nil
}

// openData returns what the phone shows the mini-program and what it encrypts.
func (s *Server) openData(req *simRequest) (raw, plain []byte, err error) {
	mark := watermark{s.now().Unix(), req.AppID}
	if len(req.Data) == 0 || string(req.Data) == "null" {
		p := profile{NickName: req.User, Language: "zh_CN", AvatarURL: "https://thirdwx.qlogo.cn/mmopen/vi_32/sim/132"}
		if raw, err = json.Marshal(p); err != nil {
			return nil, nil, err
		}
		plain, err = json.Marshal(struct {
			OpenID string `json:"openId"`
			profile
			UnionID   string    `json:"unionId"`
			Watermark watermark `json:"watermark"`
		}{OpenID(req.AppID, req.User), p, UnionID(req.User), mark})
		return raw, plain, err
	}
	var fields map[string]any
	if json.Unmarshal(req.Data, &fields) != nil {
		return nil, nil, fault.New(fault.Invalid, "data_invalid", "data must be a JSON object.")
	}
	fields["watermark"] = mark
	plain, err = json.Marshal(fields)
	return req.Data, plain, err
}

// phoneNumber is POST /wxa/business/getuserphonenumber. That a code together
// with somebody else's openid is refused is documented, with which errcode is
// not: the simulator calls it an invalid code.
func (s *Server) phoneNumber(r *http.Request) (any, error) {
	var req struct {
		Code   string `json:"code"`
		OpenID string `json:"openid"`
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
	if e := s.phones.get(req.Code, s.now()); e != nil && (e.value.used ||
		req.OpenID != "" && req.OpenID != OpenID(appID, e.value.user)) {
		return nil, &apiError{40029, "invalid code"} // here also for used codes
	}
	user, err := s.redeem(&s.phones, appID, req.Code)
	if err != nil {
		return nil, err
	}
	return phoneAnswer(appID, Phone(user), s.now().Unix()), nil
}

type phoneInfo struct {
	PhoneNumber string    `json:"phoneNumber"`
	Pure        string    `json:"purePhoneNumber"`
	CountryCode string    `json:"countryCode"`
	Watermark   watermark `json:"watermark"`
}

func phoneAnswer(appID, number string, unix int64) any {
	return struct {
		failure
		PhoneInfo phoneInfo `json:"phone_info"`
	}{success, phoneInfo{number, number, "86", watermark{unix, appID}}}
}

// signature is WeChat's over rawData: hex(sha1(rawData ‖ session_key)).
func signature(raw []byte, sessionKey string) string {
	sum := sha1.Sum(append(raw[:len(raw):len(raw)], sessionKey...)) //nolint:gosec // see import
	return hex.EncodeToString(sum[:])
}

// encrypt is AES-128-CBC with PKCS#7 padding.
func encrypt(sessionKey string, iv, plain []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(sessionKey)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	out := make([]byte, len(plain)+pad)
	for i := copy(out, plain); i < len(out); i++ {
		out[i] = byte(pad)
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, out)
	return out, nil
}
