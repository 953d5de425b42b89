package wechat

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// The faults that calls to WeChat end in. Their cause is an [Error] where
// WeChat answered with an errcode.
var (
	ErrCodeInvalid = fault.New(fault.Unauthenticated, "code_invalid", "WeChat does not know this login code, or it is older than five minutes: call wx.login again.")
	ErrCodeUsed    = fault.New(fault.Unauthenticated, "code_used", "This login code was used before: call wx.login again.")
	ErrBlocked     = fault.New(fault.Forbidden, "blocked", "WeChat blocks this user as a high risk.")

	ErrPhoneCode  = fault.New(fault.Invalid, "phone_code_invalid", "WeChat does not know this code as the user's, or it was used or is older than five minutes: let the user press the button again.")
	ErrSessionKey = fault.New(fault.Conflict, "session_key_stale", "The session_key does not fit: call wx.login, log in, and fetch the data again.")
	ErrOpenID     = fault.New(fault.Invalid, "openid_invalid", "WeChat does not know this openid in this mini-program.")
	ErrInactive   = fault.New(fault.Conflict, "user_inactive", "The user has not used the mini-program in the last two hours.")

	ErrSubscribeRefused = fault.New(fault.Conflict, "subscribe_refused", "The user has not agreed to another message of this template.")
	ErrTemplateInvalid  = fault.New(fault.Invalid, "template_invalid", "WeChat does not know this template.")
	ErrTemplateData     = fault.New(fault.Invalid, "template_data_invalid", "The data does not follow the rules of its template.")
	ErrPageInvalid      = fault.New(fault.Invalid, "page_invalid", "The mini-program has no such page.")
	ErrContentRisky     = fault.New(fault.Invalid, "content_risky", "WeChat refuses this content.")
	ErrWindowClosed     = fault.New(fault.Conflict, "customer_window_closed", "The user's last message is too long ago to be answered.")
	ErrMessageLimit     = fault.New(fault.Limited, "customer_message_limit", "The user has to write first before more messages may be sent.")
	ErrTooLong          = fault.New(fault.TooLarge, "content_too_long", "WeChat takes no content as long as this.")

	ErrQuota  = fault.New(fault.Limited, "wechat_quota", "WeChat's quota for this is used up for now: try again later.").After(time.Minute)
	ErrConfig = fault.New(fault.Internal, "wechat_config", "This mini-program is not set up correctly on the server.")
	ErrAnswer = fault.New(fault.Upstream, "wechat_error", "WeChat gave an answer that makes no sense here.")
	ErrAway   = fault.New(fault.Unavailable, "wechat_unavailable", "WeChat cannot be reached right now: try again.")
)

// Error is a failure as WeChat reports it. It is for logs and alerts.
type Error struct {
	API  string // as in the metrics, such as "stable_token"
	Code int    // errcode
	RID  string // WeChat's request id, which its support asks for; "none" where it gave none
	Hint string // the cause in plain words; "" where the errcode says it all
	IP   string // our address, where that is what WeChat refuses and names
}

func (e *Error) Error() string {
	hint := e.Hint
	if hint != "" {
		hint = ", " + hint
	}
	return fmt.Sprintf("wechat errcode %d%s (rid %s)", e.Code, hint, e.RID)
}

// errDailyQuota is for quotas of a day: nobody knows when WeChat's day ends for us.
var errDailyQuota = ErrQuota.After(time.Hour)

// meanings is the policy for errcodes wherever an api does not say otherwise.
// Those of a wrong configuration come from WeChat's global list; unknown ones
// are 502, and only the log has the number.
var meanings = map[int]*fault.Error{
	-1:    ErrAway,
	40001: ErrAnswer, // the access token was refused, twice
	40014: ErrAnswer,
	42001: ErrAnswer,
	44991: ErrQuota, // a minute's
	45011: ErrQuota,
	45009: errDailyQuota,

	40013: ErrConfig,
	40125: ErrConfig,
	40164: ErrConfig,
	41002: ErrConfig,
	41004: ErrConfig,
	48001: ErrConfig,
	50004: ErrConfig,
	50007: ErrConfig,
	89503: ErrConfig,
	89506: ErrConfig,
	89507: ErrConfig,

	40003: ErrOpenID,
	87009: ErrSessionKey,
}

// hints name the cause of an errcode in plain words.
var hints = map[int]string{
	40001: "the access token was refused, or the secret is wrong",
	40013: "the appid is wrong",
	40125: "the secret does not belong to the appid",
	40164: "our IP address is not on the mini-program's white-list",
	41002: "appid, secret or code is missing",
	41004: "appid, secret or code is missing",
	41008: "appid, secret or code is missing",
	48001: "the mini-program may not use this API",
	50004: "the account is forbidden to use this API",
	50007: "the account is frozen",
	89503: "our IP address waits for the administrator's approval",
	89506: "our IP address was refused twice and may ask again in 24 hours",
	89507: "our IP address was refused and may ask again in an hour",
}

var (
	ridPattern   = regexp.MustCompile(`rid: ([0-9a-fA-F-]{8,64})$`)
	ipPattern    = regexp.MustCompile(`invalid ip ([0-9a-fA-F.:]{2,45})`)
	fieldPattern = regexp.MustCompile(`\bdata\.([a-z_]{1,32}[0-9]{0,8})\.value`)
)

// errorOf makes the fault for an errcode. Of errmsg only what is known to be
// harmless gets in: it may repeat what it was sent.
func (a *api) errorOf(code int, errmsg string) error {
	e := &Error{API: a.name, Code: code, RID: rid(errmsg), Hint: hints[code]}
	meaning, ok := a.meanings[code]
	if !ok {
		meaning, ok = meanings[code]
	}
	if !ok && code/1000 == 41 { // a parameter of ours is missing
		meaning, ok = ErrConfig, true
	}
	if !ok {
		meaning = ErrAnswer
	}
	if errors.Is(meaning, ErrConfig) && e.Hint == "" {
		e.Hint = "WeChat misses or refuses a parameter that comes from the configuration"
	}
	switch code {
	case 40164:
		if ip := refusedIP(errmsg); ip != "" {
			e.IP = ip
			e.Hint = "add our IP address " + ip + " to the mini-program's white-list"
		}
	case 47003:
		if m := fieldPattern.FindStringSubmatch(errmsg); m != nil {
			named := *meaning
			named.Msg = "The field " + m[1] + " does not follow the rules of its template."
			meaning = &named
		}
	}
	return meaning.Because(e)
}

// rid takes WeChat's request id out of an errmsg.
func rid(errmsg string) string {
	if m := ridPattern.FindStringSubmatch(errmsg); m != nil {
		return m[1]
	}
	return "none"
}

// refusedIP takes our own address, as WeChat sees it, out of an errmsg like
// "invalid ip 192.0.2.1 ipv6 ::ffff:192.0.2.1, not in whitelist".
func refusedIP(errmsg string) string {
	m := ipPattern.FindStringSubmatch(errmsg)
	if m == nil {
		return ""
	}
	ip, err := netip.ParseAddr(m[1])
	if err != nil {
		return ""
	}
	return ip.String()
}
