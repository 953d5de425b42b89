package main

import (
	"net"
	"time"
)

// keepAliveAfter lets a peer go that answers nothing for 90 seconds, once it has
// been silent for a minute, or for two intervals between pings of the hub where
// that is longer: who does not answer those is gone by then. Go asks after 15
// seconds: a phone is not to be woken for both, and very many that came at the
// same moment would be asked at the same moment.
func keepAliveAfter(pings time.Duration) net.KeepAliveConfig {
	const most = 10 * time.Minute // HTTP, which has no pings, comes here, too
	idle := min(max(time.Minute, 2*pings), most)
	return net.KeepAliveConfig{Enable: true, Idle: idle, Interval: 15 * time.Second, Count: 6}
}
