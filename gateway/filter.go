package gateway

import (
	"errors"
	"slices"
	"strings"

	"github.com/centrifugal/protocol"
	"github.com/quagmt/udecimal"
)

// Limits of a tags filter: it is looked at once for every publication and
// subscriber.
const (
	maxFilterNodes = 100
	maxFilterDepth = 10
	maxFilterVals  = 100 // in one node
	maxFilterBytes = 8 << 10
)

var (
	errFilterSize = errors.New("tags filter is too large")
	errFilter     = errors.New("tags filter is malformed")
)

// filter decides by the tags of a publication whether a subscriber gets it.
type filter struct {
	op       string // "and", "or", "not"; "" compares
	key, cmp string
	val      string
	vals     []string
	number   udecimal.Decimal // val of a comparison of numbers
	numeric  bool             // val is one
	nodes    []filter
}

// newFilter checks and copies a filter that a client sent.
func newFilter(n *protocol.FilterNode) (*filter, error) {
	b := filterBuilder{nodes: maxFilterNodes, bytes: maxFilterBytes}
	f, err := b.build(n, 1)
	if err != nil {
		return nil, err
	}
	return &f, nil
}

// filterBuilder counts what a filter may still hold.
type filterBuilder struct{ nodes, bytes int }

func (b *filterBuilder) build(n *protocol.FilterNode, depth int) (f filter, err error) {
	if n == nil {
		return f, errFilter
	}
	b.nodes--
	b.bytes -= len(n.Key) + len(n.Val)
	for _, v := range n.Vals {
		b.bytes -= len(v)
	}
	if b.nodes < 0 || b.bytes < 0 || depth > maxFilterDepth || len(n.Vals) > maxFilterVals || len(n.Nodes) > maxFilterNodes {
		return f, errFilterSize
	}
	switch n.Op {
	case "":
		return newComparison(n)
	case "and", "or":
		if len(n.Nodes) == 0 {
			return f, errFilter
		}
	case "not":
		if len(n.Nodes) != 1 {
			return f, errFilter
		}
	default:
		return f, errFilter
	}
	f.op = strings.Clone(n.Op)
	f.nodes = make([]filter, len(n.Nodes))
	for i, c := range n.Nodes {
		if f.nodes[i], err = b.build(c, depth+1); err != nil {
			return f, err
		}
	}
	return f, nil
}

// newComparison checks a leaf. Strings of a command are part of the read
// buffer and copied.
func newComparison(n *protocol.FilterNode) (f filter, err error) {
	f = filter{key: strings.Clone(n.Key), cmp: strings.Clone(n.Cmp), val: strings.Clone(n.Val)}
	one, some := n.Val != "", len(n.Vals) > 0
	ok := false
	switch n.Cmp {
	case "eq", "neq", "sw", "ew", "ct":
		ok = one && !some && n.Key != ""
	case "gt", "gte", "lt", "lte":
		ok = one && !some && n.Key != ""
		f.number, err = udecimal.Parse(f.val)
		f.numeric = err == nil
	case "in", "nin":
		ok = some && !one && n.Key != ""
		for _, v := range n.Vals {
			f.vals = append(f.vals, strings.Clone(v))
		}
	case "ex", "nex":
		ok = !some && !one
	}
	if !ok {
		return filter{}, errFilter
	}
	return f, nil
}

// matches tells whether a publication with these tags is wanted.
func (f *filter) matches(tags map[string]string) bool {
	switch f.op {
	case "and":
		for i := range f.nodes {
			if !f.nodes[i].matches(tags) {
				return false
			}
		}
		return true
	case "or":
		for i := range f.nodes {
			if f.nodes[i].matches(tags) {
				return true
			}
		}
		return false
	case "not":
		return !f.nodes[0].matches(tags)
	}
	return f.compare(tags)
}

// compare is matches of a leaf. A tag that is not there is like no value at
// all, but in lists like an empty one.
func (f *filter) compare(tags map[string]string) bool {
	val, ok := tags[f.key]
	switch f.cmp {
	case "eq":
		return ok && val == f.val
	case "neq":
		return !ok || val != f.val
	case "in":
		return slices.Contains(f.vals, val)
	case "nin":
		return !slices.Contains(f.vals, val)
	case "ex":
		return ok
	case "nex":
		return !ok
	case "sw":
		return ok && strings.HasPrefix(val, f.val)
	case "ew":
		return ok && strings.HasSuffix(val, f.val)
	case "ct":
		return ok && strings.Contains(val, f.val)
	}
	return ok && f.numeric && f.compareNumbers(val)
}

func (f *filter) compareNumbers(val string) bool {
	n, err := udecimal.Parse(val)
	if err != nil {
		return false
	}
	c := n.Cmp(f.number)
	switch f.cmp {
	case "gt":
		return c > 0
	case "gte":
		return c >= 0
	case "lt":
		return c < 0
	}
	return c <= 0
}

// choose returns the publications that match.
func (f *filter) choose(pubs []*protocol.Publication) (out []*protocol.Publication) {
	for _, p := range pubs {
		if f.matches(p.Tags) {
			out = append(out, p)
		}
	}
	return out
}
