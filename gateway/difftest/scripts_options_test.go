package difftest

var deltaScripts = []script{
	{name: "the first delta", differs: "the epoch of the first delta", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil"}}
publish delta:x {"i":1}`},
	{name: "delta live and recovered", lines: `
publish delta:x {"i":0}
a: alice
b: bob
a> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil"}}
b> {"id":2,"subscribe":{"channel":"delta:x"}}
publish delta:x {"text":"one and the same long text over and over","i":1}
publish delta:x {"text":"one and the same long text over and over","i":2}
publish delta:x {"text":"one and the same long text over and over","i":3}
c: carol
c> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil","recover":true,"offset":2,"epoch":"<epoch:delta:x>"}}
d: dora
d> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil"}}
publish delta:x {"text":"one and the same long text over and over","i":4}
publish delta:x {"text":"one and the same long text over and over","i":5}
b> {"id":3,"unsubscribe":{"channel":"delta:x"}} | {"id":4,"subscribe":{"channel":"delta:x","delta":"fossil"}}
publish delta:x {"text":"one and the same long text over and over","i":6}
a> {"id":3,"history":{"channel":"delta:x","limit":-1}}`},
	{name: "deltas beside the history", differs: "deltas beside the history", lines: `
publish delta:x {"i":0}
a: alice
a> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil"}}
publish delta:x {"text":"one and the same long text over and over","i":1}
publish skip=1 delta:x {"text":"one and the same long text over and over","i":2}
publish delta:x {"text":"one and the same long text over and over","i":3}`},
	{name: "deltas of text beyond ASCII", lines: `
publish delta:x {"text":"价格数量订单价格数量订单价格数量订单","i":"一"}
a: alice
a> {"id":2,"subscribe":{"channel":"delta:x","delta":"fossil"}}
publish delta:x {"text":"价格数量订单价格数量订单价格数量订单","i":"丁"}
publish delta:x {"text":"价格数量订单价格数量订单价格数量订单","i":"七"}
publish delta:x {"text":"价格数量订单价格数量订单价格数量订丁","i":"七"}`},
}

var filterScripts = []script{
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
}

var cacheScripts = []script{
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
}

var numberScripts = []script{
	{name: "numbers for channels", lines: `
a: alice
b: bob
a> {"id":2,"subscribe":{"channel":"room:x","flag":1}}
b> {"id":2,"subscribe":{"channel":"room:x"}}
publish room:x {"i":1}
a> {"id":3,"subscribe":{"channel":"rec:x","flag":1}} | {"id":4,"publish":{"channel":"rec:x","data":1}}
b> {"id":3,"unsubscribe":{"channel":"room:x"}}
a> {"id":5,"unsubscribe":{"channel":"room:x"}}
b> {"id":4,"subscribe":{"channel":"room:x","flag":1}}
a> {"id":6,"subscribe":{"channel":"room:x"}}
publish room:x {"i":2}
remove bob room:x
publish room:x {"i":3}`},
	{name: "numbers for channels, recovered", lines: `
a: alice
publish rec:x {"i":1}
publish rec:x {"i":2}
a> {"id":2,"subscribe":{"channel":"rec:x","flag":1,"recover":true,"offset":1,"epoch":"<epoch:rec:x>"}}
publish rec:x {"i":3}`},
	{name: "no numbers for channels of the server", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channels":["room:x"]}>","subs":{"room:x":{"flag":1},"rec:x":{"flag":1}}}}
publish room:x {"i":1}
publish rec:x {"i":1}`},
	{name: "numbers, deltas and filters together", lines: `
publish delta:x {"i":0}
a: alice
a> {"id":2,"subscribe":{"channel":"delta:x","flag":1,"delta":"fossil"}}
a> {"id":3,"subscribe":{"channel":"filter:x","flag":1,"tf":{"key":"p","cmp":"eq","val":"odd"}}}
publish delta:x {"text":"one and the same long text over and over","i":1}
publish delta:x {"text":"one and the same long text over and over","i":2}
publish tag=p=odd filter:x 1
publish tag=p=even filter:x 2`},
}
