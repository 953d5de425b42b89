package main

import (
	"net/http"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/apikey"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// The handlers in this file answer who is connected where, for all nodes.

const (
	maxLookupBody   = 4 << 10 // bytes
	connectionsPage = 50      // unless limit is given
)

var (
	errConnectionUnknown = fault.New(fault.NotFound, "connection_unknown", "There is no such connection.")
	errKickWhom          = fault.New(fault.Invalid, "target_missing", "Either client or user is required; session goes with user.")
)

type nodesAnswer struct {
	Nodes []engine.Node `json:"nodes"`
}

// serveNodes is GET → {nodes}.
func (s *server) serveNodes(w http.ResponseWriter, r *http.Request) error {
	nodes, err := s.hub.Info(r.Context())
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, nodesAnswer{nodes})
}

// connectionsRequest are filters, all of which have to fit.
type connectionsRequest struct {
	User     string `json:"user"`
	AppID    string `json:"appid"`
	UnionID  string `json:"unionid"`
	Session  string `json:"session"` // as connections or sessions show it
	Channel  string `json:"channel"` // those subscribed to it
	IP       string `json:"ip"`      // an address or a range
	Node     string `json:"node"`    // uid or name
	Protocol string `json:"protocol"`
	Limit    *int   `json:"limit"`
	Cursor   string `json:"cursor"`
}

type connectionsAnswer struct {
	Connections []gateway.Connection `json:"connections"`
	Cursor      string               `json:"cursor,omitempty"`  // of the next page, where there may be more
	Missing     []string             `json:"missing,omitempty"` // nodes that did not answer in time
}

// serveConnections is POST connectionsRequest → connectionsAnswer. Unavailable
// while the engine is.
func (s *server) serveConnections(w http.ResponseWriter, r *http.Request) error {
	var req connectionsRequest
	if err := rest.Decode(w, r, maxLookupBody, &req); err != nil {
		return err
	}
	limit := connectionsPage
	if req.Limit != nil {
		limit = *req.Limit
	}
	page, err := s.hub.FindConnections(r.Context(), gateway.ConnectionQuery{
		User: req.User, AppID: req.AppID, UnionID: req.UnionID, Session: req.Session, Channel: req.Channel, IP: req.IP,
		Node: req.Node, Protocol: req.Protocol, After: req.Cursor, Limit: limit,
	})
	if err != nil {
		return err
	}
	answer := connectionsAnswer{page.Connections, page.Next, page.Missing}
	if answer.Connections == nil {
		answer.Connections = []gateway.Connection{}
	}
	return rest.JSON(w, http.StatusOK, answer)
}

type connectionRequest struct {
	Client  string `json:"client"`
	User    string `json:"user"`
	Session string `json:"session"`
	Code    uint32 `json:"code"`
	Reason  string `json:"reason"`
}

// serveConnection is POST {client} → gateway.Connection. NotFound
// `connection_unknown`.
func (s *server) serveConnection(w http.ResponseWriter, r *http.Request) error {
	var req connectionRequest
	if err := rest.Decode(w, r, maxLookupBody, &req); err != nil {
		return err
	}
	if req.Client == "" {
		return errConnectionUnknown
	}
	page, err := s.hub.FindConnections(r.Context(), gateway.ConnectionQuery{Client: req.Client, Limit: 1, AllChannels: true})
	switch {
	case err != nil:
		return err
	case len(page.Connections) > 0:
		return rest.JSON(w, http.StatusOK, page.Connections[0])
	case len(page.Missing) > 0:
		return gateway.ErrSilent
	}
	return errConnectionUnknown
}

type kickedAnswer struct {
	Kicked int `json:"kicked"` // connections
}

// serveKick is POST {client, code?, reason?} or {user, session?, code?,
// reason?} → {kicked}. NotFound `connection_unknown` for a client that is not
// there; a user who is not is no error.
func (s *server) serveKick(w http.ResponseWriter, r *http.Request) error {
	var req connectionRequest
	if err := rest.Decode(w, r, maxLookupBody, &req); err != nil {
		return err
	}
	if (req.User == "") == (req.Client == "") || req.User == "" && req.Session != "" {
		return errKickWhom
	}
	n, err := s.hub.Kick(r.Context(), req.User, gateway.DisconnectOptions{Client: req.Client, Session: req.Session, Code: req.Code, Reason: req.Reason})
	switch {
	case err != nil:
		return err
	case n == 0 && req.Client != "":
		return errConnectionUnknown
	}
	return rest.JSON(w, http.StatusOK, kickedAnswer{n})
}

// userAnswer is where a user is and, for keys that may do everything, what
// there is of logins.
type userAnswer struct {
	gateway.UserInfo
	Logins *auth.UserLogins `json:"logins,omitempty"`
}

// serveUser is GET → userAnswer.
func (s *server) serveUser(w http.ResponseWriter, r *http.Request) error {
	user := r.PathValue("openid")
	live, err := s.hub.User(r.Context(), user)
	if err != nil {
		return err
	}
	answer := userAnswer{UserInfo: live}
	if c, _ := s.keys.Authenticate(r); apikey.Allows(c.Scope(), apikey.Admin) {
		logins, err := s.auth.LoginsOf(r.Context(), user)
		switch {
		case err == nil:
			answer.Logins = &logins
		case fault.Of(err).Kind != fault.Invalid: // users of JWTs may have names that logins have not
			return err
		}
	}
	return rest.JSON(w, http.StatusOK, answer)
}
