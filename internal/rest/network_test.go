package rest

import "testing"

func TestNetwork(t *testing.T) {
	for a, b := range map[string]string{
		"::ffff:203.0.113.7": "203.0.113.7", "2001:db8::1": "2001:db8::ffff:1", "unknown": "", "fe80::1%eth0": "fe80::2",
	} {
		if Network(a) != Network(b) {
			t.Errorf("%s and %s are two", a, b)
		}
	}
	for a, b := range map[string]string{"203.0.113.7": "203.0.113.8", "2001:db8::1": "2001:db8:0:1::1", "": "0.0.0.0"} {
		if Network(a) == Network(b) {
			t.Errorf("%s and %s are one", a, b)
		}
	}
}
