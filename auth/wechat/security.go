package wechat

import (
	"context"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/fault"
)

// Scene says where content is going to be seen.
type Scene int

// The scenes of WeChat's content checks.
const (
	SceneProfile Scene = 1
	SceneComment Scene = 2
	SceneForum   Scene = 3
	SceneSocial  Scene = 4
)

// Suggest is what WeChat makes of content.
type Suggest string

// The suggestions. Review means that a person should look.
const (
	SuggestPass   Suggest = "pass"
	SuggestReview Suggest = "review"
	SuggestRisky  Suggest = "risky"
)

// LabelNormal is the label of content that nothing is wrong with; others are
// 10001 advertising, 20001 politics, 20002 pornography, 20003 abuse, 20006
// crime, 20008 fraud, 20012 vulgarity, 20013 copyright, 21000 anything else.
const LabelNormal = 100

// Verdict is what a content check found.
type Verdict struct {
	TraceID string
	Suggest Suggest
	Label   int
}

// Text is what a user wrote.
type Text struct {
	OpenID   string // of a user who used the mini-program in the last two hours
	Scene    Scene
	Content  string // at most 2,500 characters
	Title    string
	Nickname string
	// Signature is the user's own description of himself; for SceneProfile only.
	Signature string
}

const maxContent = 2500 // characters

var errContent = fault.Newf(fault.Invalid, "content_invalid", "Content must be 1 to %d characters of UTF-8.", maxContent)

// CheckText has WeChat look at a text (msg_sec_check, version 2). An answer
// without an error only says that WeChat looked: what it found is the Verdict.
// 4,000 texts a minute are allowed and 2,000,000 a day. Faults: Invalid
// `content_invalid`, `openid_invalid`; Conflict `user_inactive`.
func (c *Client) CheckText(ctx context.Context, t Text) (*Verdict, error) {
	if n := utf8.RuneCountInString(t.Content); n == 0 || n > maxContent || !utf8.ValidString(t.Content) {
		return nil, errContent
	}
	var a verdictAnswer
	err := c.call(ctx, apiMsgSecCheck, url.Values{}, struct {
		Version   int    `json:"version"`
		OpenID    string `json:"openid"`
		Scene     Scene  `json:"scene"`
		Content   string `json:"content"`
		Title     string `json:"title,omitempty"`
		Nickname  string `json:"nickname,omitempty"`
		Signature string `json:"signature,omitempty"`
	}{2, t.OpenID, t.Scene, t.Content, t.Title, t.Nickname, t.Signature}, &a)
	if err != nil {
		return nil, err
	}
	return a.verdict()
}

// verdictAnswer is a result as msg_sec_check answers it and, with labels as
// strings, as the push wxa_media_check brings it.
type verdictAnswer struct {
	TraceID string `json:"trace_id"`
	Result  struct {
		Suggest Suggest `json:"suggest"`
		Label   text    `json:"label"`
	} `json:"result"`
}

func (a *verdictAnswer) verdict() (*Verdict, error) {
	label, err := strconv.Atoi(string(a.Result.Label))
	s := a.Result.Suggest
	if err != nil || s != SuggestPass && s != SuggestReview && s != SuggestRisky {
		return nil, odd("the result of a content check")
	}
	return &Verdict{a.TraceID, s, label}, nil
}

// MediaType is a kind of file that WeChat can check.
type MediaType int

// The kinds. There is none for video.
const (
	MediaAudio MediaType = 1
	MediaImage MediaType = 2
)

// Media is a file of a user's, of at most 10 MB.
type Media struct {
	OpenID string // of a user who used the mini-program in the last two hours
	Scene  Scene
	Type   MediaType
	URL    string // where WeChat can fetch it: https, reachable from the internet
}

// CheckMedia asks WeChat to look at a file (media_check_async, version 2). The
// verdict comes within about 30 minutes as a push of the event
// "wxa_media_check" with the same trace id; see [Push.MediaVerdict]. 2,000
// files a minute are allowed and 200,000 a day. Faults: Invalid
// `openid_invalid`; Conflict `user_inactive`.
func (c *Client) CheckMedia(ctx context.Context, m Media) (traceID string, err error) {
	var a struct {
		TraceID string `json:"trace_id"`
	}
	err = c.call(ctx, apiMediaCheck, url.Values{}, struct {
		Version int       `json:"version"`
		OpenID  string    `json:"openid"`
		Scene   Scene     `json:"scene"`
		Type    MediaType `json:"media_type"`
		URL     string    `json:"media_url"`
	}{2, m.OpenID, m.Scene, m.Type, m.URL}, &a)
	if err == nil && a.TraceID == "" {
		err = odd("trace_id")
	}
	return a.TraceID, err
}
