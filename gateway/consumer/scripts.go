package consumer

import "github.com/redis/go-redis/v9"

// reader is the one consumer of the group: which node speaks for it is what
// the lease says. So what a node leaves unfinished is its successor's without
// being claimed.
const reader = "minigate"

// The steps that must be atomic: none of them reads for a node that does not
// hold the lease. Needs Redis 6.2.

// luaShow makes of an entry {id, size of its fields, fields}; without fields
// where they are larger than ARGV[2]; size -1 where the entry is gone.
const luaShow = `
local function show(e, largest)
	if not e[2] then
		return {e[1], -1, {}}
	end
	local size = 0
	for _, f in ipairs(e[2]) do
		size = size + #f
	end
	if size > largest then
		return {e[1], size, {}}
	end
	return {e[1], size, e[2]}
end
`

// readScript reads on.
//
//	KEYS  lease, stream
//	ARGV  token, largest entry in bytes, group, consumer,
//	      ">" or the id after which to read what is pending, count, bytes
//
// It answers entries, or false where the lease is somebody else's.
var readScript = redis.NewScript(luaShow + `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
	return false
end
local from, left, out = ARGV[5], tonumber(ARGV[7]), {}
for _ = 1, ARGV[6] do
	local r = redis.call('XREADGROUP', 'GROUP', ARGV[3], ARGV[4], 'COUNT', 1, 'STREAMS', KEYS[2], from)
	local e = r and r[1] and r[1][2][1]
	if not e then
		break
	end
	local shown = show(e, tonumber(ARGV[2]))
	out[#out + 1] = shown
	if #shown[3] > 0 then
		left = left - shown[2]
	end
	if left <= 0 then
		break
	end
	if from ~= '>' then
		from = e[1]
	end
end
return out
`)

// fetchScript shows entries again.
//
//	KEYS  stream
//	ARGV  id, largest entry in bytes
var fetchScript = redis.NewScript(luaShow + `
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1] or {ARGV[1], false}
return {show(e, tonumber(ARGV[2]))}
`)

// adoptScript claims what other consumers of the group left pending.
//
//	KEYS  lease, stream
//	ARGV  token, group, consumer, idle in ms, count
//
// It answers how many, or false where the lease is somebody else's.
var adoptScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
	return false
end
local all = 0
for _, c in ipairs(redis.call('XPENDING', KEYS[2], ARGV[2])[4] or {}) do
	if c[1] ~= ARGV[3] then
		local ids = {}
		for _, p in ipairs(redis.call('XPENDING', KEYS[2], ARGV[2], 'IDLE', ARGV[4], '-', '+', ARGV[5], c[1])) do
			ids[#ids + 1] = p[1]
		end
		if #ids > 0 then
			redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, unpack(ids))
			all = all + #ids
		end
	end
end
return all
`)

// acquireScript takes the lease. Where it is somebody else's, it leaves word
// how many streams this node has, for who has more to let go of one; the node
// with the fewest is heard.
//
//	KEYS  lease, wanted
//	ARGV  token, ms, how many streams this node holds, its id, ms of the word
//
// It answers 1, or 0 where somebody else has it.
var acquireScript = redis.NewScript(`
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
	redis.call('DEL', KEYS[2])
	return 1
end
local held, node = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) (.*)$')
if not held or node == ARGV[4] or tonumber(ARGV[3]) < tonumber(held) then
	redis.call('SET', KEYS[2], ARGV[3] .. ' ' .. ARGV[4], 'PX', ARGV[5])
end
return 0
`)

// extendScript makes the lease last on.
//
//	KEYS  lease, wanted
//	ARGV  token, ms
//
// It answers how many streams the node has that wants this one, -1 where none
// does; false where the lease is somebody else's.
var extendScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
	return false
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) ') or -1)
`)

// releaseScript ends the lease.
//
//	KEYS  lease
//	ARGV  token
var releaseScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
	return 0
end
return redis.call('DEL', KEYS[1])
`)

// tendScript measures what the group still has to do, and removes what every
// group of the stream has acknowledged. An id that Lua cannot add to keeps the
// last entry in the stream.
//
//	KEYS  stream
//	ARGV  group, "1" to remove, consumer, idle in ms
//
// It answers how many entries are not acknowledged, the id of the oldest of
// them or "", the time in ms, and whether other consumers of the group have
// left something pending for so long.
var tendScript = redis.NewScript(`
local function parse(id)
	local ms, seq = string.match(id, '^(%d+)-(%d+)$')
	return tonumber(ms), tonumber(seq), ms, seq
end
local function before(a, b)
	local am, as = parse(a)
	local bm, bs = parse(b)
	return am < bm or am == bm and as < bs
end
local function after(id)
	local _, seq, ms, text = parse(id)
	if #text > 15 then
		return id
	end
	return ms .. '-' .. string.format('%.0f', seq + 1)
end
local low, left, oldest, others = nil, 0, '', 0
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
	local g = {}
	for i = 1, #flat, 2 do
		g[flat[i]] = flat[i + 1]
	end
	local pending = redis.call('XPENDING', KEYS[1], g.name)
	local first = pending[2] or after(g['last-delivered-id'])
	if not low or before(first, low) then
		low = first
	end
	if g.name == ARGV[1] then
		local unread = redis.call('XRANGE', KEYS[1], '(' .. g['last-delivered-id'], '+', 'COUNT', 1)[1]
		oldest = pending[2] or unread and unread[1] or ''
		for _, c in ipairs(pending[4] or {}) do
			if c[1] ~= ARGV[3] and redis.call('XPENDING', KEYS[1], g.name, 'IDLE', ARGV[4], '-', '+', 1, c[1])[1] then
				others = 1
			end
		end
		left = pending[1] + (g.lag or unread and redis.call('XLEN', KEYS[1]) or 0)
	end
end
if low and ARGV[2] == '1' then
	redis.call('XTRIM', KEYS[1], 'MINID', '~', low)
end
local t = redis.call('TIME')
return {left, oldest, t[1] * 1000 + math.floor(t[2] / 1000), others}
`)
