package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	sampleInterval = time.Second      // while somebody looks
	idleInterval   = 10 * time.Second // else: it takes memory and time to read all metrics
	keptFor        = 5 * time.Minute  // so that a page opened now has charts
)

// sample is what the charts draw. Totals are counters as they stand: the page
// subtracts two samples to get a rate.
type sample struct {
	Time          int64   `json:"time"` // Unix milliseconds
	Connections   float64 `json:"connections"`
	Users         float64 `json:"users"`
	Channels      float64 `json:"channels"`
	Subscriptions float64 `json:"subscriptions"`
	Received      float64 `json:"received_total"`
	Published     float64 `json:"published_total"`
	Delivered     float64 `json:"delivered_total"`
	Disconnects   float64 `json:"disconnects_total"`
	Logins        float64 `json:"logins_total"`
	Requests      float64 `json:"requests_total"`
	Transfers     float64 `json:"transfers_total"`
	Active        float64 `json:"transfers_active"`
	UploadBytes   float64 `json:"upload_bytes_total"`
	DownloadBytes float64 `json:"download_bytes_total"`
	NewsPending   float64 `json:"webhook_pending"`
	NewsDead      float64 `json:"webhook_dead"`
	NewsOldest    float64 `json:"webhook_oldest_seconds"`
	Memory        float64 `json:"memory_bytes"`
	CPU           float64 `json:"cpu_seconds_total"`
}

// field is where the value of a metric goes. Only series whose labels include
// label=value count, all of them where label is "".
type field struct {
	label, value string
	of           func(*sample) *float64
}

var fields = map[string][]field{
	"minigate_connections":             {{of: func(s *sample) *float64 { return &s.Connections }}},
	"minigate_users":                   {{of: func(s *sample) *float64 { return &s.Users }}},
	"minigate_channels":                {{of: func(s *sample) *float64 { return &s.Channels }}},
	"minigate_subscriptions":           {{of: func(s *sample) *float64 { return &s.Subscriptions }}},
	"minigate_messages_received_total": {{of: func(s *sample) *float64 { return &s.Received }}},
	"minigate_publications_total":      {{of: func(s *sample) *float64 { return &s.Published }}},
	"minigate_deliveries_total":        {{of: func(s *sample) *float64 { return &s.Delivered }}},
	"minigate_disconnects_total":       {{of: func(s *sample) *float64 { return &s.Disconnects }}},
	"minigate_logins_total":            {{of: func(s *sample) *float64 { return &s.Logins }}},
	"minigate_proxy_requests_total":    {{of: func(s *sample) *float64 { return &s.Requests }}},
	"minigate_transfers_total":         {{of: func(s *sample) *float64 { return &s.Transfers }}},
	"minigate_transfers_active":        {{of: func(s *sample) *float64 { return &s.Active }}},
	"minigate_transfer_bytes_total": {
		{"direction", "upload", func(s *sample) *float64 { return &s.UploadBytes }},
		{"direction", "download", func(s *sample) *float64 { return &s.DownloadBytes }},
	},
	"minigate_webhook_queue_items": {
		{"state", "pending", func(s *sample) *float64 { return &s.NewsPending }},
		{"state", "dead", func(s *sample) *float64 { return &s.NewsDead }},
	},
	"minigate_webhook_queue_oldest_seconds": {{of: func(s *sample) *float64 { return &s.NewsOldest }}},
	"process_resident_memory_bytes":         {{of: func(s *sample) *float64 { return &s.Memory }}},
	"process_cpu_seconds_total":             {{of: func(s *sample) *float64 { return &s.CPU }}},
}

// takeSample reads the registry.
func takeSample(g prometheus.Gatherer, now time.Time) (sample, error) {
	s := sample{Time: now.UnixMilli()}
	families, err := g.Gather()
	if err != nil {
		return s, err
	}
	for _, family := range families {
		for _, f := range fields[family.GetName()] {
			for _, m := range family.GetMetric() {
				if f.label == "" || hasLabel(m, f.label, f.value) {
					*f.of(&s) += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return s, nil
}

func hasLabel(m *dto.Metric, name, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue() == value
		}
	}
	return false
}
