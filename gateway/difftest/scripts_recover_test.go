package difftest

// fill puts five publications into a channel with a history of ten, or two.
const fill = `
a: alice
a> {"id":2,"subscribe":{"channel":"CH"}}
publish CH {"i":1}
publish CH {"i":2}
publish CH {"i":3}
publish CH {"i":4}
publish CH {"i":5}
`

var recoverScripts = []script{
	{name: "from the top", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"<epoch:CH>"}}
publish CH {"i":6}`},
	{name: "from somewhere in between", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":4,"epoch":"<epoch:CH>"}}
publish CH {"i":6}`},
	{name: "from the place just before the oldest", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":3,"epoch":"<epoch:CH>"}}
publish CH {"i":6}`},
	{name: "from further back", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":2,"epoch":"<epoch:CH>"}}
publish CH {"i":6}`},
	{name: "from the start", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"epoch":"<epoch:CH>"}}
publish CH {"i":6}`},
	{name: "from the future", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":9,"epoch":"<epoch:CH>"}}
publish CH {"i":6}`},
	{name: "from another epoch", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"other"}}
publish CH {"i":6}`},
	{name: "from another epoch with flag 2", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"other","flag":2}}
b> {"id":3,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"<epoch:CH>","flag":2}}
publish CH {"i":6}`},
	{name: "without an epoch", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":4}}
publish CH {"i":6}`},
	{name: "without an epoch from the top", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5}}`},
	{name: "without any position", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true}}`},
	{name: "without any position, from nothing", lines: `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true}}
publish CH {"i":1}`},
	{name: "from a place in nothing", lines: `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":3}}
publish CH {"i":1}`},
	{name: "from an epoch of nothing", lines: `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"epoch":"other"}}
publish CH {"i":1}`},
	{name: "from nothing, after a long time away", differs: "an epoch of nothing", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"CH"}}
a close
sleep 2h
publish CH {"i":1}
sleep 1s
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"epoch":"<epoch:CH>"}}`},
	{name: "from an epoch that was only looked up", differs: "an epoch of nothing", lines: `
a: alice
a> {"id":2,"history":{"channel":"CH"}}
a close
sleep 2m
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"epoch":"<epoch:CH>"}}`},
	{name: "from nothing, after a short time away", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"CH"}}
a close
sleep 50s
publish CH {"i":1}
sleep 1s
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"epoch":"<epoch:CH>"}}`},
	{name: "after the history was removed", lines: fill + `
forget CH
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"<epoch:CH>"}}
c: carol
c> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":4,"epoch":"<epoch:CH>"}}
publish CH {"i":6}
d: dora
d> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"<epoch:CH>"}}`},
	{name: "after the history expired", lines: fill + `
sleep 2m
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"<epoch:CH>"}}
c: carol
c> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":4,"epoch":"<epoch:CH>"}}
publish CH {"i":6}`},
	{name: "skip_history moves no position", lines: fill + `
publish skip=1 CH {"now":1}
publish CH {"i":6}
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"<epoch:CH>"}}`},
	{name: "recover that was not asked for", lines: fill + `
b: bob
b> {"id":2,"subscribe":{"channel":"CH","offset":4,"epoch":"<epoch:CH>"}}`},
	{name: "unsubscribe and recover", lines: fill + `
a> {"id":3,"unsubscribe":{"channel":"CH"}}
publish CH {"i":6}
publish CH {"i":7}
a> {"id":4,"subscribe":{"channel":"CH","recover":true,"offset":5,"epoch":"<epoch:CH>"}}
publish CH {"i":8}`},
	{name: "recover with publications that clients made", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"CH"}}
a> {"id":3,"publish":{"channel":"CH","data":{"i":1}}} | {"id":4,"publish":{"channel":"CH","data":{"i":2}}}
b: bob
b> {"id":2,"subscribe":{"channel":"CH","recover":true,"epoch":"<epoch:CH>"}}`},
}

var askedScripts = []script{
	{name: "recoverable where it is allowed", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"asked:x","recoverable":true}}
a> {"id":3,"subscribe":{"channel":"asked:y","positioned":true}}
a> {"id":4,"subscribe":{"channel":"asked:z"}}
publish asked:x 1
publish asked:y 1
publish asked:z 1
b: bob
b> {"id":2,"subscribe":{"channel":"asked:x","recoverable":true,"recover":true,"epoch":"<epoch:asked:x>"}}
b> {"id":3,"subscribe":{"channel":"asked:y","recover":true,"epoch":"<epoch:asked:y>"}}`},
	{name: "recoverable where it is not", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"plain:x","recoverable":true,"positioned":true}}
a> {"id":3,"subscribe":{"channel":"plain:y","recover":true,"offset":3,"epoch":"x"}}
publish plain:x 1`},
	{name: "positions without recovery", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"pos:x"}}
publish pos:x 1
publish pos:x 2
b: bob
b> {"id":2,"subscribe":{"channel":"pos:x","recover":true,"offset":1,"epoch":"<epoch:pos:x>"}}
publish pos:x 3`},
	{name: "more was missed than may be recovered", lines: manyPublications + `
b: bob
b> {"id":2,"subscribe":{"channel":"large:x","recover":true,"offset":4,"epoch":"<epoch:large:x>"}}
c: carol
c> {"id":2,"subscribe":{"channel":"large:x","recover":true,"offset":5,"epoch":"<epoch:large:x>"}}
d: dora
d> {"id":2,"subscribe":{"channel":"large:x","recover":true,"offset":3,"epoch":"<epoch:large:x>"}}`},
	{name: "history is cut to the limit", lines: manyPublications + `
a> {"id":3,"history":{"channel":"large:x","limit":-1}}
a> {"id":4,"history":{"channel":"large:x","limit":100}}
a> {"id":5,"history":{"channel":"large:x","limit":100,"reverse":true}}
a> {"id":6,"history":{"channel":"large:x","limit":-1,"since":{"offset":3,"epoch":"<epoch:large:x>"}}}`},
}

const manyPublications = `
a: alice
a> {"id":2,"subscribe":{"channel":"large:x"}}
publish large:x 1
publish large:x 2
publish large:x 3
publish large:x 4
publish large:x 5
publish large:x 6
publish large:x 7
publish large:x 8
publish large:x 9
publish large:x 10
publish large:x 11
publish large:x 12
publish large:x 13
publish large:x 14
publish large:x 15
publish large:x 16
publish large:x 17
publish large:x 18
publish large:x 19
publish large:x 20
publish large:x 21
publish large:x 22
publish large:x 23
publish large:x 24
publish large:x 25
`

var historyScripts = []script{
	{name: "all forms", lines: fill + `
a> {"id":3,"history":{"channel":"CH"}}
a> {"id":4,"history":{"channel":"CH","limit":0}}
a> {"id":5,"history":{"channel":"CH","limit":-1}}
a> {"id":6,"history":{"channel":"CH","limit":1}}
a> {"id":7,"history":{"channel":"CH","limit":3}}
a> {"id":8,"history":{"channel":"CH","limit":100}}`},
	{name: "reverse", lines: fill + `
a> {"id":3,"history":{"channel":"CH","reverse":true}}
a> {"id":4,"history":{"channel":"CH","limit":-1,"reverse":true}}
a> {"id":5,"history":{"channel":"CH","limit":1,"reverse":true}}
a> {"id":6,"history":{"channel":"CH","limit":3,"reverse":true}}`},
	{name: "since", lines: fill + `
a> {"id":3,"history":{"channel":"CH","limit":-1,"since":{"offset":0,"epoch":"<epoch:CH>"}}}
a> {"id":4,"history":{"channel":"CH","limit":-1,"since":{"offset":3,"epoch":"<epoch:CH>"}}}
a> {"id":5,"history":{"channel":"CH","limit":1,"since":{"offset":3,"epoch":"<epoch:CH>"}}}
a> {"id":6,"history":{"channel":"CH","limit":-1,"since":{"offset":5,"epoch":"<epoch:CH>"}}}
a> {"id":7,"history":{"channel":"CH","limit":-1,"since":{"offset":50,"epoch":"<epoch:CH>"}}}
a> {"id":8,"history":{"channel":"CH","since":{"offset":3,"epoch":"<epoch:CH>"}}}
a> {"id":9,"history":{"channel":"CH","limit":-1,"since":{"offset":4}}}`},
	{name: "since in reverse", lines: fill + `
a> {"id":3,"history":{"channel":"CH","limit":-1,"reverse":true,"since":{"offset":5,"epoch":"<epoch:CH>"}}}
a> {"id":4,"history":{"channel":"CH","limit":1,"reverse":true,"since":{"offset":5,"epoch":"<epoch:CH>"}}}
a> {"id":5,"history":{"channel":"CH","limit":-1,"reverse":true,"since":{"offset":1,"epoch":"<epoch:CH>"}}}
a> {"id":8,"history":{"channel":"CH","limit":-1,"reverse":true,"since":{"epoch":"<epoch:CH>"}}}`},
	{name: "since the top and more in reverse", lines: fill + `
a> {"id":3,"history":{"channel":"CH","limit":-1,"reverse":true,"since":{"offset":6,"epoch":"<epoch:CH>"}}}`},
	{name: "since the future in reverse", differs: "backwards from the future", lines: fill + `
a> {"id":3,"history":{"channel":"CH","limit":-1,"reverse":true,"since":{"offset":50,"epoch":"<epoch:CH>"}}}`},
	{name: "since in another epoch", lines: fill + `
a> {"id":3,"history":{"channel":"CH","limit":-1,"since":{"offset":3,"epoch":"other"}}}
a> {"id":4,"history":{"channel":"CH","since":{"offset":5,"epoch":"other"}}}
a> {"id":5,"history":{"channel":"CH","limit":-1,"reverse":true,"since":{"offset":3,"epoch":"other"}}}`},
	{name: "of nothing", lines: `
a: alice
a> {"id":2,"history":{"channel":"CH"}}
a> {"id":3,"history":{"channel":"CH","limit":-1}}
a> {"id":4,"history":{"channel":"CH","limit":-1,"reverse":true}}
a> {"id":5,"history":{"channel":"CH","limit":-1,"since":{"offset":1,"epoch":"<epoch:CH>"}}}
a> {"id":6,"subscribe":{"channel":"CH"}}`},
	{name: "after it was removed", lines: fill + `
forget CH
a> {"id":3,"history":{"channel":"CH","limit":-1}}
publish CH {"i":6}
a> {"id":4,"history":{"channel":"CH","limit":-1}}
a> {"id":5,"history":{"channel":"CH","limit":-1,"reverse":true}}
a> {"id":6,"history":{"channel":"CH","limit":-1,"since":{"offset":3,"epoch":"<epoch:CH>"}}}`},
	{name: "after it expired", lines: fill + `
sleep 2m
a> {"id":3,"history":{"channel":"CH","limit":-1}}
publish CH {"i":6}
a> {"id":4,"history":{"channel":"CH","limit":-1}}`},
	{name: "with who published", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","info":{"n":1}}>"}}
a> {"id":2,"publish":{"channel":"CH","data":1}}
publish tag=a=b CH 2
a> {"id":3,"history":{"channel":"CH","limit":-1}}`},
}

var historyRightsScripts = []script{
	{name: "history and who may read it", lines: `
a: alice
a> {"id":2,"history":{"channel":"member:x","limit":-1}}
a> {"id":3,"subscribe":{"channel":"member:x"}}
a> {"id":4,"history":{"channel":"member:x","limit":-1}}
a> {"id":5,"history":{"channel":"locked:x","limit":-1}}
a> {"id":6,"history":{"channel":"plain:x","limit":-1}}
a> {"id":7,"history":{"channel":"nowhere:x","limit":-1}}
a> {"id":8,"history":{"channel":"#alice","limit":-1}}
a> {"id":9,"history":{"channel":"room:ü","limit":-1}}`},
	{name: "history without a channel", lines: `
a: alice
a> {"id":2,"history":{"limit":-1}}`},
}
