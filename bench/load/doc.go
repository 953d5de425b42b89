//go:build linux

// Command load holds very many Centrifuge connections from one machine and
// measures what a server makes of them.
//
//	load -mode idle    -n 19000                    memory and CPU of sockets that only answer pings
//	load -mode storm   -n 19000                    all connect at once, as after a node's death
//	load -mode fanout  -n 10000 -count 40          publishes back to back to all
//	load -mode rate    -n 10000 -rate 20 -for 5s   publishes at a fixed rate to all
//	load -mode unicast -n 1000  -for 5s            pushes to one user each, by publishers at a time
//	load -mode command -n 5000  -for 5s            commands with replies
//	load -mode stall   -n 5000  -stalled 1000      some of them stop reading
//
// A connection is a struct of some 40 bytes under epoll, without a goroutine and
// without a buffer while nothing arrives in pieces. Latency is counted from the
// moment a publication was due, so that a publisher who is kept waiting does
// not hide what his messages suffer. The result is one line of JSON.
//
// It sends to loopback addresses only.
package main
