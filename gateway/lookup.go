package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/fault"
)

// What nodes ask each other to look up; unlike with other questions the
// answers are JSON objects that say whose they are.
const (
	opChannels    = "channels"
	opConnections = "connections"
)

// Limits of answers, each for all nodes together and for each of them.
const (
	MaxChannels    = 10_000
	MaxConnections = 200
	fewChannels    = 20   // of each connection in a list
	allChannels    = 1000 // of each connection otherwise
)

// ErrSilent says that what was asked for may be on a node that did not answer.
var ErrSilent = fault.New(fault.Unavailable, "nodes_silent", "Not all nodes have answered in time.")

var (
	errPage = fault.Newf(fault.Invalid, ErrBadRequest.Code, "limit is between 1 and %d; cursor is what the page before ended with.", MaxConnections)
	errIP   = fault.New(fault.Invalid, ErrBadRequest.Code, "ip is an address or a range, such as 192.0.2.0/24.")
)

// ChannelsInfo is a list of channels and how many connections each has.
type ChannelsInfo struct {
	Subscribers map[string]int
	Truncated   bool // there are more: those whose names sort first are here
}

type channelsQuestion struct {
	Pattern string `json:"pattern,omitempty"`
}

type channelsAnswer struct {
	Node      string         `json:"node"`
	Channels  map[string]int `json:"channels"`
	Truncated bool           `json:"truncated,omitempty"`
}

// Channels lists what has subscribers on any node, at most MaxChannels names
// that match pattern; see newGlob. Unavailable `nodes_silent` unless all nodes
// have answered.
func (h *Hub) Channels(ctx context.Context, pattern string) (ChannelsInfo, error) {
	if _, err := newGlob(pattern, h.rules.maxLength); err != nil {
		return ChannelsInfo{}, err
	}
	answers, missing, err := survey[channelsAnswer](ctx, h, opChannels, channelsQuestion{pattern})
	switch {
	case err != nil:
		return ChannelsInfo{}, err
	case len(missing) > 0:
		return ChannelsInfo{}, ErrSilent
	}
	all := ChannelsInfo{Subscribers: map[string]int{}}
	for _, a := range answers {
		all.Truncated = all.Truncated || a.Truncated
		for name, n := range a.Channels {
			all.Subscribers[name] += n
		}
	}
	// A name among the first of all is among the first of every node that has
	// it, so its sum is whole.
	if first(all.Subscribers) {
		all.Truncated = true
	}
	return all, nil
}

// first leaves the MaxChannels names that sort first, and tells whether there
// were more.
func first(channels map[string]int) bool {
	if len(channels) <= MaxChannels {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(channels))[MaxChannels:] {
		delete(channels, name)
	}
	return true
}

func (h *Hub) answerChannels(q channelsQuestion) (channelsAnswer, error) {
	a := channelsAnswer{Node: h.node.UID, Channels: map[string]int{}}
	pattern, err := newGlob(q.Pattern, h.rules.maxLength)
	if err != nil {
		return a, err
	}
	h.channels.each(func(ch *channel) {
		if !pattern.match(ch.name) {
			return
		}
		ch.mu.RLock()
		n := len(ch.subs)
		ch.mu.RUnlock()
		if n > 0 {
			a.Channels[ch.name] = n
		}
	})
	a.Truncated = first(a.Channels)
	return a, nil
}

// ConnectionQuery selects connections; a zero field selects nothing out.
type ConnectionQuery struct {
	User     string `json:"user,omitempty"`
	AppID    string `json:"appid,omitempty"`
	UnionID  string `json:"unionid,omitempty"`
	Session  string `json:"session,omitempty"`
	Channel  string `json:"channel,omitempty"` // those subscribed to it
	IP       string `json:"ip,omitempty"`      // an address or a range
	Node     string `json:"node,omitempty"`    // uid or name
	Client   string `json:"client,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	After    string `json:"after,omitempty"` // a client id: only what sorts after it
	Limit    int    `json:"limit"`           // 1 to MaxConnections

	AllChannels bool `json:"all_channels,omitempty"` // name all channels of each, instead of the first few

	prefix netip.Prefix // IP
}

// Connection is a connection on some node.
type Connection struct {
	ConnectionInfo
	NumChannels int    `json:"num_channels"` // all of them, also where not all are named
	Node        string `json:"node"`         // uid
	NodeName    string `json:"node_name"`
}

// ConnectionsPage is part of the connections of all nodes, in the order of
// their ids, which is as good as random.
type ConnectionsPage struct {
	Connections []Connection
	Next        string   // After of the next page; "" after the last
	Missing     []string // nodes that have not answered in time: theirs are not here
}

type connectionsAnswer struct {
	Node        string       `json:"node"`
	Connections []Connection `json:"connections"`
}

func (q *ConnectionQuery) check() error {
	if q.Limit < 1 || q.Limit > MaxConnections || len(q.After) > 64 {
		return errPage
	}
	if q.IP == "" {
		return nil
	}
	addr, err := netip.ParseAddr(q.IP)
	if err == nil {
		q.prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		return nil
	}
	if q.prefix, err = netip.ParsePrefix(q.IP); err != nil {
		return errIP
	}
	return nil
}

// FindConnections lists connections of all nodes, page by page: one that is
// there all the time is on exactly one page.
func (h *Hub) FindConnections(ctx context.Context, q ConnectionQuery) (ConnectionsPage, error) {
	if err := q.check(); err != nil {
		return ConnectionsPage{}, err
	}
	answers, missing, err := survey[connectionsAnswer](ctx, h, opConnections, q)
	page := ConnectionsPage{Missing: missing}
	for _, a := range answers {
		page.Connections = append(page.Connections, a.Connections...)
	}
	slices.SortFunc(page.Connections, func(a, b Connection) int { return strings.Compare(a.Client, b.Client) })
	if len(page.Connections) >= q.Limit {
		page.Connections = page.Connections[:q.Limit]
		page.Next = page.Connections[q.Limit-1].Client
	}
	return page, err
}

// answerConnections are the first of this node that match.
func (h *Hub) answerConnections(q ConnectionQuery) (connectionsAnswer, error) {
	a, named := connectionsAnswer{Node: h.node.UID}, fewChannels
	if q.AllChannels {
		named = allChannels
	}
	if err := q.check(); err != nil || q.Node != "" && q.Node != h.node.UID && q.Node != h.node.Name {
		return a, err
	}
	for _, c := range q.pick(h.candidates(&q)) {
		info, ok := c.describe()
		if !ok { // it has ended
			continue
		}
		found := Connection{info, len(info.Channels), h.node.UID, h.node.Name}
		found.Channels = info.Channels[:min(len(info.Channels), named)]
		a.Connections = append(a.Connections, found)
	}
	return a, nil
}

// pick returns the matching clients that sort first. It takes time for each
// client, and little for most of them: a node has many.
func (q *ConnectionQuery) pick(list []*client) (picked []*client) {
	sorted := func() []*client {
		slices.SortFunc(picked, func(x, y *client) int { return bytes.Compare(x.id[:], y.id[:]) })
		return picked[:min(len(picked), q.Limit)]
	}
	var last *client // nothing above it is among the first
	for _, c := range list {
		if last != nil && bytes.Compare(c.id[:], last.id[:]) > 0 || !q.matches(c) {
			continue
		}
		if picked = append(picked, c); len(picked) >= 4*q.Limit {
			picked = sorted()
			last = picked[q.Limit-1]
		}
	}
	return sorted()
}

// candidates are the connections to look at.
func (h *Hub) candidates(q *ConnectionQuery) []*client {
	switch {
	case q.User != "":
		return h.clients.ofUser(q.User)
	case q.Channel != "":
		return h.subscribers(q.Channel)
	}
	return h.clients.list()
}

func (h *Hub) subscribers(channel string) (list []*client) {
	ch := h.channels.get(channel)
	if ch == nil {
		return nil
	}
	ch.mu.RLock()
	defer ch.mu.RUnlock()
	for _, s := range ch.subs {
		list = append(list, s.client)
	}
	return list
}

func (q *ConnectionQuery) matches(c *client) bool {
	if id := c.id.text(); string(id[:]) <= q.After || q.Client != "" && !c.id.is(q.Client) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.login == nil || c.state == ending { // not yet, or not any more
		return false
	}
	for _, want := range [][2]string{
		{q.User, c.login.openID},
		{q.AppID, c.login.appID.Value()},
		{q.UnionID, c.login.unionID},
		{q.Protocol, c.protocol()},
	} {
		if want[0] != "" && want[0] != want[1] {
			return false
		}
	}
	if q.Session != "" && !isSession(c.login.fingerprint, q.Session) {
		return false
	}
	if q.Channel != "" && c.subs.get(q.Channel) == nil {
		return false
	}
	if q.IP == "" {
		return true
	}
	addr, err := netip.ParseAddr(c.ip)
	return err == nil && q.prefix.Contains(addr.Unmap())
}

// Kick is Disconnect for operators: user may be "" where o.Client names a
// connection, whoever's it is. It tells how many connections were closed.
// Unavailable `nodes_silent` where the connection may be on a node that has not
// answered in time.
func (h *Hub) Kick(ctx context.Context, user string, o DisconnectOptions) (connections int, err error) {
	if user != "" || o.Client == "" {
		return h.disconnectUser(ctx, user, o)
	}
	page, err := h.FindConnections(ctx, ConnectionQuery{Client: o.Client, Limit: 1})
	switch {
	case err != nil:
		return 0, err
	case len(page.Connections) > 0:
		return h.disconnectUser(ctx, page.Connections[0].User, o)
	case len(page.Missing) > 0:
		return 0, ErrSilent
	}
	return 0, nil
}

// NodeName is a node as answers name it.
type NodeName struct {
	UID  string `json:"uid"`
	Name string `json:"name"`
}

// UserInfo is where a user is.
type UserInfo struct {
	User        string       `json:"user"`
	Online      bool         `json:"online"`
	Since       time.Time    `json:"since,omitzero"` // of the oldest connection
	Nodes       []NodeName   `json:"nodes"`
	Devices     []string     `json:"devices"`     // as they called themselves at login
	Channels    []string     `json:"channels"`    // of all connections
	Connections []Connection `json:"connections"` // the oldest first, at most MaxConnections
	Truncated   bool         `json:"truncated,omitempty"`
}

// User tells where a user is: as far as the nodes that hold connections of the
// user have answered within two seconds.
func (h *Hub) User(ctx context.Context, user string) (UserInfo, error) {
	info := UserInfo{User: user, Nodes: []NodeName{}, Devices: []string{}, Channels: []string{}, Connections: []Connection{}}
	if user == "" {
		return info, errNoUser
	}
	q, err := json.Marshal(ConnectionQuery{User: user, Limit: MaxConnections, AllChannels: true})
	if err != nil {
		return info, err
	}
	raw, err := h.engine.SurveyUser(ctx, user, opConnections, q)
	for _, a := range answersOf[connectionsAnswer](raw) {
		info.Connections = append(info.Connections, a.Connections...)
	}
	slices.SortFunc(info.Connections, func(a, b Connection) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Client, b.Client))
	})
	for _, c := range info.Connections {
		info.Nodes = append(info.Nodes, NodeName{c.Node, c.NodeName})
		info.Channels = append(info.Channels, c.Channels...)
		if c.Device != "" {
			info.Devices = append(info.Devices, c.Device)
		}
	}
	if len(info.Connections) > 0 {
		info.Online, info.Since = true, info.Connections[0].Since
	}
	if len(info.Connections) >= MaxConnections {
		info.Connections, info.Truncated = info.Connections[:MaxConnections], true
	}
	slices.SortFunc(info.Nodes, func(a, b NodeName) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.UID, b.UID)) })
	slices.Sort(info.Channels)
	slices.Sort(info.Devices)
	info.Nodes, info.Channels, info.Devices = slices.Compact(info.Nodes), slices.Compact(info.Channels), slices.Compact(info.Devices)
	return info, err
}

// survey asks all nodes, and names those that did not answer.
func survey[A interface{ from() string }](ctx context.Context, h *Hub, op string, question any) (answers []A, missing []string, err error) {
	payload, err := json.Marshal(question)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := h.engine.Nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	raw, err := h.engine.Survey(ctx, op, payload)
	answers = answersOf[A](raw)
	for _, n := range nodes {
		if !slices.ContainsFunc(answers, func(a A) bool { return a.from() == n.UID }) {
			missing = append(missing, n.UID)
		}
	}
	return answers, missing, err
}

func answersOf[A any](raw [][]byte) (answers []A) {
	for _, data := range raw {
		var a A
		if len(data) > 0 && json.Unmarshal(data, &a) == nil { // nil from a node that does not know op
			answers = append(answers, a)
		}
	}
	return answers
}

func (a channelsAnswer) from() string    { return a.Node }
func (a connectionsAnswer) from() string { return a.Node }

// lookUp answers a question of this file; nil where it cannot be understood.
func (h *Hub) lookUp(op string, payload []byte) []byte {
	var answer any
	var err error
	switch op {
	case opChannels:
		answer, err = answerTo(payload, h.answerChannels)
	case opConnections:
		answer, err = answerTo(payload, h.answerConnections)
	}
	var data []byte
	if err == nil {
		data, err = json.Marshal(answer)
	}
	if err != nil {
		slog.Error("question of another node cannot be answered", "op", op, "error", err)
		return nil
	}
	return data
}

func answerTo[Q, A any](payload []byte, f func(Q) (A, error)) (answer A, err error) {
	var q Q
	if err = json.Unmarshal(payload, &q); err == nil {
		answer, err = f(q)
	}
	return answer, err
}
