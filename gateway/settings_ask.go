package gateway

import (
	"fmt"
	"strings"

	"github.com/minigate/minigate/gateway/ask"
)

// Hooks lists the webhooks that are in use, each once.
func (s *Settings) Hooks() []ask.Hook {
	var hooks []ask.Hook
	s.eachHook(func(h ask.Hook, _ string) {
		for _, known := range hooks {
			if known.Kind == h.Kind && known.Name == h.Name {
				return
			}
		}
		hooks = append(hooks, h)
	})
	return hooks
}

// eachHook calls f for whatever wants a webhook, with the setting that does. A
// webhook of no known name comes without an endpoint.
func (s *Settings) eachHook(f func(h ask.Hook, by string)) {
	p := &s.Client.Proxy
	if p.Connect.Enabled || p.Connect.ForLogins {
		f(ask.Hook{Kind: ask.Connect, Name: ask.Default, At: "client.proxy.connect", ForLogins: p.Connect.ForLogins, Proxy: p.Connect.Proxy}, "")
	}
	if p.Refresh.Enabled {
		f(ask.Hook{Kind: ask.Refresh, Name: ask.Default, At: "client.proxy.refresh", Proxy: p.Refresh.Proxy}, "")
	}
	s.eachRules(func(at string, a *Access) {
		c := &s.Channel.Proxy
		s.choose(f, a.SubscribeProxyEnabled, ask.Subscribe, a.SubscribeProxyName, "channel.proxy.subscribe", c.Subscribe, at+"subscribe_proxy_name")
		s.choose(f, a.PublishProxyEnabled, ask.Publish, a.PublishProxyName, "channel.proxy.publish", c.Publish, at+"publish_proxy_name")
		s.choose(f, a.SubRefreshProxyEnabled, ask.SubRefresh, a.SubRefreshProxyName, "channel.proxy.sub_refresh", c.SubRefresh, at+"sub_refresh_proxy_name")
	})
	r := &s.RPC
	s.choose(f, r.WithoutNamespace.ProxyEnabled, ask.RPC, r.WithoutNamespace.ProxyName, "rpc.proxy", r.Proxy, "rpc.without_namespace.proxy_name")
	for i, n := range r.Namespaces {
		s.choose(f, n.ProxyEnabled, ask.RPC, n.ProxyName, "rpc.proxy", r.Proxy, fmt.Sprintf("rpc.namespaces[%d].proxy_name", i))
	}
}

// eachRules calls f for the rules of all channels, with where they are.
func (s *Settings) eachRules(f func(at string, a *Access)) {
	f("channel.without_namespace.", &s.Channel.WithoutNamespace.Access)
	for i := range s.Channel.Namespaces {
		f(fmt.Sprintf("channel.namespaces[%d].", i), &s.Channel.Namespaces[i].Access)
	}
}

func (s *Settings) choose(f func(h ask.Hook, by string), on bool, kind ask.Kind, name, at string, p ask.Proxy, by string) {
	switch {
	case !on:
		return
	case name == "" || name == ask.Default:
		f(ask.Hook{Kind: kind, Name: ask.Default, At: at, Proxy: p}, by)
		return
	}
	for i, n := range s.Proxies {
		if n.Name == name {
			f(ask.Hook{Kind: kind, Name: name, At: fmt.Sprintf("proxies[%d]", i), Proxy: n.Proxy}, by)
			return
		}
	}
	f(ask.Hook{Kind: kind, Name: name}, by)
}

// checkProxies wants an endpoint for every webhook in use.
func (s *Settings) checkProxies(report func(path, problem string)) {
	seen := map[string]bool{}
	for i, n := range s.Proxies {
		at := fmt.Sprintf("proxies[%d].name", i)
		switch {
		case !ask.GoodName(n.Name):
			report(at, "must have two or more letters, digits, dashes, underscores or dots")
		case n.Name == ask.Default:
			report(at, "must not be default, which names the proxy of the block")
		case seen[n.Name]:
			report(at, fmt.Sprintf("%q is there twice", n.Name))
		}
		seen[n.Name] = true
	}
	s.eachHook(func(h ask.Hook, by string) {
		if h.Kind == ask.Connect && h.Proxy.Timeout >= s.Client.StaleCloseDelay {
			report(h.At+".timeout", "must be shorter than client.stale_close_delay, which ends a connection that waits for it")
		}
		switch {
		case h.At == "":
			report(by, fmt.Sprintf("%q is none of proxies", h.Name))
		case h.Proxy.Endpoint == "" && by != "":
			report(h.At+".endpoint", "is required: "+strings.TrimSuffix(by, "name")+"enabled is on")
		case h.Proxy.Endpoint == "":
			report(h.At+".endpoint", "is required where it is enabled")
		}
	})
}
