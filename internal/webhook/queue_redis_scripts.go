package webhook

import "github.com/redis/go-redis/v9"

// The steps of a RedisQueue that must be atomic. Entries of the order are
// LANE:NUMBER:ID with 32 characters of lane and 16 digits of number.

const luaNow = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// luaDead keeps the dead: forget takes one out of them with its record, trim
// removes the oldest until limits hold, the first four of ARGV: age in ms,
// count, bytes, and how many at once. trim answers how many went for age,
// count, bytes.
const luaDead = `
local function exhume(items, dead, bytes, id)
	redis.call('ZREM', dead, id)
	redis.call('DECRBY', bytes, redis.call('HSTRLEN', items, id))
	if redis.call('EXISTS', dead) == 0 then
		redis.call('DEL', bytes)
	end
end
local function forget(items, dead, bytes, id)
	exhume(items, dead, bytes, id)
	redis.call('HDEL', items, id)
end
local function trim(items, dead, bytes, now)
	local gone = {0, 0, 0}
	for _ = 1, ARGV[4] do
		local oldest = redis.call('ZRANGE', dead, 0, 0, 'WITHSCORES')
		local why
		if not oldest[1] then
			break
		elseif oldest[2] + ARGV[1] <= now then
			why = 1
		elseif redis.call('ZCARD', dead) > tonumber(ARGV[2]) then
			why = 2
		elseif tonumber(redis.call('GET', bytes) or 0) > tonumber(ARGV[3]) then
			why = 3
		else
			break
		end
		forget(items, dead, bytes, oldest[1])
		gone[why] = gone[why] + 1
	end
	return gone
end
`

// redisAppend puts an item at the end of its lane.
//
//	KEYS  items, order, due, number, dead, age, bytes
//	ARGV  id, item, lane, limit, "dead" for an item that has to come from there
//
// It answers "ok", also for an id that is known, "full" or "unknown".
var redisAppend = redis.NewScript(luaNow + luaDead + `
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
if replay then
	exhume(KEYS[1], KEYS[5], KEYS[7], id)
end
redis.call('HSET', KEYS[1], id, ARGV[2])
redis.call('ZADD', KEYS[6], now, id)
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
//	KEYS  items, order, due, leases, dead, age, bytes
//	ARGV  the four limits of the dead, lane, entry, token, id,
//	      "done" or "retry" or "bury", item, pause in ms
//
// It answers how many dead were trimmed for what, or nothing where the claim
// is no longer held.
var redisSettle = redis.NewScript(luaNow + luaDead + `
local lane, entry, id, how = ARGV[5], ARGV[6], ARGV[8], ARGV[9]
if redis.call('HGET', KEYS[4], lane) ~= ARGV[7] then
	return {}
end
redis.call('HDEL', KEYS[4], lane)
if how == 'done' then
	redis.call('HDEL', KEYS[1], id)
else
	redis.call('HSET', KEYS[1], id, ARGV[10])
end
if how ~= 'retry' then
	redis.call('ZREM', KEYS[2], entry)
	redis.call('ZREM', KEYS[6], id)
end
local gone = {0, 0, 0}
if how == 'bury' then
	redis.call('ZADD', KEYS[5], now, id)
	redis.call('INCRBY', KEYS[7], #ARGV[10])
	gone = trim(KEYS[1], KEYS[5], KEYS[7], now)
end
if redis.call('ZRANGEBYLEX', KEYS[2], '[' .. lane .. ':', '(' .. lane .. ';', 'LIMIT', 0, 1)[1] then
	redis.call('ZADD', KEYS[3], now + ARGV[11], lane)
else
	redis.call('ZREM', KEYS[3], lane)
end
return gone
`)

// redisTrim removes what is dead for too long or too much.
//
//	KEYS  items, dead, bytes
//	ARGV  the four limits of the dead
var redisTrim = redis.NewScript(luaNow + luaDead + `
return trim(KEYS[1], KEYS[2], KEYS[3], now)
`)

// redisDrop forgets a dead item.
//
//	KEYS  items, dead, bytes
//	ARGV  id
//
// It answers 1, or 0 where it is not among the dead.
var redisDrop = redis.NewScript(luaDead + `
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
	return 0
end
forget(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
return 1
`)
