package auth

import (
	"net/http"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/rest"
)

const maxTicketBody = 1 << 10 // bytes

type ticketRequest struct {
	Scope string `json:"scope"`
}

type ticketAnswer struct {
	Ticket    string `json:"ticket"`
	ExpiresIn int64  `json:"expires_in"` // seconds
}

// ServeTicket is POST /auth/ticket: {scope} → {ticket, expires_in}. It takes a
// login token and nothing else: a ticket makes no tickets. That a ticket names
// a file gives nobody access to it, the file's own rules do. All of its tickets
// last session.ticket_ttl, also those for upload:ID: how long an upload may
// take only the upload service knows, which hands out longer ones with
// [Service.NewTicket] when it makes the upload.
func (s *Service) ServeTicket(w http.ResponseWriter, r *http.Request) error {
	ses, err := s.verifyRequest(r)
	if err != nil {
		return err
	}
	var req ticketRequest
	if err := rest.Decode(w, r, maxTicketBody, &req); err != nil {
		return err
	}
	scope, err := ParseScope(req.Scope)
	if err != nil {
		return err
	}
	ttl := s.settings.TicketTTL
	return rest.JSON(w, http.StatusOK, ticketAnswer{s.NewTicket(r.Context(), ses, scope, ttl), int64(ttl / time.Second)})
}

// RequireTicketOr is [Service.Require] that also takes "?ticket=" where the
// request has no Authorization header. scopeOf says what the ticket has to be
// good for; where it answers "" only a token will do.
func (s *Service) RequireTicketOr(scopeOf func(r *http.Request) Scope, next rest.Handler) rest.Handler {
	require := s.Require(next)
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Header["Authorization"] != nil || !strings.Contains(r.URL.RawQuery, "ticket=") {
			return require(w, r)
		}
		scope, tickets := scopeOf(r), r.URL.Query()["ticket"]
		if scope == "" || len(tickets) != 1 {
			return errTicketInvalid
		}
		ses, err := s.VerifyTicket(r.Context(), tickets[0], scope)
		if err != nil {
			return err
		}
		// Pages that what we answer leads to must not learn our URL.
		w.Header().Set("Referrer-Policy", "no-referrer")
		return next(w, r.WithContext(WithSession(r.Context(), ses)))
	}
}

// TicketOrNone is RequireTicketOr for what may be had without a login: requests
// with neither token nor ticket go to next without a session.
func (s *Service) TicketOrNone(scopeOf func(r *http.Request) Scope, next rest.Handler) rest.Handler {
	require := s.RequireTicketOr(scopeOf, next)
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Header["Authorization"] == nil && !r.URL.Query().Has("ticket") {
			return next(w, r)
		}
		return require(w, r)
	}
}
