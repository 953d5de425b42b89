package serverapi

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway"
	"github.com/minigate/minigate/gateway/engine"
	"github.com/minigate/minigate/internal/apikey"
)

// methods are all there are. Set in init, since batch refers to them.
var methods map[string]method

func init() {
	methods = map[string]method{
		"publish":        {scope: apikey.Publish, call: (*API).publishBody},
		"broadcast":      handle(apikey.Publish, (*API).broadcast),
		"push":           handle(apikey.Publish, (*API).push),
		"disconnect":     audited((*API).disconnect),
		"subscribe":      audited((*API).subscribe),
		"refresh":        audited((*API).refresh),
		"unsubscribe":    audited((*API).unsubscribe),
		"history_remove": audited((*API).historyRemove),
		"info":           handle(apikey.Read, (*API).info),
		"channels":       handle(apikey.Read, (*API).channels),
		"presence":       handle(apikey.Read, (*API).presence),
		"presence_stats": handle(apikey.Read, (*API).presenceStats),
		"history":        handle(apikey.Read, (*API).history),
		"rpc":            handle("", (*API).rpc),
		"batch":          {call: (*API).batch},
	}
}

// handle makes a method of a function that takes its decoded request.
func handle[T any](scope string, f func(a *API, ctx context.Context, req T) (any, error)) method {
	return method{scope: scope, call: func(a *API, ctx context.Context, _ caller, body []byte) (any, error) {
		req, err := decode[T](body)
		if err != nil {
			return nil, err
		}
		return f(a, ctx, req)
	}}
}

// audited is handle for what only an admin may change.
func audited[T any](f func(a *API, ctx context.Context, req T) (any, error)) method {
	m := handle(apikey.Admin, f)
	m.audited = true
	return m
}

// empty is the result of methods that have nothing to say.
type empty struct{}

// publication is what publish and broadcast have in common.
type publication struct {
	payload
	Delta          bool              `json:"delta"`
	SkipHistory    bool              `json:"skip_history"`
	Tags           map[string]string `json:"tags"`
	IdempotencyKey string            `json:"idempotency_key"`
	Version        uint64            `json:"version"`
	VersionEpoch   string            `json:"version_epoch"`
}

func (p publication) options() gateway.PublishOptions {
	return gateway.PublishOptions{
		SkipHistory: p.SkipHistory, Tags: p.Tags, Delta: p.Delta, IdempotencyKey: p.IdempotencyKey,
		Version: p.Version, VersionEpoch: p.VersionEpoch,
	}
}

// position is {} for a channel without history.
type position struct {
	Offset uint64 `json:"offset,omitempty"`
	Epoch  string `json:"epoch,omitempty"`
}

type publishRequest struct {
	Channel string `json:"channel"`
	publication
}

func (a *API) publish(ctx context.Context, req publishRequest) (any, error) {
	data, o, err := a.prepare(req.publication)
	if err != nil {
		return nil, err
	}
	if req.Channel == "" {
		return nil, badRequest("no channel")
	}
	res, err := a.hub.Publish(ctx, req.Channel, data, o)
	return position(res.Position), err
}

func (a *API) prepare(p publication) (json.RawMessage, gateway.PublishOptions, error) {
	data, err := p.bytes(int(a.settings.MaxData))
	return data, p.options(), err
}

type broadcastRequest struct {
	Channels []string `json:"channels"`
	publication
}

type broadcastResult struct {
	Responses []reply `json:"responses"`
}

func (a *API) broadcast(ctx context.Context, req broadcastRequest) (any, error) {
	data, o, err := a.prepare(req.publication)
	if err != nil {
		return nil, err
	}
	if n := len(req.Channels); n == 0 || n > maxTargets {
		return nil, badRequest("no channels, or too many")
	}
	responses := make([]reply, 0, len(req.Channels))
	for _, res := range a.hub.Broadcast(ctx, req.Channels, data, o) {
		if res.Err != nil {
			responses = append(responses, reply{Error: errorOf(res.Err)})
			continue
		}
		responses = append(responses, reply{Result: position(res.Result.Position)})
	}
	return broadcastResult{responses}, nil
}

type disconnectRequest struct {
	User       string   `json:"user"`
	Client     string   `json:"client"`
	Session    string   `json:"session"`
	Whitelist  []string `json:"whitelist"`
	Disconnect *struct {
		Code   uint32 `json:"code"`
		Reason string `json:"reason"`
	} `json:"disconnect"`
}

func (a *API) disconnect(ctx context.Context, req disconnectRequest) (any, error) {
	if req.User == "" || len(req.Whitelist) > maxTargets {
		return nil, badRequest("no user, or too long a whitelist")
	}
	o := gateway.DisconnectOptions{Client: req.Client, Session: req.Session, Whitelist: req.Whitelist}
	if d := req.Disconnect; d != nil {
		o.Code, o.Reason = d.Code, d.Reason
	}
	return empty{}, a.hub.Disconnect(ctx, req.User, o)
}

type unsubscribeRequest struct {
	selection
	Channel string `json:"channel"` // "" means all
}

func (a *API) unsubscribe(ctx context.Context, req unsubscribeRequest) (any, error) {
	if req.User == "" {
		return nil, badRequest("no user")
	}
	return empty{}, a.hub.Unsubscribe(ctx, req.User, req.Channel, req.which())
}

type channelRequest struct {
	Channel string `json:"channel"`
}

func (r channelRequest) check() error {
	if r.Channel == "" {
		return badRequest("no channel")
	}
	return nil
}

func (a *API) historyRemove(ctx context.Context, req channelRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	return empty{}, a.hub.HistoryRemove(ctx, req.Channel)
}

type node struct {
	UID         string `json:"uid"`
	Name        string `json:"name"`
	Version     string `json:"version"`
	NumClients  int    `json:"num_clients"`
	NumUsers    int    `json:"num_users"`
	NumSubs     int    `json:"num_subs"`
	NumChannels int    `json:"num_channels"`
	Uptime      int64  `json:"uptime"` // seconds

	Process process `json:"process"`
}

type process struct {
	CPU float64 `json:"cpu"` // percent of one core, over the last seconds
	RSS int64   `json:"rss"` // bytes
}

type infoResult struct {
	Nodes []node `json:"nodes"`
}

func (a *API) info(ctx context.Context, _ empty) (any, error) {
	nodes, err := a.hub.Info(ctx)
	out := infoResult{Nodes: make([]node, 0, len(nodes))}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, node{
			n.UID, n.Name, n.Version, n.Clients, n.Users, n.Subscribers, n.Channels, int64(time.Since(n.Started).Seconds()),
			process{math.Round(n.CPU*1e4) / 100, n.RSS},
		})
	}
	return out, err
}

type channelsRequest struct {
	Pattern string `json:"pattern"` // a glob; "" means all
}

type channelInfo struct {
	NumClients int `json:"num_clients"`
}

type channelsResult struct {
	Channels  map[string]channelInfo `json:"channels"`
	Truncated bool                   `json:"truncated,omitempty"` // ours: there are more
}

func (a *API) channels(ctx context.Context, req channelsRequest) (any, error) {
	found, err := a.hub.Channels(ctx, req.Pattern)
	out := channelsResult{make(map[string]channelInfo, len(found.Subscribers)), found.Truncated}
	for name, n := range found.Subscribers {
		out.Channels[name] = channelInfo{n}
	}
	return out, err
}

// rpc is for extensions of the server, of which there are none.
func (a *API) rpc(context.Context, empty) (any, error) { return nil, gateway.ErrMethodNotFound }

type clientInfo struct {
	Client   string          `json:"client"`
	User     string          `json:"user"`
	ConnInfo json.RawMessage `json:"conn_info,omitempty"`
	ChanInfo json.RawMessage `json:"chan_info,omitempty"`
}

func clientInfoOf(i *protocol.ClientInfo) *clientInfo {
	if i == nil {
		return nil
	}
	return &clientInfo{i.Client, i.User, json.RawMessage(i.ConnInfo), json.RawMessage(i.ChanInfo)}
}

type presenceResult struct {
	Presence map[string]*clientInfo `json:"presence"`
}

func (a *API) presence(ctx context.Context, req channelRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	present, err := a.hub.Presence(ctx, req.Channel)
	out := presenceResult{make(map[string]*clientInfo, len(present))}
	for id, info := range present {
		out.Presence[id] = clientInfoOf(info)
	}
	return out, err
}

type presenceStatsResult struct {
	NumClients int `json:"num_clients"`
	NumUsers   int `json:"num_users"`
}

func (a *API) presenceStats(ctx context.Context, req channelRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	clients, users, err := a.hub.PresenceStats(ctx, req.Channel)
	return presenceStatsResult{clients, users}, err
}

type historyRequest struct {
	channelRequest
	Limit   int       `json:"limit"`
	Since   *position `json:"since"`
	Reverse bool      `json:"reverse"`
}

type historyPublication struct {
	Data    json.RawMessage   `json:"data,omitempty"`
	B64Data []byte            `json:"b64data,omitempty"` // instead of data, where a client published what is not JSON
	Info    *clientInfo       `json:"info,omitempty"`
	Offset  uint64            `json:"offset,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"`
}

func historyPublicationOf(p *protocol.Publication) historyPublication {
	out := historyPublication{Info: clientInfoOf(p.Info), Offset: p.Offset, Tags: p.Tags}
	if json.Valid(p.Data) {
		out.Data = json.RawMessage(p.Data)
	} else {
		out.B64Data = p.Data
	}
	return out
}

type historyResult struct {
	Publications []historyPublication `json:"publications"`
	Epoch        string               `json:"epoch"`
	Offset       uint64               `json:"offset"`
}

func (a *API) history(ctx context.Context, req historyRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	q := engine.HistoryQuery{Limit: max(req.Limit, -1), Reverse: req.Reverse}
	if req.Since != nil {
		since := engine.Position(*req.Since)
		q.Since = &since
	}
	pubs, top, err := a.hub.History(ctx, req.Channel, q)
	out := historyResult{make([]historyPublication, 0, len(pubs)), top.Epoch, top.Offset}
	for _, p := range pubs {
		out.Publications = append(out.Publications, historyPublicationOf(p))
	}
	return out, err
}
