package testdeps

import "testing"

func TestClamdEndsWithItsTest(t *testing.T) {
	var s *ClamdServer
	t.Run("test", func(t *testing.T) {
		s = Clamd(t, 1<<20)
		s.Kill()
		s.Restart() // over the socket that the killed run left behind
	})
	if s.ready(0) == nil {
		t.Error("clamd outlived its test")
	}
}
