package engine

import "github.com/redis/go-redis/v9"

// The steps that must be atomic, as Lua. They run by EVALSHA; see lane.exec
// for what happens when Redis does not know one yet.

// publishScript is one publication: idempotency, epoch, offset, history,
// fan-out.
//
//	KEYS  meta, stream, result
//	ARGV  epoch for a new stream, payload, history size, history ttl ms,
//	      meta ttl ms, pub/sub channel, asker of a count, result ttl ms
//
// It answers offset, epoch, the number of nodes that hear it, and 1 for a
// repeat. A meta key that was lost takes its stream along: a stream never
// holds entries of an earlier epoch. Offsets are formatted as Lua would write
// large ones with an exponent.
var publishScript = script(`
local meta, stream, result = KEYS[1], KEYS[2], KEYS[3]
if ARGV[8] ~= '0' then
	local seen = redis.call('HMGET', result, 'o', 'e')
	if seen[1] then
		return {seen[1], seen[2], 0, 1}
	end
end
local offset, epoch = '0', ''
if ARGV[3] ~= '0' then
	epoch = redis.call('HGET', meta, 'e')
	if not epoch then
		epoch = ARGV[1]
		redis.call('HSET', meta, 'e', epoch)
		redis.call('DEL', stream)
	end
	offset = string.format('%.0f', redis.call('HINCRBY', meta, 's', 1))
	redis.call('PEXPIRE', meta, ARGV[5])
	redis.call('XADD', stream, 'MAXLEN', ARGV[3], offset .. '-0', 'd', ARGV[2])
	redis.call('PEXPIRE', stream, ARGV[4])
end
local heard = redis.call('PUBLISH', ARGV[6], '1p' .. offset .. ':' .. epoch .. ':' .. ARGV[7] .. '\n' .. ARGV[2])
if ARGV[8] ~= '0' then
	redis.call('HSET', result, 'o', offset, 'e', epoch)
	redis.call('PEXPIRE', result, ARGV[8])
end
return {offset, epoch, heard, 0}
`)

// historyScript reads a stream and its position as of one moment.
//
//	KEYS  meta, stream
//	ARGV  epoch for a new stream, meta ttl ms, "-" or "+" for oldest or newest
//	      first or "" for the position only, first id, last id, limit
//
// It answers epoch, top and the entries. Reading never shortens the life of
// the meta key: it must outlive the stream.
var historyScript = script(`
local meta, stream = KEYS[1], KEYS[2]
local at = redis.call('HMGET', meta, 'e', 's')
if not at[1] then
	at = {ARGV[1], '0'}
	redis.call('HSET', meta, 'e', at[1], 's', 0)
	redis.call('DEL', stream)
end
if redis.call('PTTL', meta) < tonumber(ARGV[2]) then
	redis.call('PEXPIRE', meta, ARGV[2])
end
local entries = {}
if ARGV[3] ~= '' then
	local read = ARGV[3] == '+' and 'XREVRANGE' or 'XRANGE'
	if ARGV[6] == '-1' then
		entries = redis.call(read, stream, ARGV[4], ARGV[5])
	else
		entries = redis.call(read, stream, ARGV[4], ARGV[5], 'COUNT', ARGV[6])
	end
end
return {at[1], at[2], entries}
`)

// renewScript renews a node's lease and drops those that lapsed. The beat it
// sends to the node's own inbox proves the way through pub/sub.
//
//	KEYS  leases, nodes
//	ARGV  lease, its ttl ms, description of the node, inbox, message
//
// It answers 1 if the lease had not lapsed. Time is that of Redis: the clocks
// of the nodes do not matter.
var renewScript = script(`
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
`)

// leasesScript lists the leases that hold, each followed by the description
// of its node.
//
//	KEYS  leases, nodes
//	ARGV  ttl ms
var leasesScript = script(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local answer = {}
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf')) do
	answer[#answer + 1] = lease
	answer[#answer + 1] = redis.call('HGET', KEYS[2], lease) or ''
end
return answer
`)

// forgetScript removes hash fields that still have the value they were seen
// with.
//
//	KEYS  presence
//	ARGV  field, value, …
var forgetScript = script(`
for i = 1, #ARGV, 2 do
	if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
		redis.call('HDEL', KEYS[1], ARGV[i])
	end
end
return 0
`)

// scriptSources finds a script by its hash.
var scriptSources = map[string]string{}

// script registers source and returns its hash.
func script(source string) string {
	hash := redis.NewScript(source).Hash()
	scriptSources[hash] = source
	return hash
}
