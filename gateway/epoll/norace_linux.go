//go:build !race

package epoll

func wasRead([]byte)    {}
func wasWritten([]byte) {}
