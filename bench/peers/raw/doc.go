//go:build linux

// Command raw is the least that a WebSocket server can do: one thread under
// epoll, frames that are built once and written as they are. It knows no
// channels, no logins and no limits. What it costs is what the kernel costs.
package main
