package main

import "testing"

// TestCentrifugeEncodings drives the stock centrifuge client in JSON and in
// Protobuf.
func TestCentrifugeEncodings(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+devChannels+`    - name: ticks
      history_size: 100
      history_ttl: 300s
      force_recovery: true
      allow_subscribe_for_client: true
      allow_publish_for_client: true
      allow_tags_filter: true
      allowed_delta_types: [fossil]
      delta_publish: true
`)
	t.Log(runNode(t, "encodings-sdk.mjs", clientEnv(t, p, wechatURL, p.Public)...))
}
