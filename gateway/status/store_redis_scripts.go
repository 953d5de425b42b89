package status

import "github.com/redis/go-redis/v9"

// The steps of a RedisStore that must be atomic. All of them have
//
//	KEYS  nodes, held, users, due, open, hush, marks: see RedisStore
//	ARGV  the time, 0 for that of Redis; lease; grace; silence; then their own
//
// in milliseconds. A record of a user is "ONLINE SEQ AT AWAY ABOUT": 1 or 0,
// three numbers and JSON. Numbers stay below 2^53, where Lua is exact.
const luaStatus = `
local nodes, held, users, due, open, hush, marks = unpack(KEYS)
local now, lease, grace, silence = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if now == 0 then
	local t = redis.call('TIME')
	now = t[1] * 1000 + math.floor(t[2] / 1000)
end

local function text(number)
	return string.format('%.0f', number)
end

-- Nothing is known of a user whose record is damaged.
local function get(user)
	local online, seq, at, away, about = string.match(redis.call('HGET', users, user) or '', '^(%d) (%d+) (%d+) (%d+) (.*)$')
	if not online then
		return nil
	end
	return {user = user, online = online == '1', seq = tonumber(seq), at = tonumber(at), away = tonumber(away), about = about}
end

local function put(s)
	redis.call('HSET', users, s.user, (s.online and '1 ' or '0 ') .. text(s.seq) .. ' ' .. text(s.at) .. ' ' .. text(s.away) .. ' ' .. s.about)
end

local function is_online(s)
	return s.online and s.seq > 0
end

local function is_open(s)
	return redis.call('ZSCORE', open, s.user)
end

local function look(s, at)
	redis.call('ZADD', due, text(at), s.user)
end

local function ignore(s)
	redis.call('ZREM', due, s.user)
end

local all
local function is_held(s)
	all = all or redis.call('ZRANGE', nodes, 0, -1)
	for _, node in ipairs(all) do
		if redis.call('ZSCORE', held, node .. ':' .. s.user) then
			return true
		end
	end
	return false
end

-- A user who was entered, and whom nobody knows, is lost with all that was told
-- of him. It may have been that he is online, so he is until he goes offline,
-- with a seq of 0: in doubt.
local function find(user, about, entered)
	local s = get(user)
	if not s and entered then
		s = {user = user, online = true, seq = 0, at = now, away = 0, about = about}
	end
	return s
end

local function leave(user, about, at, entered)
	local s = find(user, about, entered)
	if not s then
		return
	end
	s.away = math.min(math.max(s.away, at), now) -- a clock may have gone back
	put(s)
	if s.online and not is_open(s) then
		look(s, math.max(now, s.away + grace))
	end
end

-- Takes some users from a node, and answers whether they were the last. The
-- node can tell from its mark.
local function bury(node, at, limit)
	redis.call('HDEL', marks, node)
	local list = redis.call('ZRANGEBYLEX', held, '[' .. node .. ':', '(' .. node .. ';', 'LIMIT', 0, limit)
	for _, entry in ipairs(list) do
		redis.call('ZREM', held, entry)
		leave(string.sub(entry, #node + 2), '{}', at, true)
	end
	if #list == limit then
		return false
	end
	redis.call('ZREM', nodes, node)
	return true
end

local function last_beat()
	local last = redis.call('ZREVRANGE', nodes, 0, 0, 'WITHSCORES')
	return tonumber(last[2] or 0)
end

local function is_whole(node, mark)
	return redis.call('ZSCORE', nodes, node) and tonumber(redis.call('HGET', marks, node) or 0) >= tonumber(mark)
end
`

// redisBeat answers 1 if no entry of the node is lost.
//
//	ARGV  node, its mark
var redisBeat = redis.NewScript(luaStatus + `
local node = ARGV[5]
if last_beat() + silence < now then
	redis.call('SET', hush, text(now + lease))
end
redis.call('ZADD', nodes, text(now), node)
return is_whole(node, ARGV[6]) and 1 or 0
`)

// redisArrive answers the mark of the entry, or 0, having done nothing, for a
// node without a lease or with lost entries.
//
//	ARGV  node, its mark, 1 for users who were entered before, then user and
//	      about of each
var redisArrive = redis.NewScript(luaStatus + `
local node = ARGV[5]
if not is_whole(node, ARGV[6]) then
	return 0
end
for i = 8, #ARGV, 2 do
	redis.call('ZADD', held, 0, node .. ':' .. ARGV[i])
	local s = find(ARGV[i], ARGV[i + 1], ARGV[7] == '1') or {user = ARGV[i], online = false, seq = 0, at = 0, away = 0}
	s.about = ARGV[i + 1]
	put(s)
	if is_open(s) then
		-- what was decided is told first
	elseif is_online(s) then
		ignore(s)
	else
		look(s, now)
	end
end
return redis.call('HINCRBY', marks, node, 1)
`)

// redisDepart answers as redisArrive, but does its work in any case.
//
//	ARGV  as redisArrive
var redisDepart = redis.NewScript(luaStatus + `
local node = ARGV[5]
for i = 8, #ARGV, 2 do
	redis.call('ZREM', held, node .. ':' .. ARGV[i])
	leave(ARGV[i], ARGV[i + 1], now, ARGV[7] == '1')
end
if not is_whole(node, ARGV[6]) then
	return 0
end
return redis.call('HINCRBY', marks, node, 1)
`)

// redisLeave answers 1 once the node holds nobody and is gone.
//
//	ARGV  node, limit
var redisLeave = redis.NewScript(luaStatus + `
return bury(ARGV[5], now, tonumber(ARGV[6])) and 1 or 0
`)

// redisDue answers 1 to be asked again at once, 1 if it buried a node, how
// many decisions are open, the age of the first of them, and then user, 1 for
// online, seq, at and about of each event.
//
//	ARGV  limit, how long to remember those who are offline
var redisDue = redis.NewScript(luaStatus + `
local limit, keep = tonumber(ARGV[5]), tonumber(ARGV[6])
local quiet = tonumber(redis.call('GET', hush) or 0)
if quiet > now + lease then -- a clock has gone back
	quiet = 0
end
if last_beat() + silence < now then
	quiet = math.max(quiet, now + 1000)
end

local answer = {0, 0, 0, 0}
local function finish()
	answer[3] = redis.call('ZCARD', open)
	local first = redis.call('ZRANGE', open, 0, 0, 'WITHSCORES')
	answer[4] = first[2] and math.max(0, now - first[2]) or 0
	return answer
end

if quiet <= now then
	local dead = redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. text(now - lease), 'WITHSCORES', 'LIMIT', 0, 1)
	if dead[1] then
		answer[1] = 1
		answer[2] = bury(dead[1], tonumber(dead[2]), limit) and 1 or 0
		return finish()
	end
end

local function tell(s)
	look(s, now + lease)
	for _, v in ipairs({s.user, s.online and 1 or 0, text(s.seq), text(s.at), s.about}) do
		answer[#answer + 1] = v
	end
end

local function decide(s, online, at)
	s.online, s.seq, s.at = online, math.max(s.seq + 1, now), at
	put(s)
	redis.call('ZADD', open, text(now), s.user)
	tell(s)
end

local function visit(s)
	if is_open(s) then
		return tell(s)
	end
	local there = is_held(s)
	if there and is_online(s) then
		ignore(s)
	elseif there then
		decide(s, true, now)
	elseif s.online then
		local at = s.away + grace
		if quiet > now then
			at = math.max(at, quiet)
		end
		if at > now then
			look(s, at)
		else
			decide(s, false, s.away)
		end
	elseif s.away + keep > now then
		look(s, s.away + keep)
	else
		redis.call('HDEL', users, s.user)
		ignore(s)
	end
end

local list = redis.call('ZRANGEBYSCORE', due, '-inf', text(now), 'LIMIT', 0, limit)
for _, user in ipairs(list) do
	local s = get(user)
	if s then
		visit(s)
	else
		redis.call('HDEL', users, user)
		redis.call('ZREM', due, user)
		redis.call('ZREM', open, user)
	end
end
answer[1] = #list == limit and 1 or 0
return finish()
`)

// redisDone confirms what was told, if it is still what was decided last.
//
//	ARGV  how long to remember those who are offline, then user and seq of each
var redisDone = redis.NewScript(luaStatus + `
local keep = tonumber(ARGV[5])
for i = 6, #ARGV, 2 do
	local s = get(ARGV[i])
	if s and text(s.seq) == ARGV[i + 1] and redis.call('ZREM', open, s.user) == 1 then
		local there = is_held(s)
		if there and s.online then
			ignore(s)
		elseif there then
			look(s, now)
		elseif s.online then
			look(s, math.max(now, s.away + grace))
		else
			look(s, s.away + keep)
		end
	end
end
return 1
`)
