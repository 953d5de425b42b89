package webhook

import "github.com/redis/go-redis/v9"

// The steps of a RedisQueue that must be atomic. Entries of the order are
// LANE:NUMBER:ID with 32 characters of lane and 16 digits of number.

const luaNow = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// redisAppend puts an item at the end of its lane.
//
//	KEYS  items, order, due, number, dead
//	ARGV  id, item, lane, limit, "dead" for an item that has to come from there
//
// It answers "ok", also for an id that is known, "full" or "unknown".
var redisAppend = redis.NewScript(luaNow + `
local id, lane, replay = ARGV[1], ARGV[3], ARGV[5] == 'dead'
if replay and not redis.call('ZSCORE', KEYS[5], id) then
	return 'unknown'
end
if not replay and redis.call('HEXISTS', KEYS[1], id) == 1 then
	return 'ok'
end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then
	return 'full'
end
redis.call('ZREM', KEYS[5], id)
redis.call('HSET', KEYS[1], id, ARGV[2])
local number = string.format('%016.0f', redis.call('INCR', KEYS[4]))
redis.call('ZADD', KEYS[2], 0, lane .. ':' .. number .. ':' .. id)
redis.call('ZADD', KEYS[3], 'NX', now, lane)
return 'ok'
`)

// redisTake gives the head of the lane that is due longest to whoever has the
// token, for as long as the lease.
//
//	KEYS  items, order, due, leases
//	ARGV  lease in ms, token
//
// It answers lane, entry, id, item; or nothing.
var redisTake = redis.NewScript(luaNow + `
local lane = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1)[1]
if not lane then
	return false
end
local entry = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. lane .. ':', '(' .. lane .. ';', 'LIMIT', 0, 1)[1]
if not entry then
	redis.call('ZREM', KEYS[3], lane)
	redis.call('HDEL', KEYS[4], lane)
	return false
end
local id = string.sub(entry, 32 + 1 + 16 + 1 + 1)
redis.call('ZADD', KEYS[3], now + ARGV[1], lane)
redis.call('HSET', KEYS[4], lane, ARGV[2])
return {lane, entry, id, redis.call('HGET', KEYS[1], id) or ''}
`)

// redisSettle ends a claim.
//
//	KEYS  items, order, due, leases, dead
//	ARGV  lane, entry, token, id, "done" or "retry" or "bury", item,
//	      pause in ms, limit of the dead
//
// It answers 1, or 0 where the claim is no longer held.
var redisSettle = redis.NewScript(luaNow + `
local lane, entry, id, how = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
if redis.call('HGET', KEYS[4], lane) ~= ARGV[3] then
	return 0
end
redis.call('HDEL', KEYS[4], lane)
if how == 'done' then
	redis.call('HDEL', KEYS[1], id)
else
	redis.call('HSET', KEYS[1], id, ARGV[6])
end
if how ~= 'retry' then
	redis.call('ZREM', KEYS[2], entry)
end
if how == 'bury' then
	redis.call('ZADD', KEYS[5], now, id)
	for _ = 1, redis.call('ZCARD', KEYS[5]) - ARGV[8] do
		redis.call('HDEL', KEYS[1], redis.call('ZPOPMIN', KEYS[5])[1])
	end
end
if redis.call('ZRANGEBYLEX', KEYS[2], '[' .. lane .. ':', '(' .. lane .. ';', 'LIMIT', 0, 1)[1] then
	redis.call('ZADD', KEYS[3], now + ARGV[7], lane)
else
	redis.call('ZREM', KEYS[3], lane)
end
return 1
`)

// redisDrop forgets a dead item.
//
//	KEYS  items, dead
//	ARGV  id
//
// It answers 1, or 0 where it is not among the dead.
var redisDrop = redis.NewScript(`
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
	return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
`)
