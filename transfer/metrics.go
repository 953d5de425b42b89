package transfer

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// Metrics count uploads and downloads. direction is upload, part (of an upload
// in parts, which is one upload when it is completed) or download;
// result is ok, refused (the request was at fault), canceled (the client left
// or was too slow) or failed (we were at fault).
type Metrics struct {
	transfers                                                  *prometheus.CounterVec
	bytes                                                      *prometheus.CounterVec
	active                                                     *prometheus.GaugeVec
	swept                                                      prometheus.Counter
	unchecked                                                  prometheus.Counter
	downloadsUnchecked, redirects, lost, expired, orphansSwept prometheus.Counter
	thumbs                                                     *prometheus.CounterVec
	orphans, orphanBytes                                       *prometheus.GaugeVec
	reserved                                                   *prometheus.CounterVec
	direct                                                     *prometheus.GaugeVec
	notices                                                    *prometheus.CounterVec
	checked                                                    *prometheus.CounterVec
	checking                                                   prometheus.Gauge
}

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_transfers_total",
			Help: "Uploads, parts of uploads and downloads that have ended, by how.",
		}, []string{"direction", "result"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "minigate_transfer_bytes_total",
			Help: "Bytes of files received from and sent to clients.",
		}, []string{"direction"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "minigate_transfers_active",
			Help: "Uploads, parts of uploads and downloads under way.",
		}, []string{"direction"}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_transfer_swept_total",
			Help: "Remains of interrupted uploads and deletions that were removed.",
		}),
		unchecked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "minigate_uploads_unchecked_total",
			Help: "Uploads let through, without attributes, although the upload webhook gave no usable answer.",
		}),
	}
	m.moreCounters(reg)
	m.ofDirect(reg)
	m.ofChecks(reg)
	m.ofComparisons(reg)
	reg.MustRegister(m.transfers, m.bytes, m.active, m.swept, m.unchecked)
	m.bytes.WithLabelValues("upload") // so that rates begin at zero
	m.bytes.WithLabelValues("download")
	for _, direction := range []string{"upload", "part", "download"} {
		m.active.WithLabelValues(direction)
		for _, result := range []string{"ok", "refused", "canceled", "failed"} {
			m.transfers.WithLabelValues(direction, result)
		}
	}
	return m
}

func (m *Metrics) ofDirect(reg prometheus.Registerer) {
	m.reserved = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "minigate_direct_uploads_total",
		Help: "Direct uploads that were reserved, by mode (form, parts) and by where they go: storage, or gateway where the storage cannot take them.",
	}, []string{"mode", "target"})
	m.direct = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "minigate_direct_uploads_possible",
		Help: "Whether the storage takes direct uploads of a mode (form, parts), as it was tried: 1 or 0.",
	}, []string{"mode"})
	reg.MustRegister(m.reserved, m.direct)
}

func (m *Metrics) ofChecks(reg prometheus.Registerer) {
	m.checked = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "minigate_files_checked_total",
		Help: "What checkers (wechat, webhook, clamd) said of files: pass, block, unsuitable, later where the answer comes by itself, failed where they have to be asked again.",
	}, []string{"checker", "verdict"})
	m.checking = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "minigate_files_checking",
		Help: "Files that are being checked, or blocked with bytes that are not removed yet, on all nodes, as this one saw last.",
	})
	reg.MustRegister(m.checked, m.checking)
}

func (m *Metrics) moreCounters(reg prometheus.Registerer) {
	for name, c := range map[string]struct {
		counter *prometheus.Counter
		help    string
	}{
		"minigate_downloads_unchecked_total":  {&m.downloadsUnchecked, "Downloads decided without the backend, although the download webhook gave no usable answer."},
		"minigate_downloads_redirected_total": {&m.redirects, "Downloads sent on to the storage itself."},
		"minigate_files_lost_total":           {&m.lost, "Downloads of files whose bytes were missing from the storage."},
		"minigate_files_expired_total":        {&m.expired, "Files deleted because their time was over."},
		"minigate_files_orphans_swept_total":  {&m.orphansSwept, "Objects deleted because they belonged to no file."},
	} {
		*c.counter = prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: c.help})
		reg.MustRegister(*c.counter)
	}
	m.thumbs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "minigate_thumbnails_total",
		Help: "Thumbnails that were asked for: kept ones, those made, and those that were not since it failed or too many were being made.",
	}, []string{"result"})
	for _, result := range []string{"kept", "made", "failed", "busy"} { // so that rates begin at zero
		m.thumbs.WithLabelValues(result)
	}
	m.notices = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "minigate_file_notices_total",
		Help: "What users were to be told of files over their sockets: given to the channel, or lost.",
	}, []string{"result"})
	for _, result := range []string{"given", "lost"} { // as above
		m.notices.WithLabelValues(result)
	}
	reg.MustRegister(m.thumbs, m.notices)
}

// ofComparisons are shown by the node that compared last, and by no other.
func (m *Metrics) ofComparisons(reg prometheus.Registerer) {
	m.orphans = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "minigate_files_orphans",
		Help: "What storage and list of files do not have in common, as of the last comparison, on the node that made it: files whose bytes are not there (bytes_missing) or not as many (size_differs), and what is stored and belongs to no file (record_missing, parts_left, unknown_object).",
	}, []string{"kind"})
	m.orphanBytes = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "minigate_files_orphan_bytes",
		Help: "Bytes of what is stored and belongs to no file, likewise.",
	}, []string{"kind"})
	reg.MustRegister(m.orphans, m.orphanBytes)
}

// compared shows what was found, and what was not.
func (m *Metrics) compared(c comparison) {
	for _, kind := range []string{BytesMissing, SizeDiffers, RecordMissing, PartsLeft, UnknownObject} {
		m.orphans.WithLabelValues(kind).Set(float64(c.found[kind]))
	}
	for _, kind := range []string{RecordMissing, PartsLeft, UnknownObject} {
		m.orphanBytes.WithLabelValues(kind).Set(float64(c.bytes[kind]))
	}
}

// comparedElsewhere takes back what compared has shown.
func (m *Metrics) comparedElsewhere() {
	m.orphans.Reset()
	m.orphanBytes.Reset()
}

// begin counts a transfer under way; the caller ends it with its error.
func (m *Metrics) begin(direction string) (end func(error)) {
	active := m.active.WithLabelValues(direction)
	active.Inc()
	return func(err error) {
		active.Dec()
		m.transfers.WithLabelValues(direction, result(err)).Inc()
	}
}

func result(err error) string {
	if err == nil {
		return "ok"
	}
	e := fault.Of(err)
	switch {
	case e.Kind == fault.Timeout, errors.Is(e, errTorn):
		return "canceled"
	case rest.Status(e.Kind) < 500:
		return "refused"
	}
	return "failed"
}
