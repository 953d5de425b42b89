package harness

// Result is what the load generator prints at its end: one line of JSON.
// Durations are in seconds, or as their names say; CPU and memory are the
// server's.
type Result struct {
	Mode        string  `json:"mode"`
	Connections int     `json:"connections"`
	Failed      int64   `json:"failed"`
	FirstError  string  `json:"first_error,omitempty"`
	ConnectTime float64 `json:"connect_seconds"`
	ConnectCPU  float64 `json:"connect_cpu_us"`         // for each connection
	AgainCPU    float64 `json:"again_cpu_us,omitempty"` // the second time
	Deflated    bool    `json:"deflated,omitempty"`     // permessage-deflate was offered and taken

	Memory      int64 `json:"memory_per_socket,omitempty"`      // a moment after the last one connected
	MemoryLater int64 `json:"memory_per_socket_held,omitempty"` // at the end of the hold
	MemoryGrown int64 `json:"memory_grown,omitempty"`           // while messages went out
	Kernel      int64 `json:"kernel_tcp_bytes,omitempty"`       // of all buffers of TCP, meanwhile

	Pings   int64   `json:"pings,omitempty"`
	PingCPU float64 `json:"ping_cpu_us,omitempty"`

	Published  int64   `json:"published,omitempty"`
	Deliveries int64   `json:"deliveries,omitempty"`
	Wanted     int64   `json:"wanted,omitempty"` // deliveries; 0 where it cannot be known
	PerSecond  float64 `json:"deliveries_per_second,omitempty"`
	Bytes      float64 `json:"bytes_each,omitempty"`  // of WebSocket messages, for each delivery
	CPU        float64 `json:"cpu_us_each,omitempty"` // for each delivery or command
	P50        float64 `json:"p50_ms,omitempty"`
	P99        float64 `json:"p99_ms,omitempty"`
	Max        float64 `json:"max_ms,omitempty"`
	PublishP99 float64 `json:"publish_p99_ms,omitempty"`

	Failover *Failover `json:"failover,omitempty"`
}

// Failover is how connections came back to another server.
type Failover struct {
	LastBack    float64 `json:"last_back_seconds"` // since the first one was lost
	AwayP50     float64 `json:"away_p50_ms"`       // of one connection: from its loss to its last reply
	AwayP99     float64 `json:"away_p99_ms"`
	Attempts    int64   `json:"attempts"` // to connect
	Refused     int64   `json:"failed_attempts"`
	Recovered   int64   `json:"recovered"`   // publications that were missed and came after all
	Unrecovered int64   `json:"unrecovered"` // connections that were told of a gap
	Gaps        int64   `json:"gaps"`        // publications that came out of order or did not
	Behind      int64   `json:"behind"`      // connections that miss the end
}

// Event is what load prints before: that all are "ready", have it "delivered",
// or are "back".
type Event struct {
	Event string `json:"event"`
}
