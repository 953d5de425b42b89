package auth

import (
	"cmp"
	"context"
	"net/http"

	"github.com/minigate/minigate/auth/wechat"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	maxOpenDataBody = 256 << 10 // bytes; text is escaped in JSON
	maxPhoneBody    = 4 << 10
)

// ServeOpenData is POST /auth/opendata, behind [Service.Require]:
// {raw_data, signature} and/or {encrypted_data, iv} → {raw_data?, data?, jws}.
func (s *Service) ServeOpenData(w http.ResponseWriter, r *http.Request) error {
	user := SessionFrom(r.Context()).User
	if err := s.opener.limits.take(user); err != nil {
		return err
	}
	var req OpenDataRequest
	if err := rest.Decode(w, r, maxOpenDataBody, &req); err != nil {
		return err
	}
	opened, err := s.OpenData(r.Context(), user, req)
	if err != nil {
		return err
	}
	s.vouch(r.Context(), Vouched{User: user, Kind: "opendata", RawData: opened.RawData, Data: opened.Data})
	return rest.JSON(w, http.StatusOK, opened)
}

// ServePhone is POST /auth/phone, behind [Service.Require]:
// {code} → {phone_number, pure_phone_number, country_code, jws}.
func (s *Service) ServePhone(w http.ResponseWriter, r *http.Request) error {
	user := SessionFrom(r.Context()).User
	if err := s.opener.limits.take(user); err != nil {
		return err
	}
	var req struct {
		Code string `json:"code"`
	}
	if err := rest.Decode(w, r, maxPhoneBody, &req); err != nil {
		return err
	}
	number, err := s.PhoneNumber(r.Context(), user, req.Code)
	if err != nil {
		return err
	}
	s.vouch(r.Context(), Vouched{User: user, Kind: "phone", Data: number.data})
	return rest.JSON(w, http.StatusOK, number)
}

// ServeKeys is GET /.well-known/jwks.json: the public keys of what we sign.
func (s *Service) ServeKeys(w http.ResponseWriter, r *http.Request) { s.opener.signer.ServeKeys(w, r) }

// backendUser names a user in a request of the backend.
type backendUser struct {
	OpenID string `json:"user"`
	AppID  string `json:"appid"` // "" means the first mini-program configured
}

// known checks that there can be such a user.
func (s *Service) known(u backendUser) (User, error) {
	user := User{AppID: cmp.Or(u.AppID, s.defaultApp), OpenID: u.OpenID}
	if s.apps[user.AppID] == nil {
		return user, errAppIDUnknown
	}
	return user, CheckOpenID(user.OpenID)
}

// ServeOpenDataOf is POST /api/opendata, for the backend: it opens what a phone
// sent to the backend, for the user that the backend means.
// {user, appid?} and as ServeOpenData → {raw_data?, data?, jws}.
func (s *Service) ServeOpenDataOf(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		backendUser
		OpenDataRequest
	}
	if err := rest.Decode(w, r, maxOpenDataBody, &req); err != nil {
		return err
	}
	user, err := s.known(req.backendUser)
	if err != nil {
		return err
	}
	opened, err := s.OpenData(r.Context(), user, req.OpenDataRequest)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, opened)
}

// ServeCheckSession is POST /api/users/check_session, for operators:
// {user, appid?} → {current}, which says whether WeChat still takes the
// user's newest session_key.
func (s *Service) ServeCheckSession(w http.ResponseWriter, r *http.Request) error {
	user, key, err := s.newestKey(w, r)
	if err != nil {
		return err
	}
	err = s.apps[user.AppID].CheckSession(r.Context(), user.OpenID, key)
	if err != nil && fault.Of(err).Code != wechat.ErrSessionKey.Code {
		return err
	}
	return rest.JSON(w, http.StatusOK, map[string]bool{"current": err == nil})
}

// ServeResetSessionKey is POST /api/users/reset_session_key, for operators:
// {user, appid?} → 204. It ends the user's newest session_key at WeChat, and
// with it all that are kept here: the one that WeChat answers with takes their
// place. The phone, which has data under the old one, learns of it as
// `session_key_stale` and fetches the data again. After 503
// `sessions_unavailable` the old ones are still kept and dead at WeChat: after
// the user's next login they can be reset again.
func (s *Service) ServeResetSessionKey(w http.ResponseWriter, r *http.Request) error {
	user, key, err := s.newestKey(w, r)
	if err != nil {
		return err
	}
	fresh, err := s.apps[user.AppID].ResetSessionKey(r.Context(), user.OpenID, key)
	if err != nil {
		return err
	}
	// WeChat has done it: that the operator hangs up now changes nothing.
	after, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTimeout)
	defer cancel()
	if err := s.store.ReplaceKeys(after, user.OpenID, s.sealSessionKey(user, fresh)); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) newestKey(w http.ResponseWriter, r *http.Request) (user User, key string, err error) {
	var req backendUser
	if err := rest.Decode(w, r, maxPhoneBody, &req); err != nil {
		return user, "", err
	}
	if user, err = s.known(req); err != nil {
		return user, "", err
	}
	keys, err := s.sessionKeys(r.Context(), user)
	if err == nil && len(keys) == 0 {
		err = wechat.ErrSessionKey
	}
	if err != nil {
		return user, "", err
	}
	return user, keys[0], nil
}
