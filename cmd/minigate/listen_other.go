//go:build !linux

package main

import "net"

func listenTCP(address string) (net.Listener, error) { return net.Listen("tcp", address) }
