//go:build linux

// Command load holds very many WebSocket connections from one machine and
// measures what a server makes of them.
//
//	load -mode idle      -n 19000                    memory and CPU of sockets that only answer pings
//	load -mode storm     -n 19000                    all connect at once
//	load -mode handshake -n 5000                     connects twice: the second time the server knows the tokens
//	load -mode fanout    -n 10000 -count 40          publishes back to back to all
//	load -mode rate      -n 10000 -rate 20 -for 5s   publishes at a fixed rate to all
//	load -mode unicast   -n 1000  -for 5s            publishes to one user each, by publishers at a time
//	load -mode command   -n 5000  -for 5s            commands with replies
//	load -mode stall     -n 5000  -stalled 1000      some of them stop reading
//	load -mode hold      -n 19000 -count 1           waits for what others publish, until its input ends
//	load -mode failover  -n 19000 -then ws://…       the server is killed by others: all come back to another one
//
// It speaks the Centrifuge protocol, or, with -bare, none: every message is one
// publication, and pings are those of WebSocket.
//
// A connection is a struct of some 50 bytes under epoll, without a goroutine and
// without a buffer while nothing arrives in pieces. Latency is counted from the
// moment a publication was due, so that a publisher who is kept waiting does
// not hide what his messages suffer. The result is one line of JSON; hold and
// failover print an event on a line of its own before.
//
// It sends to loopback addresses only.
package main
