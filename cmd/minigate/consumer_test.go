package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/minigate/minigate/internal/redisclient"
	"github.com/minigate/minigate/internal/testdeps"
)

// TestConsumerSurvivesItsNode publishes through a stream, kills the node that
// consumes it and stops the next one: a channel gets everything once, in order.
func TestConsumerSurvivesItsNode(t *testing.T) {
	_, wechatURL := simulator(t)
	addr := testdeps.Redis(t)
	config := func() string {
		return baseConfig(t, wechatURL) + `  history_max_publication_limit: 2000
keys:
  sealing: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  signing: [MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDM=]
  tickets: [{id: t1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=}]
redis: {addresses: ['` + addr + `']}
channel: {namespaces: [{name: room, history_size: 2000, history_ttl: 300s}]}
consumers:
  - name: backend
    redis_stream: {streams: [orders], visibility_timeout: 2s}
`
	}
	client := redisclient.Open(redisclient.Settings{Addresses: []string{addr}})
	defer func() { _ = client.Close() }()
	last := 0
	add := func(n int) {
		t.Helper()
		_, err := client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range n {
				last++
				p.XAdd(t.Context(), &redis.XAddArgs{Stream: "orders", Values: []string{
					"method", "publish", "payload", fmt.Sprintf(`{"channel":"room:1","data":%d}`, last),
				}})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add(300) // before anybody is there
	nodes := []*program{startServe(t, config()), startServe(t, config()), startServe(t, config())}
	holder := func() (at int) {
		eventually(t, "a node consumes the stream", func() bool {
			for at = range nodes {
				_, metrics := callRaw(t, "GET", nodes[at].Ops+"/metrics", nil, nil)
				if strings.Contains(string(metrics), `minigate_consumer_held{consumer="backend",stream="orders"} 1`) {
					return true
				}
			}
			return false
		})
		return at
	}
	arrived := func(n int) func() bool {
		return func() bool {
			var answer struct{ Result struct{ Offset int } }
			call(t, "POST", nodes[0].Ops+"/api/history", map[string]string{"X-API-Key": testAPIKey}, `{"channel":"room:1"}`, &answer)
			return answer.Result.Offset >= n
		}
	}
	drop := func(at int) { nodes = append(nodes[:at:at], nodes[at+1:]...) }

	at := holder()
	eventually(t, "the first arrive", arrived(1))
	add(500)
	nodes[at].kill()
	drop(at)
	at = holder()
	add(200)
	nodes[at].stop(t)
	drop(at)
	add(1)
	client.XAdd(t.Context(), &redis.XAddArgs{Stream: "orders", Values: []string{"method", "publish", "payload", `{"channel":"nosuch:1","data":1}`}})
	eventually(t, "all arrive", arrived(last))

	var answer struct {
		Result struct {
			Publications []struct{ Data json.Number }
		}
	}
	call(t, "POST", nodes[0].Ops+"/api/history", map[string]string{"X-API-Key": testAPIKey}, `{"channel":"room:1","limit":-1}`, &answer)
	for i, p := range answer.Result.Publications {
		if p.Data.String() != fmt.Sprint(i+1) {
			t.Fatalf("publication %d is %s", i+1, p.Data)
		}
	}
	if n := len(answer.Result.Publications); n != last {
		t.Errorf("%d publications of %d", n, last)
	}
	eventually(t, "the refused one is set aside", func() bool {
		dead := client.XRange(t.Context(), "orders.dead", "-", "+").Val()
		return len(dead) == 1 && strings.HasPrefix(dead[0].Values["reason"].(string), "unknown_channel")
	})
}
