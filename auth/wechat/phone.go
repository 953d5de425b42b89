package wechat

import (
	"context"
	"net/url"
	"time"
)

// Phone is a user's phone number as WeChat vouches for it.
type Phone struct {
	Number      string    // with "+" and country code where it is foreign
	Pure        string    // without country code
	CountryCode string    // such as "86"
	At          time.Time // when WeChat gave it away; zero where it does not say
}

const maxPhone = 32 // bytes of each part

// PhoneNumber redeems the code of the getPhoneNumber button, which works once
// within five minutes. WeChat checks that it is openID's (API/user-info,
// api_getphonenumber). Fault: Invalid `phone_code_invalid`.
func (c *Client) PhoneNumber(ctx context.Context, code, openID string) (*Phone, error) {
	var a struct {
		Info struct {
			Number    text `json:"phoneNumber"`
			Pure      text `json:"purePhoneNumber"`
			Country   text `json:"countryCode"`
			Watermark struct {
				Timestamp number `json:"timestamp"`
				AppID     string `json:"appid"`
			} `json:"watermark"`
		} `json:"phone_info"`
	}
	err := c.call(ctx, apiPhoneNumber, url.Values{}, map[string]string{"code": code, "openid": openID}, &a)
	if err != nil {
		return nil, err
	}
	p := Phone{Number: string(a.Info.Number), Pure: string(a.Info.Pure), CountryCode: string(a.Info.Country)}
	switch {
	case a.Info.Watermark.AppID != c.o.AppID:
		return nil, odd("the appid of a phone number")
	case p.Number == "" || max(len(p.Number), len(p.Pure), len(p.CountryCode)) > maxPhone:
		return nil, odd("a phone number")
	}
	if t := a.Info.Watermark.Timestamp; t > 0 {
		p.At = time.Unix(int64(t), 0)
	}
	return &p, nil
}
