// Package epoll holds WebSocket connections that cost next to nothing while
// nothing happens: a descriptor and one small struct each, without a goroutine,
// a timer or a buffer.
//
// Connections are made by net/http and websocket.Accept. A [Poller] then takes
// the descriptor over from the Go runtime and watches it with epoll(7). When
// bytes arrive the loop looks at them: a short message alone, such as a pong, the
// owner may take at once. For everything else a goroutine is borrowed, which reads
// all there is, hands complete messages to the owner, one after the other, and goes
// away. What is left of a message that has not arrived whole is kept until more
// comes.
//
// The protocol (RFC 6455) is read by [Reader], which is proved equal to the
// library's own reading by differential fuzzing. Where there is no epoll, or TLS
// is ended by this process, connections stay with the library.
package epoll
