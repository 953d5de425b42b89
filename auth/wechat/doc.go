// Package wechat speaks WeChat's server side: it calls the APIs of
// api.weixin.qq.com for one mini-program, opens the data that phones bring
// along encrypted, and opens the messages that WeChat pushes.
//
// # Calls
//
// A [Client] has one method per API. Each has a deadline, knows its quota and
// answers failures as a [fault.Error] whose cause, for the log only, is an
// [Error] with WeChat's errcode and request id. Which errcode means what is one
// table in error.go.
//
// Most APIs want an access token. It comes from cgi-bin/stable_token and is
// shared between nodes through [Shared]: in its last five minutes one node
// renews it under a lease, and the others go on with the old one. A token that
// WeChat refuses is dropped and the call made once more. A forced refresh,
// which would end the token of everybody else who uses the mini-program, is
// never asked for.
//
// # What must not get out
//
// The AppSecret and the access token travel in URLs. Requests go through a
// RoundTripper, not an http.Client, whose errors quote URLs, and every error of
// the network is searched for both before it leaves.
//
// Sources: developers.weixin.qq.com, "miniprogram/dev/server/API" for the calls,
// "framework/open-ability/signature" for open data and
// "framework/server-ability/message-push" for pushes.
package wechat
