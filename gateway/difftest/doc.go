// Package difftest compares the live side with software of the protocol's own
// authors: the same scripts run against their server library and against a
// Hub, and their Go SDKs, for clients and for backends, talk to a Hub and the
// server API. It holds tests only, in a module of its own, so that minigate does
// not depend on what they need.
package difftest
