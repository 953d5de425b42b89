package difftest

import (
	"slices"
	"strings"
	"testing"
)

// differences are all ways in which ours answers otherwise than theirs, and
// why. Those of everywhere are handled by normal; a script that meets another
// names it.
var differences = map[string]string{
	"disconnect push": "Ours says in a push why a connection ends before it closes it: " +
		"many mini-program runtimes report every close as 1000 or 1006. Theirs sends the close frame alone.",
	"order of replies and pushes": "Fan-out of ours runs beside the command that caused it: " +
		"a publisher's own publication may come after its reply. Within a channel the order is the same.",
	"leniency on pongs": "Theirs ends a connection for a pong that no ping asked for. Ours ignores it: " +
		"a client that was suspended answers what it finds, perhaps twice.",
	"the reason of 1009": "RFC 6455 leaves the words of a close frame for too large a message open.",
	"a dead connection": "After an error reply to connect theirs reads no more, and cuts the connection " +
		"five seconds later without a word. Ours closes it as stale.",
	"a token for good": "A refresh with a token that never expires ends the expiry of a connection. " +
		"Theirs answers the same and closes it all the same when the first token's time is up.",
	"what comes after the end": "Pushes of a subscription that ends in the same frame may or may not be sent, by ours: " +
		"nobody waits for them. Theirs sends them.",
	"backwards from the future": "History in reverse since an offset beyond the top begins at the top. So it does " +
		"in theirs on Redis; its memory broker returns nothing.",
	"the epoch of the first delta": "Publication 1 tells the epoch, for those who subscribed to nothing. Theirs does so " +
		"except where it is sent to those who take deltas.",
	"deltas beside the history": "A publication that history skips is sent as a delta of what the subscriber was sent " +
		"before it, like any other. Theirs sends it whole.",
	"an epoch of nothing": "The epoch of a channel that nobody published to is forgotten soon where clients may make up the name: after " +
		"history_ttl, or a minute if nobody subscribed who could recover. Names must not fill the memory. Theirs keeps it for history_meta_ttl.",
	"closed channels stay closed": "In a private or user-limited channel allow_*_for_client opens nothing to those " +
		"who could not subscribe; opening a namespace must not open the personal channels in it.",
}

var everywhere = []string{"disconnect push", "order of replies and pushes", "what comes after the end", "the reason of 1009"}

func allScripts() (list []script) {
	list = slices.Concat(connectScripts, subscribeScripts, askedScripts, historyRightsScripts, deltaScripts, filterScripts, cacheScripts, numberScripts)
	for _, group := range []struct {
		name     string
		scripts  []script
		channels []string
	}{
		{"recover", recoverScripts, []string{"rec:x", "small:x"}},
		{"history", historyScripts, []string{"rec:x", "small:x"}},
	} {
		for _, s := range group.scripts {
			for _, channel := range group.channels {
				list = append(list, script{
					name:    group.name + " " + s.name + " in " + channel,
					lines:   strings.ReplaceAll(s.lines, "CH", channel),
					differs: s.differs,
				})
			}
		}
	}
	return list
}

// TestScripts runs every script against both servers.
func TestScripts(t *testing.T) {
	list := allScripts()
	answers := make([]string, len(list))
	bubble(t, func(t *testing.T) {
		for i, s := range list {
			answers[i] = diff(play(t, ours, s.steps()), play(t, theirs, s.steps()))
		}
	})
	met := map[string]bool{}
	for _, name := range everywhere {
		met[name] = true
	}
	for i, s := range list {
		t.Run(s.name, func(t *testing.T) {
			met[s.differs] = true
			switch d := answers[i]; {
			case d != "" && s.differs == "":
				t.Error(d)
			case d == "" && s.differs != "":
				t.Errorf("does not differ any more, though %q says so", s.differs)
			case d != "" && differences[s.differs] == "":
				t.Errorf("nothing says why it differs: %q", s.differs)
			}
		})
	}
	for name := range differences {
		if !met[name] {
			t.Errorf("no script meets %q", name)
		}
	}
	t.Logf("%d scripts", len(list))
}
