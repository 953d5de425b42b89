package main

import (
	"os"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
	"github.com/minigate/minigate/internal/wxsim"
)

// TestConsole opens the console in Chromium while sockets come and go, WeChat
// refuses the first login, and a user is blocked. Set SCREENSHOT to a path
// that ends in .png to look at it.
func TestConsole(t *testing.T) {
	sim, wechatURL := simulator(t)
	sim.Script("/sns/jscode2session", wxsim.Trouble{Code: 40164, Msg: "invalid ip 192.0.2.7 ipv6 ::ffff:192.0.2.7, not in whitelist"})
	p := startServe(t, baseConfig(t, wechatURL))
	t.Log(runNode(t, "console.mjs", append(clientEnv(t, p, wechatURL, p.Public),
		"CHROMIUM="+testdeps.Chromium(t), "SCREENSHOT="+os.Getenv("SCREENSHOT"))...))
}

// clientEnv is what the scripts of web/e2e want to know.
func clientEnv(t *testing.T, p *program, wechatURL, base string) []string {
	return []string{
		"BASE_URL=" + base, "OPS_URL=" + p.Ops, "API_KEY=" + testAPIKey,
		"CODE_URL=" + wechatURL, "APPID=" + testAppID,
	}
}

// clientNode is a node as dev configures it, for clients that want its rooms.
func clientNode(t *testing.T) (p *program, wechatURL string) {
	_, wechatURL = simulator(t)
	return startServe(t, baseConfig(t, wechatURL)+devChannels+
		"files: {user_channel: true, notify: {channel: true}}\n"+
		"proxy:\n  routes:\n    - {prefix: /api/, upstream: "+backend(t).URL+"}\ntrusted_proxies: [127.0.0.1]\n"), wechatURL
}

// TestWxInNode makes the four wx calls with uni-h5 in Node and jsdom.
func TestWxInNode(t *testing.T) {
	p, wechatURL := clientNode(t)
	t.Log(runNode(t, "uni-h5-node.mjs", clientEnv(t, p, wechatURL, p.Public)...))
}

// TestWxInChromium makes them in a browser, through nginx with TLS.
func TestWxInChromium(t *testing.T) {
	p, wechatURL := clientNode(t)
	front := testdeps.StartFront(t, strings.TrimPrefix(p.Public, "http://"))
	t.Log(runNode(t, "uni-h5-chromium.mjs", append(clientEnv(t, p, wechatURL, front.URL), "CHROMIUM="+testdeps.Chromium(t))...))
}

// TestCentrifugeSDK drives the stock centrifuge client.
func TestCentrifugeSDK(t *testing.T) {
	p, wechatURL := clientNode(t)
	t.Log(runNode(t, "centrifuge-sdk.mjs", clientEnv(t, p, wechatURL, p.Public)...))
}

// TestSDK drives our own SDK on uni-h5's wx.
func TestSDK(t *testing.T) {
	p, wechatURL := clientNode(t)
	t.Log(runNode(t, "sdk.mjs", clientEnv(t, p, wechatURL, p.Public)...))
}

// TestPlainSocket drives the code of docs/protocol.md, which has no SDK, on
// uni-h5's wx.
func TestPlainSocket(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+"  ping_interval: 1s\n  pong_timeout: 900ms\n")
	t.Log(runNode(t, "plain-socket.mjs", clientEnv(t, p, wechatURL, p.Public)...))
}

// TestTusClient drives the stock tus-js-client, over lines that break.
func TestTusClient(t *testing.T) {
	p, wechatURL := clientNode(t)
	t.Log(runNode(t, "tus-client.mjs", clientEnv(t, p, wechatURL, p.Public)...))
}

// TestFileUploader drives the stock miniprogram-file-uploader.
func TestFileUploader(t *testing.T) {
	p, wechatURL := clientNode(t)
	t.Log(runNode(t, "file-uploader.mjs", clientEnv(t, p, wechatURL, p.Public)...))
}
