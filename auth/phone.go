package auth

import (
	"context"
	"encoding/json"

	"github.com/minigate/minigate/internal/fault"
)

// maxPhoneCode bounds the codes of the getPhoneNumber button, in bytes; real
// ones have 64.
const maxPhoneCode = 256

var errPhoneCode = fault.Newf(fault.Invalid, "phone_code_invalid", "The code of the getPhoneNumber button has 1 to %d bytes.", maxPhoneCode)

// PhoneNumber is a user's number as WeChat vouches for it.
type PhoneNumber struct {
	Number      string `json:"phone_number"`      // with country code where it is foreign
	Pure        string `json:"pure_phone_number"` // without
	CountryCode string `json:"country_code"`      // such as "86"
	JWS         string `json:"jws,omitempty"`     // see OpenedData.JWS

	data json.RawMessage // the first three, as the backend is told
}

// PhoneNumber redeems a code of the getPhoneNumber button, which has to be the
// user's own. Faults: Invalid `phone_code_invalid`, `appid_unknown`; otherwise
// those of [wechat.Client].
func (s *Service) PhoneNumber(ctx context.Context, user User, code string) (*PhoneNumber, error) {
	number, err := s.phoneNumber(ctx, user, code)
	s.countOpenData("phone", err)
	return number, err
}

func (s *Service) phoneNumber(ctx context.Context, user User, code string) (*PhoneNumber, error) {
	app := s.apps[user.AppID]
	switch {
	case app == nil:
		return nil, errAppIDUnknown // no longer configured
	case code == "" || len(code) > maxPhoneCode:
		return nil, errPhoneCode
	}
	phone, err := app.PhoneNumber(ctx, code, user.OpenID)
	if err != nil {
		return nil, err
	}
	n := PhoneNumber{Number: phone.Number, Pure: phone.Pure, CountryCode: phone.CountryCode}
	data, err := json.Marshal(n)
	if err == nil {
		n.data = data
		n.JWS, err = s.prove(user, "phone", proof{Data: data})
	}
	return &n, err
}
