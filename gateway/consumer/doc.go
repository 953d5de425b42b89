// Package consumer takes calls of the server API from Redis Streams, for
// backends that want to publish from within their own work with Redis, or
// while no minigate is there:
//
//	XADD orders * method publish payload '{"channel":"room:1","data":{…}}' [key room:1]
//
// # What is promised
//
// At least once: an entry is acknowledged after it was carried out, or set
// aside in the stream NAME.dead because it never can be (no such method,
// refused as invalid) or failed for longer than give_up_after. Whatever else
// fails is tried again.
//
// In order per key: entries with the same key are carried out one after the
// other, as they stand in the stream; those with different keys at the same
// time. The key is the field of that name, else the one user or channel that
// the payload is about; a request about several has none, and no order. An
// entry that fails for now holds up those of its key behind it, and no others.
//
// That order must outlive a node that dies with entries under way, and here
// the pending list of a consumer group alone does not help: while one node
// waits for another's entries to grow old enough to be claimed, it would go on
// with later ones of the same keys. So a stream is consumed by one node at a
// time, under a lease (PREFIX:consumer:{STREAM}:GROUP), and in parallel by key
// within it; more nodes share the work by consuming more streams, to which the
// backend spreads its keys: a node that holds two more than another lets go of
// one. All nodes read under one name in the group:
// whoever takes the lease over first gets what was pending, in the order of
// the stream, and only then what is new. Reading and checking the lease is one
// step in Redis, so a node that has lost it reads nothing more; it stops
// working a little before its lease would be over by its own clock.
//
// What that cannot promise is that nothing happens twice. A node that dies
// between carrying out and acknowledging leaves the entries to its successor,
// so a key sees its entries in order, of which a stretch may be repeated: A B
// A B C, never A C or B A. Nor can anybody stop a call that a paused node has
// already sent. Both are harmless for what has an idempotency key: publish,
// broadcast and push, also within batch, get the entry's id as theirs unless
// they bring one, for as long as client.idempotent_result_ttl. A push to all
// takes none and reaches its sockets again.
//
// # In memory
//
// A stream holds at most 1,024 entries and 16 MiB. Of what waits behind a
// failure only ids are kept, 100,000 at most; the content is fetched again.
// Beyond these nothing more is read until something is finished.
package consumer
