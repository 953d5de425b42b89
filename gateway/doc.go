// Package gateway is the live side: WebSocket connections of mini-programs that
// speak the Centrifuge protocol, the channels they are subscribed to, and what
// is published to them.
//
// # The way of a message
//
// A publication goes to the engine, which gives it its offset, stores it, and
// delivers it to the hub of every node that has subscribers (Hub.Publication).
// There it is appended to the channel's backlog, which holds its newest messages,
// and to its tail, the newest of the stream; that is all the publisher waits
// for. A fan-out worker then makes a pass over the sockets of the channel, a part
// at a time, so that other channels have their turn; others may serve further parts
// meanwhile, unless more news has come. With each client it notes which subscription
// has news, and whoever does that becomes its writer, if there is none. The writer
// collects everything between the subscription's cursor and the end of the backlog,
// and writes it in one call; then it stops. Under epoll a write never waits, so the
// worker is the writer itself; where the socket has no room the poller goes on when
// it has. Elsewhere a goroutine is the writer. So a slow client costs an old cursor
// instead of a queue, and what piled up is written in one call. A message for
// everybody is of no channel and waits with the replies of each client; it goes out
// by passes, too.
//
// # Encodings
//
// A message is encoded when the first subscriber of a kind is written to, and
// once for all of that kind: JSON or Protobuf, with the channel's name or its
// number, in full or as the delta to the publication before.
//
// A message is put into a WebSocket frame, and where clients agreed on that
// compressed, once as well: who gets it alone gets those bytes. Several messages
// for one client are joined in one frame, but for those that are compressed.
//
//   - The number of a channel is one per node, new whenever the channel gets
//     its first subscriber there, and never used twice while the node runs.
//     It is valid for the subscription whose reply named it.
//   - A delta is sent to whom the publication before was the last one sent;
//     everybody else gets the whole. The newest publication of a channel that
//     allows deltas is kept for the next one's sake while it has subscribers.
//   - Clients that speak Protobuf may publish any bytes. What is not JSON goes
//     to those who speak Protobuf alone: the others' position moves past it, it
//     is left out of what they recover and of their history, and counted as
//     undeliverable. Centrifugo closes those subscribers with 3506.
//
// # Time
//
// No connection has a timer. One wheel with one ticker calls each when a ping,
// the end of a wait, or another look at its login is due; one clock walks over
// the channels, two shards at a time, to drop what is old and to ask for position
// checks.
//
// # What holds
//
//   - Replies are written in the order of the commands, but those of rpc where
//     client.concurrency lets several run at a time. A reply that announces
//     a subscription is written before the first push of it, and one that ends
//     it after the last.
//   - A positioned subscriber gets each publication of a stream once, in
//     order, or is told that its position is lost. What the engine missed is
//     read from history once per channel and appended to the backlog; what a
//     slow client missed is read from history for that client.
//   - Clients that come back are answered from the channel's tail in memory, as
//     long as it covers what they missed; else one read of the engine answers
//     all that wait for one. A channel is heard on for a moment after its last
//     subscriber, so that the tail is there when they do.
//   - Where nothing was published for a while the engine is asked whether
//     something was missed: once per channel and node.
//   - A stream that fell back, as it may when Redis fails over, is noticed even
//     where its epoch stays: subscribers start over, and whoever was beyond its
//     new end is told that it was not recovered. Where another epoch took over
//     and nothing was lost, whom the server subscribed is told the new one.
//   - Operations on a user go to the nodes that the engine's index names, and
//     reach connections whose connect command is still being handled.
//   - What waits for slow clients is bounded for each connection, each channel
//     and the node.
//   - A handshake is admitted or refused before anything is done for it. A hub
//     that is overloaded refuses new connections, and hurts none that it has.
//   - The transport closes first, presence and leave messages follow.
//   - Where the backend is asked (package ask), a command waits for the answer
//     and those behind it wait, too. Whether something that expires goes on is
//     asked by workers of their own. The end of the connection breaks off
//     whatever is asked about it.
//   - Nobody waits for I/O under a lock, but for channel.gate, which makes the
//     first and the last subscriber of a channel talk to the engine in turn.
//
// Locks are taken in the order channel.gate, channel.mu, outbox.mu, and
// client.mu before wheel.mu or outbox.mu. client.mu and channel.mu are never
// held together. None of them is held by whoever gives a client something to
// write: that may make it the writer, which takes them.
//
// # Goroutines
//
// One reader per connection, owned by the registry, under epoll only while
// something arrives that is more than a pong; a writer where it may have to wait, and the rpc calls of a
// connection where several may run, waited for when the connection ends; the
// workers and the clock of Hub.Run. Run returns when all of them have ended.
package gateway
