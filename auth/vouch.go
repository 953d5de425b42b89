package auth

import (
	"context"
	"encoding/json"
	"log/slog"
)

// Vouched is what a phone had opened or redeemed, for the backend to hear of
// from us and not from the phone.
type Vouched struct {
	User    User            `json:"user"`
	Kind    string          `json:"kind"` // "opendata" or "phone"
	RawData json.RawMessage `json:"raw_data,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// vouch hands v on, where somebody wants it. It does not keep the phone from
// its answer, whose jws says the same.
func (s *Service) vouch(ctx context.Context, v Vouched) {
	if s.forwardData == nil {
		return
	}
	if err := s.forwardData(ctx, v); err != nil {
		slog.WarnContext(ctx, "the backend is not told of opened data", "kind", v.Kind, "error", err)
	}
}
