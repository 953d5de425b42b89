// Package status tells the business backend who came online and who went
// offline, so that it can rely on it.
//
// # What is promised
//
//   - What is told of one user alternates: online, offline, online … Each event
//     has a number, seq, that grows; an event that is told twice has the same
//     one. A receiver that keeps the highest seq of each user is right, in
//     whatever order events reach it.
//   - Whoever leaves and is back within the grace, on any node, is not told of.
//   - Users of a node that was killed are told of by those that are left, when
//     the node's lease is over; those of a node that runs alone, by the next
//     process.
//   - What was decided is told at least once: it stays due until somebody has
//     put it into the queue of webhooks.
//   - If the store loses its data, everybody who is there is told once more.
//
// # How
//
// A [Store] knows which node holds which user, and what was told of each. The
// users are spread over partitions; a step concerns one of them and is atomic.
// In each partition there are
//
//	nodes  node → its last beat: it counts as alive for the time of the lease
//	held   node and user → nothing
//	users  user → what was decided last (online or not, seq, when), whether
//	       that has been told, when he was last seen to leave
//	due    user → when to look at him
//
// Whatever happens only changes nodes, held and due. A look ([Store.Due])
// compares: a user who is held and was told to be offline comes online; one
// who is not held, and left longer ago than the grace, goes offline. A decision
// is handed out by looks until [Store.Done] confirms it, and nothing new is
// decided before. Before any look the dead are buried: a node whose lease has
// lapsed loses its users, who left when it last beat.
//
// Where nobody beat for a while, not the nodes were away but the store. Then
// there is a hush for the time of one lease, so that everybody can come back
// first: no burials, and nobody goes offline.
//
// A [Tracker] is one node's part. It keeps the set of users the node holds,
// beats, enters what has changed, looks, and hands over what is to be told. If
// its lease lapsed, or the store lost something that was entered, it begins
// anew under another name, enters everybody, and gives up the old name: what
// was wrong under that one counts no more.
package status
