package engine

// The scripts of presence keep three hashes of a channel in step:
//
//	presence          client → lease "\n" length of user "\n" user info
//	presence:users    user → number of its clients
//	presence:leases   lease → number of its clients
//
// KEYS are these, in this order. Every change of the first goes through remove
// and enter, so that the others count what it has, whatever was done before
// and however often.
const presenceLua = `
local function take_apart(entry)
	local lease, size, at = string.match(entry, '^([^\n]*)\n(%d+)\n()')
	if not lease then
		return '', ''
	end
	return lease, string.sub(entry, at, at + size - 1)
end
local function less(key, field)
	if redis.call('HINCRBY', key, field, -1) <= 0 then
		redis.call('HDEL', key, field)
	end
end
local function remove(client, entry)
	redis.call('HDEL', KEYS[1], client)
	local lease, user = take_apart(entry)
	less(KEYS[2], user)
	less(KEYS[3], lease)
end
`

// enterScript enters clients, or enters them anew.
//
//	ARGV  lease, ttl ms of the keys, then client, user, entry, …
var enterScript = &script{presenceLua + `
for i = 3, #ARGV, 3 do
	local client, user, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
	local old = redis.call('HGET', KEYS[1], client)
	if old ~= entry then
		if old then
			remove(client, old)
		end
		redis.call('HSET', KEYS[1], client, entry)
		redis.call('HINCRBY', KEYS[2], user, 1)
		redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
	end
end
for _, key in ipairs(KEYS) do
	redis.call('PEXPIRE', key, ARGV[2])
end
return 0
`}

// leaveScript removes a client.
//
//	ARGV  client
var leaveScript = &script{presenceLua + `
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry then
	remove(ARGV[1], entry)
end
return 0
`}

// sweepScript removes entries that still are what they were seen to be.
//
//	ARGV  client, entry, …
var sweepScript = &script{presenceLua + `
for i = 1, #ARGV, 2 do
	if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
		remove(ARGV[i], ARGV[i + 1])
	end
end
return 0
`}

// countScript answers the number of users, and lease, number of clients, ….
var countScript = &script{`
return {redis.call('HLEN', KEYS[2]), redis.call('HGETALL', KEYS[3])}
`}

// reapScript removes what leases that have ended left behind: a part of it at
// each call, until it answers the cursor 0.
//
//	ARGV  cursor, lease, …
var reapScript = &script{presenceLua + `
local ended = {}
for i = 2, #ARGV do
	ended[ARGV[i]] = true
end
local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 500)
for i = 1, #found[2], 2 do
	local client, entry = found[2][i], found[2][i + 1]
	if ended[take_apart(entry)] then
		remove(client, entry)
	end
end
if found[1] == '0' then
	for lease in pairs(ended) do
		redis.call('HDEL', KEYS[3], lease)
	end
end
return found[1]
`}
