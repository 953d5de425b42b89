package gateway

import (
	"fmt"
	"testing"

	"github.com/centrifugal/protocol"

	"github.com/minigate/minigate/gateway/engine"
)

// A stream goes on under another epoch after its Redis was replaced. Positions
// in what survived are recovered, whoever reads them, those beyond are not.
func TestEpochTakenOver(t *testing.T) {
	h := startHub(t, nil)
	alice, _ := h.login("alice")
	alice.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	alice.want(`{"id":2,*`)
	for i := range 3 {
		h.publish("feed:a", fmt.Sprint(i+1))
		alice.want(fmt.Sprintf(`*"offset":%d*`, i+1))
	}
	_, last, err := h.engine.Memory.History(t.Context(), "feed:a", engine.HistoryQuery{})
	if err != nil {
		t.Fatal(err)
	}
	other := func(p engine.Position) engine.Position { return engine.Position{Offset: p.Offset, Epoch: "new"} }
	h.engine.top.Store(&other)
	h.engine.before.Store(&engine.Position{Offset: 2, Epoch: last.Epoch})
	h.Lost([]string{"feed:a"})
	alice.want(`*"unsubscribe":{"code":2500,*`) // 3 is another publication now

	for offset, missed := range map[int]string{
		1: `*"epoch":"new","publications":[{"data":2,*{"data":3,*"recovered":true,"offset":1,*`,
		2: `*"epoch":"new","publications":[{"data":3,*"recovered":true,"offset":2,*`,
		3: `*"epoch":"new","offset":3,"positioned":true,"was_recovering":true}}`,
	} {
		w, _ := h.login("bob")
		w.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"feed:a","recover":true,"offset":%d,"epoch":"%s"}}`, offset, last.Epoch))
		w.want(missed)
	}
}

// A client that the server subscribed is not sent away when another epoch takes
// over from where it stands: it is told the epoch, and goes on. Where it has
// seen what the new epoch does not know, it has to start over.
func TestEpochTakenOverServerSide(t *testing.T) {
	for survived, want := range map[uint64]func(*wire){
		2: func(w *wire) {
			w.want(`{"push":{"channel":"#alice","subscribe":{"recoverable":true,"epoch":"new","offset":2,"positioned":true}}}`,
				`*"pub":{"data":0,"offset":3}*`)
		},
		1: func(w *wire) { w.wantEnd(DisconnectInsufficientState) },
	} {
		h := startHub(t, nil)
		alice, _ := h.login("alice")
		var epoch string
		for i := range 2 {
			epoch = h.publish("#alice", fmt.Sprint(i+1)).Position.Epoch
			alice.want(fmt.Sprintf(`*"offset":%d*`, i+1))
		}
		other := func(p engine.Position) engine.Position { return engine.Position{Offset: p.Offset, Epoch: "new"} }
		h.engine.top.Store(&other)
		h.engine.before.Store(&engine.Position{Offset: survived, Epoch: epoch})
		h.deliver("#alice", 3, "new")
		want(alice)
	}
}

// A stream that starts over empty, as after a flush of Redis, goes on from
// nothing: neither its first publications nor what was kept of the old one are
// mixed up.
func TestStreamStartsOverEmpty(t *testing.T) {
	h := startHub(t, nil)
	w, _ := h.login("alice")
	w.send(`{"id":2,"subscribe":{"channel":"feed:a"}}`)
	w.want(`{"id":2,"subscribe":*`)
	for i := range 3 {
		h.publish("feed:a", itoa(i))
		w.want(`{"push":{"channel":"feed:a","pub":*`)
	}
	flushed := func(engine.Position) engine.Position { return engine.Position{Epoch: "another"} }
	h.engine.top.Store(&flushed)
	h.Lost([]string{"feed:a"})
	w.want(`{"push":{"channel":"feed:a","unsubscribe":{"code":2500,*`)
	w.send(`{"id":3,"subscribe":{"channel":"feed:a"}}`)
	w.want(`{"id":3,"subscribe":{"recoverable":true,"epoch":"another","positioned":true}}`)
	h.Publication("feed:a", &protocol.Publication{Data: protocol.Raw(`"first"`), Offset: 1}, "another")
	w.want(`{"push":{"channel":"feed:a","pub":{"data":"first","offset":1,"epoch":"another"}}}`)
	h.settle()
}
