package auth

import "time"

// OpenDataSettings bound what phones may ask to be opened.
type OpenDataSettings struct {
	MaxAge   time.Duration `yaml:"max_age" default:"1h" doc:"How old encrypted open data may be, by its watermark; older data is answered with session_key_stale, upon which the phone fetches it anew. Between 1m and 8760h."`
	ProofTTL time.Duration `yaml:"proof_ttl" default:"5m" doc:"How long the signed statement (jws) works that phones get with open data and phone numbers; between 10s and 1h."`
	Rate     float64       `yaml:"rate" default:"0.5" doc:"Requests per second to /auth/opendata and /auth/phone together that one user may make in the long run. 0 sets no limit."`
	Burst    int           `yaml:"burst" default:"20" doc:"Requests to /auth/opendata and /auth/phone together that one user may make at once."`
}

// Check finds mistakes in the block wechat.open_data.
func (s *OpenDataSettings) Check(report func(path, problem string)) {
	if s.MaxAge < time.Minute || s.MaxAge > 8760*time.Hour {
		report("max_age", "must be between 1m and 8760h")
	}
	if s.ProofTTL < 10*time.Second || s.ProofTTL > time.Hour {
		report("proof_ttl", "must be between 10s and 1h")
	}
	if !(s.Rate >= 0) { // also refuses NaN
		report("rate", "must not be negative")
	}
	if s.Rate > 0 && s.Burst < 1 {
		report("burst", "must be at least 1")
	}
}
