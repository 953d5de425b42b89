package wxsim

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

const (
	grantLife      = 30 * 24 * time.Hour // consents wait this long in the simulator; WeChat keeps them for good
	customerWindow = 48 * time.Hour
	customerLimit  = 5       // messages after each of the user's
	maxGrants      = 1 << 16 // users and templates remembered
	maxSent        = 1 << 10 // messages remembered
)

// Message is one that was sent to a user.
type Message struct {
	AppID, OpenID string
	Template      string // "" for a customer message
	Text          string // the fields of a template as "name=value", or the text
}

// Sent are the messages that reached users, the latest 1,024.
func (s *Server) Sent() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.sent...)
}

// Grant has a user agree to one more message of a template.
func (s *Server) Grant(appID, user, template string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, key := s.now(), userKey(appID, OpenID(appID, user))+"/"+template
	count := 0
	if e := s.grants.get(key, now); e != nil {
		count = e.value
	}
	s.grants.put(key, count+1, now, now.Add(grantLife))
}

// Write has a user write to the mini-program, who may then be answered.
func (s *Server) Write(appID, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.windows.put(userKey(appID, OpenID(appID, user)), customerLimit, now, now.Add(customerWindow))
}

// subscribeSend is POST /cgi-bin/message/subscribe/send.
func (s *Server) subscribeSend(r *http.Request) (any, error) {
	var req struct {
		To       string `json:"touser"`
		Template string `json:"template_id"`
		Page     string `json:"page"`
		Data     map[string]struct {
			Value string `json:"value"`
		} `json:"data"`
	}
	if err := readJSON(r, &req); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	appID, err := s.accessToken(r.URL.Query().Get("access_token"))
	if err != nil {
		return nil, err
	}
	now := s.now()
	switch {
	case s.keys.get(userKey(appID, req.To), now) == nil:
		return nil, &apiError{40003, "invalid openid"}
	case req.Template == "":
		return nil, &apiError{40037, "invalid template_id"}
	case strings.HasPrefix(req.Page, "/"):
		return nil, &apiError{41030, "invalid page"}
	case len(req.Data) == 0:
		return nil, &apiError{47003, "argument invalid! data is empty"}
	}
	text := make([]string, 0, len(req.Data))
	for name, field := range req.Data {
		if !validField(name, field.Value) {
			return nil, &apiError{47003, "argument invalid! data." + name + ".value is invalid"}
		}
		text = append(text, name+"="+field.Value)
	}
	grant := s.grants.get(userKey(appID, req.To)+"/"+req.Template, now)
	if grant == nil || grant.value == 0 {
		return nil, &apiError{43101, "user refuse to accept the msg"}
	}
	grant.value--
	s.remember(Message{appID, req.To, req.Template, strings.Join(text, " ")})
	return struct {
		failure
		MsgID int64 `json:"msgid"`
	}{success, now.UnixNano()}, nil
}

// fieldRules are WeChat's for the values of templates, as far as they can be
// told without the template.
var fieldRules = map[string]*regexp.Regexp{
	"number":           regexp.MustCompile(`^[0-9.-]{1,32}$`),
	"letter":           regexp.MustCompile(`^[A-Za-z]{1,32}$`),
	"character_string": regexp.MustCompile(`^[\x20-\x7e]{1,32}$`),
}

var fieldName = regexp.MustCompile(`^([a-z_]+?)[0-9]+$`)

func validField(name, value string) bool {
	m := fieldName.FindStringSubmatch(name)
	if m == nil || value == "" {
		return false
	}
	if m[1] == "thing" {
		return utf8.RuneCountInString(value) <= 20
	}
	rule := fieldRules[m[1]]
	return rule == nil || rule.MatchString(value)
}

// customerSend is POST /cgi-bin/message/custom/send.
func (s *Server) customerSend(r *http.Request) (any, error) {
	var req struct {
		To   string `json:"touser"`
		Type string `json:"msgtype"`
		Text struct {
			Content string `json:"content"`
		} `json:"text"`
	}
	if err := readJSON(r, &req); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	appID, err := s.accessToken(r.URL.Query().Get("access_token"))
	if err != nil {
		return nil, err
	}
	now := s.now()
	window := s.windows.get(userKey(appID, req.To), now)
	switch {
	case s.keys.get(userKey(appID, req.To), now) == nil:
		return nil, &apiError{40003, "invalid openid"}
	case len(req.Text.Content) > 2048:
		return nil, &apiError{45002, "content size out of limit"}
	case window == nil:
		return nil, &apiError{45015, "response out of time limit or subscription is canceled"}
	case window.value == 0:
		return nil, &apiError{45047, "out of response count limit"}
	}
	window.value--
	s.remember(Message{AppID: appID, OpenID: req.To, Text: req.Text.Content})
	return success, nil
}

// remember keeps a message that was sent. s.mu is held.
func (s *Server) remember(m Message) {
	if len(s.sent) == maxSent {
		s.sent = s.sent[1:]
	}
	s.sent = append(s.sent, m)
}

// serveGrant is POST /sim/grant {appid, user, template}: the user agrees to
// one message.
func (s *Server) serveGrant(w http.ResponseWriter, r *http.Request) error {
	req, err := s.simRequest(w, r)
	if err != nil {
		return err
	}
	if req.Template == "" {
		return fault.New(fault.Invalid, "template_missing", "The field template is missing.")
	}
	s.Grant(req.AppID, req.User, req.Template)
	return rest.JSON(w, http.StatusOK, map[string]string{"template": req.Template})
}

// serveWrite is POST /sim/write {appid, user}: the user writes to the
// mini-program's customer service.
func (s *Server) serveWrite(w http.ResponseWriter, r *http.Request) error {
	req, err := s.simRequest(w, r)
	if err != nil {
		return err
	}
	s.Write(req.AppID, req.User)
	return rest.JSON(w, http.StatusOK, struct{}{})
}

// serveMessages is GET /sim/messages: what users received.
func (s *Server) serveMessages(w http.ResponseWriter, _ *http.Request) error {
	list := []string{}
	for _, m := range s.Sent() {
		list = append(list, fmt.Sprintf("%s %s %s: %s", m.AppID, m.OpenID, m.Template, m.Text))
	}
	return rest.JSON(w, http.StatusOK, map[string]any{"messages": list})
}
