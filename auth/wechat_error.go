package auth

import (
	"fmt"
	"regexp"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

var (
	errCodeInvalid  = fault.New(fault.Unauthenticated, "code_invalid", "WeChat does not know this login code, or it is older than five minutes: call wx.login again.")
	errCodeUsed     = fault.New(fault.Unauthenticated, "code_used", "This login code was used before: call wx.login again.")
	errBlocked      = fault.New(fault.Forbidden, "blocked", "WeChat blocks this user as a high risk.")
	errWeChatQuota  = fault.New(fault.Limited, "wechat_quota", "Too many logins in this minute: try again in the next one.").After(time.Minute)
	errWeChatConfig = fault.New(fault.Internal, "wechat_config", "This mini-program is not set up correctly on the server.")
	errWeChatAnswer = fault.New(fault.Upstream, "wechat_error", "WeChat gave an answer that makes no sense here.")
	errWeChatAway   = fault.New(fault.Unavailable, "wechat_unavailable", "WeChat cannot be reached right now: try again.")
)

const codeBusy = -1

// errcode is a failure as WeChat reports it. The request id is what WeChat's
// support asks for; the rest of errmsg says nothing that the code does not.
type errcode struct {
	code int
	rid  string
}

func (e *errcode) Error() string {
	return fmt.Sprintf("wechat errcode %d%s (rid %s)", e.code, hint(e.code), e.rid)
}

// hint names the cause of a configuration mistake in plain words.
func hint(code int) string {
	switch code {
	case 40013:
		return ", the appid is wrong"
	case 40125:
		return ", the secret does not belong to the appid"
	case 41002, 41004, 41008:
		return ", appid, secret or code is missing"
	}
	return ""
}

// errcodeFault is the policy for the errcodes of code2Session. Its own page
// lists -1, 40029, 40226 and 45011; 40163 and those for a wrong configuration
// are seen in practice. Unknown ones are 502, and only the log has the number.
func errcodeFault(e *errcode) error {
	policy := errWeChatAnswer
	switch e.code {
	case codeBusy:
		policy = errWeChatAway
	case 40029:
		policy = errCodeInvalid
	case 40163:
		policy = errCodeUsed
	case 40226:
		policy = errBlocked
	case 45011:
		policy = errWeChatQuota
	case 40013, 40125, 41002, 41004, 41008:
		policy = errWeChatConfig
	}
	return policy.Because(e)
}

var ridPattern = regexp.MustCompile(`rid: ([0-9a-fA-F-]{8,64})$`)

// rid takes WeChat's request id out of an errmsg.
func rid(errmsg string) string {
	if m := ridPattern.FindStringSubmatch(errmsg); m != nil {
		return m[1]
	}
	return "none"
}
