// Package ask turns what the hub wants to know into webhooks of the business
// backend: who connects, who may subscribe, what is published, what an rpc
// command is answered, and whether a connection or a subscription goes on.
//
// Requests, answers and their meaning are Centrifugo's, where these webhooks
// are called proxies; see https://centrifugal.dev/docs/server/proxy. Each is
// one signed call of package internal/webhook: no redirects, a time limit, a
// bounded answer, a bounded number at a time, a breaker. Only HTTP 200 is
// success.
//
// What the backend says is believed within limits (see answer.go); anything
// beyond them is an answer that makes no sense, and none of it is used.
package ask
