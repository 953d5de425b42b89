package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

// RPC is a call of a client to the business backend.
type RPC struct {
	Session *auth.Session // whose call it is: Fingerprint, User, Device and Claims; nil for nobody
	Client  string        // id of the connection
	IP      string
	Method  string
	Data    json.RawMessage // empty: none was sent
}

// RPCFunc answers calls of clients. The answer is JSON, or nothing. An error
// that is a *ReplyError is what the client is told; of others it learns the
// code that CodeOf gives.
type RPCFunc func(ctx context.Context, call RPC) (json.RawMessage, error)

// ReplyError is an error in the backend's own words.
type ReplyError struct {
	Code      uint32 // 100 to 1999
	Message   string
	Temporary bool // the same call may succeed later
}

// Error implements error.
func (e *ReplyError) Error() string { return "error of the backend: " + e.Message }

// calls are the rpc commands of one connection that run beside its others.
type calls struct {
	running sync.WaitGroup
	places  chan struct{}
	ctx     context.Context //nolint:containedctx // ends with the connection
	cancel  context.CancelFunc
}

// callRPC answers an rpc command, by and by where client.concurrency allows it.
func (c *client) callRPC(id uint32, req *protocol.RPCRequest) error {
	via, err := c.rpcHandler(req.Method)
	if err != nil {
		return err
	}
	if len(req.Data) > 0 && !via.binary && !validData(json.RawMessage(req.Data)) { // Protobuf carries anything
		return ErrBadRequest
	}
	call := RPC{
		Client: c.id.String(), IP: c.ip, Method: strings.Clone(req.Method),
		Data: bytes.Clone(req.Data), // of the read buffer, which is used again
	}
	c.mu.Lock()
	if c.login.openID != "" {
		call.Session = c.login.session()
	}
	c.mu.Unlock()
	if c.hub.settings.Client.Concurrency < 2 {
		return c.runRPC(c.life(), id, call, via)
	}
	return c.startRPC(id, call, via)
}

// startRPC runs a call on a goroutine of its own, which gone waits for. While
// all places are taken the client's next command waits.
func (c *client) startRPC(id uint32, call RPC, via rpcHandler) error {
	if c.calls == nil { // only the goroutine that reads gets here
		ctx, cancel := context.WithCancel(c.life())
		c.calls = &calls{places: make(chan struct{}, c.hub.settings.Client.Concurrency), ctx: ctx, cancel: cancel}
	}
	k := c.calls
	select {
	case k.places <- struct{}{}:
	case <-k.ctx.Done():
		return fault.ErrCanceled
	}
	k.running.Go(func() {
		defer func() { <-k.places }()
		c.answer(id, c.runRPC(k.ctx, id, call, via))
	})
	return nil
}

// runRPC makes a call and sends the answer, or returns the error to answer with.
func (c *client) runRPC(ctx context.Context, id uint32, call RPC, via rpcHandler) error {
	data, err := via.run(ctx, call)
	if err != nil {
		return err
	}
	if len(data) > 0 && !(c.binary && via.binary) {
		if !validData(data) {
			return fault.New(fault.Upstream, "backend_broken", "The backend's answer is not JSON.")
		}
		var line bytes.Buffer // a line break would end the message
		_ = json.Compact(&line, data)
		data = line.Bytes()
	}
	c.reply(c.encodeReply(&protocol.Reply{Id: id, Rpc: &protocol.RPCResult{Data: protocol.Raw(data)}}))
	return nil
}

// endRPCs breaks off what the backend has not answered yet.
func (c *client) endRPCs() {
	if c.calls != nil {
		c.calls.cancel()
		c.calls.running.Wait()
	}
}
