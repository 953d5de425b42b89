package gateway

import "testing"

// A client that was let in just before the hub cut its connections, and is
// ready only after that, is cut as well: a goodbye could take as long as a
// write may.
func TestLateClientIsCut(t *testing.T) {
	h := startHub(t, nil)
	if h.clients.admit(0) != nil {
		t.Fatal("the hub lets nobody in")
	}
	h.clients.cut()
	sock := &recorder{done: make(chan struct{})}
	c := newClient(h.Hub, sock)
	h.enroll(c)
	select {
	case <-sock.done:
	default:
		t.Error("the connection goes on")
	}
	c.gone(cause{})
	h.clients.leave()
}
