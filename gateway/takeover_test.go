package gateway

import (
	"fmt"
	"testing"

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
