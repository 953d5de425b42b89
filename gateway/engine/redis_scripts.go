package engine

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
)

// script is a step that must be atomic, in Lua. SERVER in it stands for the
// identity of the server that runs it, PUBLISH for the command that publishes.
//
// The text that Redis gets holds the identity, and a server only ever gets the
// text with its own. Scripts are not replicated (Redis 7), so that a replica
// that was promoted, or a server that restarted, does not know the text of
// before: the node has to look which server it talks to, see server. That is
// how publishScript notices that a stream may have lost its end.
type script struct{ source string }

// text is a script as one server gets it.
type text struct{ source, hash string }

func (s *script) on(id string, sharded bool) text {
	publish := "PUBLISH"
	if sharded {
		publish = "SPUBLISH"
	}
	source := strings.NewReplacer("$SERVER", "'"+id+"'", "$PUBLISH", "'"+publish+"'").Replace(s.source)
	sum := sha1.Sum([]byte(source))
	return text{source, hex.EncodeToString(sum[:])}
}

var scripts = []*script{publishScript, historyScript, removeScript, touchScript, renewScript, leasesScript, forgetScript, enterScript, leaveScript, sweepScript, countScript, reapScript}

// publishScript is one publication: idempotency, version, epoch, offset,
// history, fan-out.
//
//	KEYS  meta, stream, result
//	ARGV  epoch for a new stream, payload, history size, history ttl ms,
//	      meta ttl ms, pub/sub channel, asker of a count, result ttl ms,
//	      version, version epoch, 1 if the caller waits for replicas
//
// It answers offset, epoch, the number of nodes that hear it, and 1 for a
// repeat or 2 for a suppressed version. A meta key that was lost takes its
// stream along: a stream never holds entries of an earlier epoch.
//
// Where another server wrote last (g), entries may have been lost with it, and
// their offsets are about to be given out again. The stream goes on under a
// new epoch; pe and ps keep up to which offset the old epoch still names the
// same entries.
//
// Versions are compared as text, offsets formatted: Lua's numbers are exact
// only up to 2^53. A repeat writes what is there already, since WAIT waits for
// the latest write of the connection.
var publishScript = &script{`
local meta, stream, result = KEYS[1], KEYS[2], KEYS[3]
if ARGV[8] ~= '0' then
	local seen = redis.call('HMGET', result, 'o', 'e')
	if seen[1] then
		if ARGV[11] == '1' then
			redis.call('HSET', result, 'o', seen[1])
		end
		return {seen[1], seen[2], 0, 1}
	end
end
local offset, epoch = '0', ''
if ARGV[3] ~= '0' then
	local at = redis.call('HMGET', meta, 'e', 'g', 's', 'v', 've')
	epoch = at[1]
	if ARGV[9] ~= '0' and epoch and at[4] and (ARGV[10] == '' or ARGV[10] == at[5]) and
		(#at[4] > #ARGV[9] or #at[4] == #ARGV[9] and at[4] >= ARGV[9]) then
		if ARGV[11] == '1' then
			redis.call('HSET', meta, 'v', at[4])
		end
		return {at[3], epoch, 0, 2}
	end
	if not epoch then
		epoch = ARGV[1]
		redis.call('HSET', meta, 'e', epoch, 'g', $SERVER)
		redis.call('DEL', stream)
	elseif at[2] ~= $SERVER then
		redis.call('HSET', meta, 'e', ARGV[1], 'g', $SERVER, 'pe', epoch, 'ps', at[3] or '0')
		epoch = ARGV[1]
	end
	offset = string.format('%.0f', redis.call('HINCRBY', meta, 's', 1))
	if ARGV[9] ~= '0' then
		redis.call('HSET', meta, 'v', ARGV[9], 've', ARGV[10])
	end
	redis.call('PEXPIRE', meta, ARGV[5])
	redis.call('XADD', stream, 'MAXLEN', ARGV[3], offset .. '-0', 'd', ARGV[2])
	redis.call('PEXPIRE', stream, ARGV[4])
end
local heard = redis.call($PUBLISH, ARGV[6], '1p' .. offset .. ':' .. epoch .. ':' .. ARGV[7] .. '\n' .. ARGV[2])
if ARGV[8] ~= '0' then
	redis.call('HSET', result, 'o', offset, 'e', epoch)
	redis.call('PEXPIRE', result, ARGV[8])
end
return {offset, epoch, heard, 0}
`}

// historyScript reads a stream and its position as of one moment.
//
//	KEYS  meta, stream
//	ARGV  epoch for a new stream, meta ttl ms, the same where nothing was
//	      published yet, "-" or "+" for oldest or newest first or "" for the
//	      position only, first id, last id, limit
//
// It answers epoch, top, the entries, and the epoch before with the offset up
// to which it holds, see publishScript. Reading never shortens the life of the
// meta key: it must outlive the stream.
var historyScript = &script{`
local meta, stream = KEYS[1], KEYS[2]
local at = redis.call('HMGET', meta, 'e', 's', 'g', 'pe', 'ps')
if not at[1] then
	at = {ARGV[1], '0', $SERVER}
	redis.call('HSET', meta, 'e', at[1], 's', '0', 'g', $SERVER)
	redis.call('DEL', stream)
elseif at[3] ~= $SERVER then
	at = {ARGV[1], at[2] or '0', $SERVER, at[1], at[2] or '0'}
	redis.call('HSET', meta, 'e', at[1], 'g', $SERVER, 'pe', at[4], 'ps', at[5])
end
local ttl = at[2] == '0' and ARGV[3] or ARGV[2]
if redis.call('PTTL', meta) < tonumber(ttl) then
	redis.call('PEXPIRE', meta, ttl)
end
local entries = {}
if ARGV[4] ~= '' then
	local read = ARGV[4] == '+' and 'XREVRANGE' or 'XRANGE'
	if ARGV[7] == '-1' then
		entries = redis.call(read, stream, ARGV[5], ARGV[6])
	else
		entries = redis.call(read, stream, ARGV[5], ARGV[6], 'COUNT', ARGV[7])
	end
end
return {at[1], at[2], entries, at[4] or '', at[5] or '0'}
`}

// removeScript empties a stream.
//
//	KEYS  meta, stream
//
// It answers epoch and top.
var removeScript = &script{`
redis.call('DEL', KEYS[2])
local at = redis.call('HMGET', KEYS[1], 'e', 's')
return {at[1] or '', at[2] or '0'}
`}

// touchScript keeps the epoch of a channel that nothing was published to yet,
// for ttl at least: another node may have asked for more.
//
//	KEYS  meta
//	ARGV  ttl ms
//
// It answers 0 if there is no need for that any more.
var touchScript = &script{`
if redis.call('HGET', KEYS[1], 's') ~= '0' then
	return 0
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
	redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
`}

// renewScript renews a node's lease and drops those that lapsed. The beat it
// sends to the node's own inbox proves the way through pub/sub.
//
//	KEYS  leases, nodes
//	ARGV  lease, its ttl ms, description of the node, inbox, message
//
// It answers 1 if the lease had not lapsed. Time is that of Redis: the clocks
// of the nodes do not matter.
var renewScript = &script{`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[2]))) do
	redis.call('ZREM', KEYS[1], dead)
	redis.call('HDEL', KEYS[2], dead)
end
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return held and 1 or 0
`}

// leasesScript lists the leases that hold, each followed by the description
// of its node.
//
//	KEYS  leases, nodes
//	ARGV  ttl ms
var leasesScript = &script{`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local answer = {}
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf')) do
	answer[#answer + 1] = lease
	answer[#answer + 1] = redis.call('HGET', KEYS[2], lease) or ''
end
return answer
`}

// forgetScript removes hash fields that still have the value they were seen
// with.
//
//	KEYS  the hash
//	ARGV  field, value, …
var forgetScript = &script{`
for i = 1, #ARGV, 2 do
	if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
		redis.call('HDEL', KEYS[1], ARGV[i])
	end
end
return 0
`}
