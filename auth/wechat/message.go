package wechat

import (
	"context"
	"net/url"
	"strings"
)

// SubscribeMessage is a message that the user agreed to receive: one consent,
// one message.
type SubscribeMessage struct {
	OpenID   string
	Template string            // template id
	Data     map[string]string // by the template's field, such as "thing1"
	Page     string            // page of the mini-program to open, "" for none; a leading slash is dropped
	State    string            // "developer", "trial" or "formal"; "" means formal
	Lang     string            // "zh_CN", "en_US", "zh_HK" or "zh_TW"; "" means zh_CN
}

// SendSubscribe sends a message (cgi-bin/message/subscribe/send). It is not
// repeated by itself, since it might arrive twice. Faults: Conflict
// `subscribe_refused` where the user has given no consent that is left;
// Invalid `openid_invalid`, `template_invalid`, `template_data_invalid` (whose
// message names the field), `page_invalid`, `content_risky`.
func (c *Client) SendSubscribe(ctx context.Context, m SubscribeMessage) error {
	type value struct {
		Value string `json:"value"`
	}
	data := make(map[string]value, len(m.Data))
	for k, v := range m.Data {
		data[k] = value{v}
	}
	return c.call(ctx, apiSubscribeSend, url.Values{}, struct {
		To       string           `json:"touser"`
		Template string           `json:"template_id"`
		Page     string           `json:"page,omitempty"`
		Data     map[string]value `json:"data"`
		State    string           `json:"miniprogram_state,omitempty"`
		Lang     string           `json:"lang,omitempty"`
	}{m.OpenID, m.Template, strings.TrimPrefix(m.Page, "/"), data, m.State, m.Lang}, nil)
}

// CustomerMessage answers a user who wrote to the mini-program within the last
// 48 hours. Text or Link is set.
type CustomerMessage struct {
	OpenID string
	Text   string
	Link   *Link
}

// Link is a card with a picture.
type Link struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	URL         string `json:"url"`
	ThumbURL    string `json:"thumb_url"`
}

// SendCustomer sends a customer service message
// (cgi-bin/message/custom/send). It is not repeated by itself, since it might
// arrive twice. Faults: Conflict `customer_window_closed`; Limited
// `customer_message_limit` after about five messages without an answer;
// Invalid `openid_invalid`; TooLarge `content_too_long`.
func (c *Client) SendCustomer(ctx context.Context, m CustomerMessage) error {
	body := map[string]any{"touser": m.OpenID}
	if m.Link != nil {
		body["msgtype"], body["link"] = "link", m.Link
	} else {
		body["msgtype"], body["text"] = "text", map[string]string{"content": m.Text}
	}
	return c.call(ctx, apiCustomerSend, url.Values{}, body, nil)
}
