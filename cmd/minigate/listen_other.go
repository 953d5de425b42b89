//go:build !linux

package main

import (
	"context"
	"net"
)

func listenTCP(address string, alive net.KeepAliveConfig) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: alive}
	return lc.Listen(context.Background(), "tcp", address)
}
