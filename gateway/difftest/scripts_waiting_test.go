package difftest

import "github.com/centrifugal/centrifuge"

// A waitingGroup is switched on by emptying waits and by giving labSettings a
// namespace of the group's name that allows clients to subscribe, keeps ten
// publications, forces recovery and has the option named here.
type waitingGroup struct {
	name, waits, option string
	scripts             []script
}

// referenceOptions are what the option of a waiting group means.
var referenceOptions = map[string]func(*centrifuge.SubscribeOptions){
	"delta": func(o *centrifuge.SubscribeOptions) {
		o.AllowedDeltaTypes = []centrifuge.DeltaType{centrifuge.DeltaTypeFossil}
	},
	"filter": func(o *centrifuge.SubscribeOptions) { o.AllowTagsFilter = true },
	"cache":  func(o *centrifuge.SubscribeOptions) { o.RecoveryMode = centrifuge.RecoveryModeCache },
}

var waitingGroups = []waitingGroup{
	{name: "delta", waits: "deltas", option: "allowed_delta_types, delta_publish", scripts: []script{
		{name: "delta live and recovered", lines: `
a: alice
b: bob
a> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil"}}
b> {"id":2,"subscribe":{"channel":"delta:x"}}
publish delta:x {"text":"one and the same long text over and over","i":1}
publish delta:x {"text":"one and the same long text over and over","i":2}
publish delta:x {"text":"one and the same long text over and over","i":3}
c: carol
c> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil","recover":true,"offset":1,"epoch":"<epoch:delta:x>"}}
publish delta:x {"text":"one and the same long text over and over","i":4}`},
	}},
	{name: "filter", waits: "filters by tags", option: "allow_tags_filter", scripts: []script{
		{name: "filter live and recovered", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"filter:x","tf":{"key":"p","cmp":"eq","val":"odd"}}}
publish tag=p=odd filter:x 1
publish tag=p=even filter:x 2
publish filter:x 3
publish tag=p=odd filter:x 4
b: bob
b> {"id":2,"subscribe":{"channel":"filter:x","tf":{"op":"not","nodes":[{"key":"p","cmp":"eq","val":"odd"}]},"recover":true,"offset":1,"epoch":"<epoch:filter:x>"}}
c: carol
c> {"id":2,"subscribe":{"channel":"filter:x","tf":{"key":"p","cmp":"no"}}}`},
	}},
	{name: "cache", waits: "cache recovery mode", option: "force_recovery_mode: cache", scripts: []script{
		{name: "cache", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"cache:x","recover":true}}
publish cache:x 1
publish cache:x 2
b: bob
b> {"id":2,"subscribe":{"channel":"cache:x","recover":true,"offset":1,"epoch":"<epoch:cache:x>"}}
c: carol
c> {"id":2,"subscribe":{"channel":"cache:x","recover":true,"offset":2,"epoch":"<epoch:cache:x>"}}
d: dora
d> {"id":2,"subscribe":{"channel":"cache:x","recover":true,"epoch":"other"}}
publish cache:x 3
forget cache:x
e: emma
e> {"id":2,"subscribe":{"channel":"cache:x","recover":true,"offset":1,"epoch":"<epoch:cache:x>"}}`},
	}},
}
