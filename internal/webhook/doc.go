// Package webhook calls the business backend: questions that need an answer
// now, and news that must arrive even if the backend is away for hours.
//
// # Signed
//
// Every call is a POST of JSON that the receiver can check: [Sign] and
// [Verify] are HMAC-SHA256 (RFC 2104) over the time, a dot and the body.
//
//	X-Minigate-Timestamp: 1700000000
//	X-Minigate-Key-Id:    2026-a
//	X-Minigate-Signature: v1=HEX
//	X-Minigate-Event:     login
//	X-Minigate-Delivery:  an id, the same for every attempt
//
// Event and delivery in the headers are for logs and routers, and not signed:
// a body names its event and, where repeats matter, its delivery itself.
//
// # Questions
//
// A [Client] makes an [Endpoint] for each URL in the configuration; nothing
// else is ever called. [Endpoint.Ask] is one exchange, [Endpoint.Exchange] one
// whose status and body the caller judges: no redirects, no proxy
// from the environment, a time limit, a bounded answer, a bounded number at a
// time, and a breaker that spares a backend which keeps failing. A [Gate] asks
// whether something may happen, and has a rule for when there is no answer.
//
// # News
//
// A [Dispatcher] puts an [Item] into a [Queue] and delivers it at least once:
// repeated with growing pauses until it arrives or is too old, and then kept
// among the dead for somebody to look at, replay or drop. [FileQueue] keeps
// the items of a node that runs alone, [RedisQueue] those that nodes share.
// Bodies, and the keys that name their users, are sealed while they are kept.
//
// Items of one hook and one key form a lane, which is delivered in order: a
// lane has a time at which it is due, whoever takes it holds it for a while,
// and only its head can be taken. A node that dies lets its lanes go by doing
// nothing: they are due again when its time is over.
package webhook
