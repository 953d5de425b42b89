package wechat

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/minigate/minigate/internal/fault"
)

// api is one of WeChat's calls and what is special about it.
type api struct {
	name      string // metric label
	path      string
	token     bool // wants an access token
	retry     bool // may be repeated when WeChat is busy: doing it twice does no harm
	perMinute int  // WeChat's quota for one mini-program; 0: none is published
	meanings  map[int]*fault.Error
}

var (
	apiCode2Session = &api{
		name: "code2session", path: "/sns/jscode2session", retry: true,
		// Its own page lists -1, 40029, 40226 and 45011; 40163 is seen in practice.
		meanings: map[int]*fault.Error{40029: ErrCodeInvalid, 40163: ErrCodeUsed, 40226: ErrBlocked, 41008: ErrConfig},
	}
	apiStableToken = &api{
		name: "stable_token", path: "/cgi-bin/stable_token", retry: true, perMinute: 10_000,
		meanings: map[int]*fault.Error{40001: ErrConfig, 40002: ErrConfig},
	}
	apiCheckSession = &api{name: "checksession", path: "/wxa/checksession", token: true, retry: true}
	apiResetSession = &api{name: "resetusersessionkey", path: "/wxa/resetusersessionkey", token: true, perMinute: 60_000}
	apiPhoneNumber  = &api{
		name: "getuserphonenumber", path: "/wxa/business/getuserphonenumber", token: true, retry: true,
		meanings: map[int]*fault.Error{40029: ErrPhoneCode, 40163: ErrPhoneCode},
	}
	apiMsgSecCheck = &api{
		name: "msg_sec_check", path: "/wxa/msg_sec_check", token: true, retry: true, perMinute: 4000,
		meanings: map[int]*fault.Error{61010: ErrInactive, 45002: ErrTooLong},
	}
	apiMediaCheck = &api{
		name: "media_check_async", path: "/wxa/media_check_async", token: true, perMinute: 2000,
		meanings: map[int]*fault.Error{61010: ErrInactive},
	}
	apiSubscribeSend = &api{
		name: "subscribe_send", path: "/cgi-bin/message/subscribe/send", token: true,
		meanings: map[int]*fault.Error{
			40037: ErrTemplateInvalid, 41030: ErrPageInvalid, 43101: ErrSubscribeRefused,
			47003: ErrTemplateData, 45168: ErrContentRisky,
		},
	}
	apiCustomerSend = &api{
		name: "customer_send", path: "/cgi-bin/message/custom/send", token: true,
		meanings: map[int]*fault.Error{45002: ErrTooLong, 45015: ErrWindowClosed, 45047: ErrMessageLimit},
	}
	apis = []*api{
		apiCode2Session, apiStableToken, apiCheckSession, apiResetSession, apiPhoneNumber,
		apiMsgSecCheck, apiMediaCheck, apiSubscribeSend, apiCustomerSend,
	}
)

// maxQueue is how long a call waits for its turn before it is refused.
const maxQueue = time.Second

// limits keep the calls of one node within WeChat's quotas. Several nodes can
// use up a quota together; what WeChat then answers is the same fault.
type limits map[*api]*rate.Limiter

// newLimits spends a tenth of a minute's quota on bursts, so that no minute
// sees more than the whole of it.
func newLimits() limits {
	l := make(limits)
	for _, a := range apis {
		if burst := a.perMinute / 10; burst > 0 {
			l[a] = rate.NewLimiter(rate.Limit(a.perMinute-burst)/60, burst)
		}
	}
	return l
}

// take waits for a's turn, or answers `wechat_quota` where that would be long.
func (l limits) take(ctx context.Context, a *api) error {
	limiter, ok := l[a]
	if !ok {
		return nil
	}
	now := time.Now()
	turn := limiter.ReserveN(now, 1)
	wait := turn.DelayFrom(now)
	switch {
	case wait > maxQueue:
		turn.CancelAt(now)
		return ErrQuota.After(wait)
	case wait > 0 && !sleep(ctx, wait):
		turn.Cancel()
		return ctx.Err()
	}
	return nil
}
