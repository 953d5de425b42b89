package difftest

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/minigate/minigate/auth/connjwt"
	"github.com/minigate/minigate/gateway"
)

// reference is the library with handlers that mean what Centrifugo's options
// mean. Its rules are written down apart from ours: who changes one by mistake
// does not change the other.
type reference struct {
	t        testing.TB
	node     *centrifuge.Node
	settings gateway.Settings
	tokens   *connjwt.Verifier
}

func theirs(t testing.TB) *server {
	s := labSettings(t)
	c := s.Client
	node, err := centrifuge.New(centrifuge.Config{
		Version: "test", Name: "node",
		ClientStaleCloseDelay: c.StaleCloseDelay, ClientQueueMaxSize: int(c.QueueMaxSize),
		ClientChannelLimit: c.ChannelLimit, ChannelMaxLength: s.Channel.MaxLength,
		HistoryMaxPublicationLimit: c.HistoryLimit, RecoveryMaxPublicationLimit: c.RecoveryLimit,
		HistoryMetaTTL: s.Channel.HistoryMetaTTL,
		Metrics:        centrifuge.MetricsConfig{RegistererGatherer: prometheus.NewRegistry()},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &reference{t: t, node: node, settings: s, tokens: verifier(t, s)}
	node.OnConnecting(r.connecting)
	node.OnConnect(r.connected)
	if err := node.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := node.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return r.server(listen(t, centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		MessageSizeLimit: int(s.WebSocket.MessageSizeLimit),
		PingPongConfig:   centrifuge.PingPongConfig{PingInterval: c.PingInterval, PongTimeout: c.PongTimeout},
	})))
}

func (r *reference) server(net *pipes) *server {
	must := func(err error) {
		if err != nil {
			r.t.Errorf("theirs: %v", err)
		}
	}
	return &server{
		net: net,
		publish: func(channel, data string, o publishOptions) string {
			_, h, _, _ := r.find(channel)
			var opts []centrifuge.PublishOption
			if !o.skip {
				opts = append(opts, centrifuge.WithHistory(h.HistorySize, h.HistoryTTL))
			}
			opts = append(opts, centrifuge.WithDelta(strings.HasPrefix(channel, "delta:")), centrifuge.WithTags(o.tags), centrifuge.WithIdempotencyKey(o.key))
			res, err := r.node.Publish(channel, []byte(data), opts...)
			must(err)
			return "offset " + strconv.FormatUint(res.Offset, 10)
		},
		forget: func(channel string) { must(r.node.RemoveHistory(channel)) },
		kick: func(user string, code uint32) {
			d := centrifuge.DisconnectForceNoReconnect
			if code != 0 {
				d.Code = code
			}
			must(r.node.Disconnect(user, centrifuge.WithCustomDisconnect(d)))
		},
		remove: func(user, channel string) { must(r.node.Unsubscribe(user, channel)) },
		all: func(data string) {
			for _, c := range r.node.Hub().Connections() {
				must(c.Send([]byte(data)))
			}
		},
		members: func(channel string) string {
			stats, err := r.node.PresenceStats(channel)
			must(err)
			return strconv.Itoa(stats.NumClients) + " clients, " + strconv.Itoa(stats.NumUsers) + " users"
		},
	}
}

// find returns the rules of a channel.
func (r *reference) find(channel string) (a gateway.Access, h gateway.History, rest string, ok bool) {
	name, rest, named := strings.Cut(strings.TrimPrefix(channel, "$"), ":")
	if !named {
		d := r.settings.Channel.WithoutNamespace
		return d.Access, gateway.History(d.KeptHistory), name, true
	}
	for _, n := range r.settings.Channel.Namespaces {
		if n.Name == name {
			return n.Access, n.History, rest, true
		}
	}
	return a, h, "", false
}

// rules is find for a client, with the error it is told.
func (r *reference) rules(channel string) (a gateway.Access, h gateway.History, err error) {
	a, h, rest, ok := r.find(channel)
	if !ok {
		return a, h, centrifuge.ErrorUnknownChannel
	}
	if len(channel) > r.settings.Channel.MaxLength {
		return a, h, centrifuge.ErrorBadRequest
	}
	if a.ChannelRegex != "" {
		if !regexp.MustCompile(a.ChannelRegex).MatchString(rest) {
			return a, h, centrifuge.ErrorBadRequest
		}
		return a, h, nil
	}
	if strings.ContainsFunc(channel, func(c rune) bool { return c > 127 }) {
		return a, h, centrifuge.ErrorBadRequest
	}
	return a, h, nil
}

func (r *reference) connecting(ctx context.Context, e centrifuge.ConnectEvent) (reply centrifuge.ConnectReply, err error) {
	if e.Token == "" {
		return reply, centrifuge.DisconnectBadRequest
	}
	token, err := r.tokens.Connect(ctx, e.Token)
	switch {
	case errors.Is(err, connjwt.ErrExpired):
		return reply, centrifuge.ErrorTokenExpired
	case err != nil:
		return reply, centrifuge.DisconnectInvalidToken
	}
	subs := map[string]centrifuge.SubscribeOptions{}
	add := func(channel string, o connjwt.SubscribeOptions) bool {
		a, h, _, ok := r.find(channel)
		if ok {
			subs[channel] = r.options(a, h, token.User, centrifuge.SubscribeEvent{Channel: channel}, o)
		}
		return ok
	}
	for channel, o := range token.Subs {
		if !add(channel, o) {
			return reply, centrifuge.DisconnectBadRequest
		}
	}
	if token.User != "" {
		add("#"+token.User, connjwt.SubscribeOptions{})
	}
	for _, channel := range e.Channels {
		if _, there := subs[channel]; there {
			continue
		}
		a, _, err := r.rules(channel)
		if err != nil {
			return reply, centrifuge.DisconnectBadRequest
		}
		if maySubscribe(a, channel, token.User) {
			add(channel, connjwt.SubscribeOptions{})
		}
	}
	return centrifuge.ConnectReply{
		Credentials:       &centrifuge.Credentials{UserID: token.User, ExpireAt: unix(token.Expires), Info: token.Info},
		Subscriptions:     subs,
		ClientSideRefresh: true,
	}, nil
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// options are what a subscriber gets of what it asks for.
func (r *reference) options(a gateway.Access, h gateway.History, user string, e centrifuge.SubscribeEvent, o connjwt.SubscribeOptions) centrifuge.SubscribeOptions {
	override := func(to *bool, from *bool) {
		if from != nil {
			*to = *from
		}
	}
	override(&a.Presence, o.Override.Presence)
	override(&a.JoinLeave, o.Override.JoinLeave)
	override(&a.ForcePushJoinLeave, o.Override.ForcePushJoinLeave)
	override(&h.ForceRecovery, o.Override.ForceRecovery)
	override(&h.ForcePositioning, o.Override.ForcePositioning)
	history := h.HistorySize > 0 && may(a.AllowHistoryForClient || a.AllowHistoryForSubscriber, user, a.AllowHistoryForAnonymous)
	presence := may(a.AllowPresenceForClient || a.AllowPresenceForSubscriber, user, a.AllowPresenceForAnonymous)
	options := centrifuge.SubscribeOptions{
		ChannelInfo: o.Info, Data: o.Data,
		EmitPresence: a.Presence, EmitJoinLeave: a.JoinLeave,
		PushJoinLeave:     a.ForcePushJoinLeave || e.JoinLeave && a.JoinLeave && presence,
		EnablePositioning: h.ForcePositioning || e.Positioned && (h.AllowPositioning || history),
		EnableRecovery:    h.ForceRecovery || e.Recoverable && (h.AllowRecovery || history),
	}
	name, _, _ := strings.Cut(e.Channel, ":")
	switch name {
	case "delta":
		options.AllowedDeltaTypes = []centrifuge.DeltaType{centrifuge.DeltaTypeFossil}
	case "filter":
		options.AllowTagsFilter = true
	case "cache":
		options.RecoveryMode = centrifuge.RecoveryModeCache
	}
	return options
}

func may(allowed bool, user string, anonymous bool) bool { return allowed && (user != "" || anonymous) }

func maySubscribe(a gateway.Access, channel, user string) bool {
	if strings.HasPrefix(channel, "$") {
		return false
	}
	if i := strings.LastIndex(channel, "#"); i >= 0 {
		if user == "" || !slices.Contains(strings.Split(channel[i+1:], ","), user) {
			return false
		}
		if a.AllowUserLimitedChannels {
			return true
		}
	}
	return may(a.AllowSubscribeForClient, user, a.AllowSubscribeForAnonymous)
}

// handlers of one connection
type peer struct {
	*reference
	client *centrifuge.Client
}

func (r *reference) connected(c *centrifuge.Client) {
	p := &peer{r, c}
	c.OnSubscribe(p.subscribe)
	c.OnUnsubscribe(func(centrifuge.UnsubscribeEvent) {})
	c.OnDisconnect(func(centrifuge.DisconnectEvent) {})
	c.OnPublish(p.publish)
	c.OnPresence(func(e centrifuge.PresenceEvent, done centrifuge.PresenceCallback) {
		done(centrifuge.PresenceReply{}, p.mayPresence(e.Channel))
	})
	c.OnPresenceStats(func(e centrifuge.PresenceStatsEvent, done centrifuge.PresenceStatsCallback) {
		done(centrifuge.PresenceStatsReply{}, p.mayPresence(e.Channel))
	})
	c.OnHistory(p.history)
	c.OnRefresh(p.refresh)
	c.OnSubRefresh(p.subRefresh)
}

func (p *peer) subscribe(e centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
	var reply centrifuge.SubscribeReply
	a, h, err := p.rules(e.Channel)
	if err == nil && e.Token == "" && !maySubscribe(a, e.Channel, p.client.UserID()) {
		err = centrifuge.ErrorPermissionDenied
	}
	if err != nil {
		done(reply, err)
		return
	}
	var token connjwt.SubscribeToken
	if e.Token != "" {
		t, err := p.subscriptionToken(e.Channel, e.Token, centrifuge.ErrorPermissionDenied)
		if err != nil {
			done(reply, err)
			return
		}
		token = *t
	}
	reply.ClientSideRefresh = true
	reply.Options = p.options(a, h, p.client.UserID(), e, token.SubscribeOptions)
	reply.Options.ExpireAt = unix(token.Expires)
	reply.Options.AllowChannelCompaction = true
	done(reply, nil)
}

func (p *peer) subscriptionToken(channel, token string, invalid error) (*connjwt.SubscribeToken, error) {
	t, err := p.tokens.Subscribe(context.Background(), token)
	switch {
	case errors.Is(err, connjwt.ErrExpired):
		return nil, centrifuge.ErrorTokenExpired
	case err != nil:
		return nil, invalid
	case t.Channel != channel || t.User != p.client.UserID() || t.Client != "" && t.Client != p.client.ID():
		return nil, centrifuge.DisconnectInvalidToken
	}
	return t, nil
}

func (p *peer) publish(e centrifuge.PublishEvent, done centrifuge.PublishCallback) {
	a, h, err := p.rules(e.Channel)
	user := p.client.UserID()
	switch {
	case err != nil:
	case len(e.Data) == 0:
		err = centrifuge.ErrorBadRequest
	case may(a.AllowPublishForClient, user, a.AllowPublishForAnonymous):
	case p.client.IsSubscribed(e.Channel) && may(a.AllowPublishForSubscriber, user, a.AllowPublishForAnonymous):
	default:
		err = centrifuge.ErrorPermissionDenied
	}
	done(centrifuge.PublishReply{Options: centrifuge.PublishOptions{
		HistorySize: h.HistorySize, HistoryTTL: h.HistoryTTL, ClientInfo: e.ClientInfo,
	}}, err)
}

func (p *peer) mayPresence(channel string) error {
	a, _, err := p.rules(channel)
	user := p.client.UserID()
	switch {
	case err != nil:
		return err
	case !a.Presence:
		return centrifuge.ErrorNotAvailable
	case may(a.AllowPresenceForClient, user, a.AllowPresenceForAnonymous):
	case p.client.IsSubscribed(channel) && may(a.AllowPresenceForSubscriber, user, a.AllowPresenceForAnonymous):
	default:
		return centrifuge.ErrorPermissionDenied
	}
	return nil
}

func (p *peer) history(e centrifuge.HistoryEvent, done centrifuge.HistoryCallback) {
	a, h, err := p.rules(e.Channel)
	user := p.client.UserID()
	switch {
	case err != nil:
	case h.HistorySize == 0:
		err = centrifuge.ErrorNotAvailable
	case may(a.AllowHistoryForClient, user, a.AllowHistoryForAnonymous):
	case p.client.IsSubscribed(e.Channel) && may(a.AllowHistoryForSubscriber, user, a.AllowHistoryForAnonymous):
	default:
		err = centrifuge.ErrorPermissionDenied
	}
	done(centrifuge.HistoryReply{}, err)
}

func (p *peer) refresh(e centrifuge.RefreshEvent, done centrifuge.RefreshCallback) {
	t, err := p.tokens.Connect(context.Background(), e.Token)
	switch {
	case errors.Is(err, connjwt.ErrExpired):
		done(centrifuge.RefreshReply{Expired: true}, nil)
	case err != nil || t.User != p.client.UserID():
		done(centrifuge.RefreshReply{}, centrifuge.DisconnectInvalidToken)
	default:
		done(centrifuge.RefreshReply{ExpireAt: unix(t.Expires), Info: t.Info}, nil)
	}
}

func (p *peer) subRefresh(e centrifuge.SubRefreshEvent, done centrifuge.SubRefreshCallback) {
	t, err := p.subscriptionToken(e.Channel, e.Token, centrifuge.DisconnectInvalidToken)
	if errors.Is(err, centrifuge.ErrorTokenExpired) {
		done(centrifuge.SubRefreshReply{Expired: true}, nil)
		return
	}
	if err != nil {
		done(centrifuge.SubRefreshReply{}, err)
		return
	}
	done(centrifuge.SubRefreshReply{ExpireAt: unix(t.Expires), Info: t.Info}, nil)
}
