package serverapi

import (
	"time"

	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/settings"
)

const transportErrors = "transport" // api.error_mode

// Settings rule the server API.
type Settings struct {
	Keys []apikey.Key `yaml:"keys" doc:"API keys; without any nobody may call the server API. SIGHUP reads them again while minigate runs."`

	ErrorMode string `yaml:"error_mode" doc:"How errors of Centrifugo's methods are answered: empty with status 200 and {\"error\":{…}}, transport with a status of HTTP and the bare error. The header X-Centrifugo-Error-Mode asks for one request."`

	MaxData settings.Size `yaml:"max_data" default:"64KiB" doc:"Largest data of one publication in bytes."`
	MaxBody settings.Size `yaml:"max_body" default:"4MiB" doc:"Largest request body in bytes; more is refused with 413."`
	Timeout time.Duration `yaml:"timeout" default:"10s" doc:"How long one request may work before it answers with an internal error."`
}

// Check reports mistakes. The length of keys is left to apikey.CheckLength,
// since dev has a short one.
func (s *Settings) Check(report func(path, problem string)) {
	apikey.Check(s.Keys, report)
	if s.ErrorMode != "" && s.ErrorMode != transportErrors {
		report("error_mode", "must be empty or transport")
	}
	if s.MaxData <= 0 {
		report("max_data", "must be more than 0")
	}
	if s.MaxBody < s.MaxData {
		report("max_body", "must be at least max_data")
	}
	if s.Timeout <= 0 {
		report("timeout", "must be more than 0")
	}
}
