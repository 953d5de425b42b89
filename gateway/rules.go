package gateway

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/minigate/minigate/gateway/engine"
)

// rules are what holds for every channel of one namespace.
type rules struct {
	Access
	History
	regex    *regexp.Regexp // nil: names are ASCII
	insecure bool           // client.insecure: clients may do anything
	number   int32          // in rulebook.all
}

func (r *rules) keepsHistory() bool { return r.HistorySize > 0 }

func (r *rules) allowsDelta() bool { return len(r.AllowedDeltaTypes) > 0 }

// cacheMode tells whether recovering means to get the newest publication only.
func (r *rules) cacheMode() bool { return r.ForceRecoveryMode == recoverCache }

// rulebook finds the rules of a channel by its name.
type rulebook struct {
	all       []*rules // by number
	unnamed   *rules
	named     map[string]*rules
	maxLength int
	personal  string // prefix of personal channels, "" where they are off
	union     string // prefix of unionid channels, "" where they are off
}

func newRulebook(s Settings) *rulebook {
	def := s.Channel.WithoutNamespace
	b := &rulebook{named: map[string]*rules{}, maxLength: s.Channel.MaxLength}
	b.unnamed = b.add(s.newRules(def.Access, History(def.KeptHistory)))
	if ns := s.Client.UnionIDNamespace; ns != "" {
		b.union = ns + ":#"
		// Unless the owner gives it rules of its own, it keeps what personal
		// channels keep, and clients may do nothing in it.
		b.named[ns] = b.add(s.newRules(Access{}, b.unnamed.History))
	}
	for _, n := range s.Channel.Namespaces {
		b.named[n.Name] = b.add(s.newRules(n.Access, n.History))
	}
	if p := s.Client.PersonalChannel; p.Enabled {
		b.personal = "#"
		if p.Namespace != "" {
			b.personal = p.Namespace + ":#"
		}
	}
	return b
}

func (b *rulebook) add(r *rules) *rules {
	r.number = int32(len(b.all))
	b.all = append(b.all, r)
	return r
}

// newRules are a namespace's own, and what holds for all of them.
func (s *Settings) newRules(a Access, h History) *rules {
	r := &rules{Access: a, History: h, insecure: s.Client.Insecure}
	if r.HistoryMetaTTL == 0 {
		r.HistoryMetaTTL = s.Channel.HistoryMetaTTL
	}
	if r.DataFormat == "" {
		r.DataFormat = s.Channel.DataFormat
	}
	if a.ChannelRegex != "" {
		r.regex = regexp.MustCompile(a.ChannelRegex) // compiled once already by Settings.Check
	}
	return r
}

// personalChannel is where what is pushed to a user goes, "" where users have
// no personal channels.
func (b *rulebook) personalChannel(user string) string {
	if b.personal == "" || user == "" {
		return ""
	}
	return b.personal + user
}

// unionChannel is where what is pushed to a unionid goes, or "".
func (b *rulebook) unionChannel(unionID string) string {
	if b.union == "" || unionID == "" {
		return ""
	}
	return b.union + unionID
}

// find returns the rules of a channel. It accepts every name a server may use.
func (b *rulebook) find(channel string) (*rules, error) {
	if channel == "" || len(channel) > b.maxLength {
		return nil, ErrBadRequest
	}
	ns, _, ok := strings.Cut(strings.TrimPrefix(channel, "$"), ":")
	if !ok {
		return b.unnamed, nil
	}
	r := b.named[ns]
	if r == nil {
		return nil, ErrUnknownChannel
	}
	return r, nil
}

// findForClient is find for names that come from clients, which must also look
// right.
func (b *rulebook) findForClient(channel string) (*rules, error) {
	ns, rest, ok := strings.Cut(strings.TrimPrefix(channel, "$"), ":")
	r := b.unnamed
	if ok {
		if r = b.named[ns]; r == nil {
			return nil, ErrUnknownChannel
		}
	} else {
		rest = ns
	}
	switch {
	case channel == "" || len(channel) > b.maxLength || !utf8.ValidString(channel):
		return nil, ErrBadRequest
	case r.regex != nil && !r.regex.MatchString(rest):
		return nil, ErrBadRequest
	case r.regex == nil && !isASCII(channel):
		return nil, ErrBadRequest
	}
	return r, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func isPrivate(channel string) bool { return strings.HasPrefix(channel, "$") }

// outsider tells whether a channel is limited to users named after its # and
// user is none of them. That holds whatever the namespace allows, so that
// opening a namespace to clients does not open the personal channels in it.
func outsider(channel, user string) bool {
	i := strings.LastIndexByte(channel, '#')
	return i >= 0 && (user == "" || !slices.Contains(strings.Split(channel[i+1:], ","), user))
}

// closed tells whether only subscribers may look into a channel, or publish to
// it, whatever the namespace allows: it is private, or limited to others.
func closed(channel, user string) bool { return isPrivate(channel) || outsider(channel, user) }

func isUserLimited(channel string) bool { return strings.Contains(channel, "#") }

// isOpen tells whether clients may subscribe to any name of this kind.
func (r *rules) isOpen(channel string) bool {
	return (r.insecure || r.AllowSubscribeForClient) && !isPrivate(channel) && !isUserLimited(channel)
}

// maySubscribe tells whether a client may subscribe without anybody's leave.
func (r *rules) maySubscribe(channel, user string) bool {
	switch {
	case closed(channel, user):
		return false
	case isUserLimited(channel) && r.AllowUserLimitedChannels:
		return true
	}
	return r.AllowSubscribeForClient && (user != "" || r.AllowSubscribeForAnonymous)
}

func (r *rules) mayPublish(channel, user string, subscribed bool) bool {
	return r.insecure || (subscribed && r.AllowPublishForSubscriber || r.AllowPublishForClient && (subscribed || !closed(channel, user))) &&
		(user != "" || r.AllowPublishForAnonymous)
}

func (r *rules) mayReadPresence(channel, user string, subscribed bool) bool {
	return r.insecure || (subscribed && r.AllowPresenceForSubscriber || r.AllowPresenceForClient && (subscribed || !closed(channel, user))) &&
		(user != "" || r.AllowPresenceForAnonymous)
}

func (r *rules) mayReadHistory(channel, user string, subscribed bool) bool {
	return r.insecure || (subscribed && r.AllowHistoryForSubscriber || r.AllowHistoryForClient && (subscribed || !closed(channel, user))) &&
		(user != "" || r.AllowHistoryForAnonymous)
}

// takes tells whether a publication may carry data. That it is JSON is checked
// where it comes from, if it has to be.
func (r *rules) takes(data []byte) bool {
	switch r.DataFormat {
	case formatBinary:
		return true
	case formatObject:
		return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte{'{'}) && json.Valid(data)
	case formatJSON:
		return json.Valid(data)
	}
	return len(data) > 0
}

// publishOptions are what the engine is told with a publication.
func (r *rules) publishOptions(skipHistory bool) engine.PublishOptions {
	if skipHistory || !r.keepsHistory() {
		return engine.PublishOptions{}
	}
	return engine.PublishOptions{HistorySize: r.HistorySize, HistoryTTL: r.HistoryTTL, MetaTTL: r.HistoryMetaTTL}
}
