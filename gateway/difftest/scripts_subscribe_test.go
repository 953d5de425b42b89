package difftest

var subscribeScripts = []script{
	{name: "subscribe and unsubscribe again and again in one frame", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x"}} | {"id":3,"unsubscribe":{"channel":"room:x"}} | {"id":4,"subscribe":{"channel":"room:x"}} | {"id":5,"unsubscribe":{"channel":"room:x"}} | {"id":6,"subscribe":{"channel":"room:x"}}
a> {"id":7,"presence_stats":{"channel":"room:x"}}
members room:x`},
	{name: "subscribe and unsubscribe again and again", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x"}}
a> {"id":3,"unsubscribe":{"channel":"room:x"}}
a> {"id":4,"subscribe":{"channel":"room:x"}}
a> {"id":5,"unsubscribe":{"channel":"room:x"}} | {"id":6,"subscribe":{"channel":"room:x"}}
a> {"id":7,"presence_stats":{"channel":"room:x"}}
members room:x`},
	{name: "subscribe twice", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x"}} | {"id":3,"subscribe":{"channel":"room:x"}}
a> {"id":4,"subscribe":{"channel":"room:x"}}
publish room:x 1`},
	{name: "subscribe to the personal channel", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"#alice"}}`},
	{name: "subscribe without a channel", lines: `
a: alice
a> {"id":2,"subscribe":{}}`},
	{name: "unsubscribe without a channel", lines: `
a: alice
a> {"id":2,"unsubscribe":{}}`},
	{name: "unsubscribe what was never subscribed", lines: `
a: alice
a> {"id":2,"unsubscribe":{"channel":"room:x"}}
a> {"id":3,"unsubscribe":{"channel":"nowhere:x"}}`},
	{name: "too many channels", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"rec:1"}} | {"id":3,"subscribe":{"channel":"rec:2"}} | {"id":4,"subscribe":{"channel":"rec:3"}} | {"id":5,"subscribe":{"channel":"rec:4"}} | {"id":6,"subscribe":{"channel":"rec:5"}} | {"id":7,"subscribe":{"channel":"rec:6"}} | {"id":8,"subscribe":{"channel":"rec:7"}} | {"id":9,"subscribe":{"channel":"rec:8"}}
a> {"id":10,"subscribe":{"channel":"rec:1"}}
a> {"id":11,"unsubscribe":{"channel":"rec:1"}}
a> {"id":12,"subscribe":{"channel":"rec:8"}}`},
	{name: "subscribed comes before every other reason, a full connection next", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x"}>"}}
a> {"id":3,"subscribe":{"channel":"$room:x"}}
a> {"id":4,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"bob","channel":"$room:x"}>"}}
a> {"id":5,"subscribe":{"channel":"rec:2"}} | {"id":6,"subscribe":{"channel":"rec:3"}} | {"id":7,"subscribe":{"channel":"rec:4"}} | {"id":8,"subscribe":{"channel":"rec:5"}} | {"id":9,"subscribe":{"channel":"rec:6"}} | {"id":10,"subscribe":{"channel":"rec:7"}}
a> {"id":11,"subscribe":{"channel":"nowhere:x"}} | {"id":12,"subscribe":{"channel":"locked:x"}} | {"id":13,"subscribe":{"channel":"room:ü"}} | {"id":14,"subscribe":{"channel":"room:<pad:300>"}}
a> {"id":15,"subscribe":{"channel":"rec:2"}}`},
	{name: "names", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"nowhere:x"}}
a> {"id":3,"subscribe":{"channel":"room:ü"}}
a> {"id":4,"subscribe":{"channel":"room:<pad:300>"}}
a> {"id":5,"subscribe":{"channel":"regex:abc"}}
a> {"id":6,"subscribe":{"channel":"regex:123"}}
a> {"id":7,"subscribe":{"channel":"nonamespace"}}
a> {"id":8,"subscribe":{"channel":"room:"}}
a> {"id":9,"subscribe":{"channel":":"}}`},
	{name: "private channels", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x"}}
a> {"id":3,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","info":{"seat":1}}>"}}
a> {"id":4,"presence":{"channel":"$room:x"}}`},
	{name: "a subscription token opens a closed channel", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"locked:x"}}
a> {"id":3,"subscribe":{"channel":"locked:x","token":"<jwt:{"sub":"alice","channel":"locked:x"}>"}}`},
	{name: "a subscription token with a bad signature", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x"}>x"}}`},
	{name: "an expired subscription token", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@-1}>"}}`},
	{name: "a subscription token of another user", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"bob","channel":"$room:x"}>"}}`},
	{name: "a subscription token of another channel", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:y"}>"}}`},
	{name: "a subscription token of another connection", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","client":"somebody"}>"}}`},
	{name: "a subscription token of this connection", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","client":"<client:a>"}>"}}`},
	{name: "a subscription token overrides", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"plain:x","token":"<jwt:{"sub":"alice","channel":"plain:x","override":{"presence":{"value":true}}}>"}}
a> {"id":3,"subscribe":{"channel":"rec:x","token":"<jwt:{"sub":"alice","channel":"rec:x","override":{"force_recovery":{"value":false}}}>"}}
a> {"id":4,"subscribe":{"channel":"asked:x","token":"<jwt:{"sub":"alice","channel":"asked:x","override":{"force_positioning":{"value":true}},"data":{"k":1}}>"}}`},
	{name: "a subscription that expires", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@+60}>"}}
sleep 80s
publish $room:x 1
sleep 1m
publish $room:x 2`},
	{name: "sub_refresh", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@+60}>"}}
a> {"id":3,"sub_refresh":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@+600}>"}}
sleep 2m
publish $room:x 1
a> {"id":4,"sub_refresh":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x"}>"}}
sleep 5m
publish $room:x 2`},
	{name: "sub_refresh without a token", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@+60}>"}}
a> {"id":3,"sub_refresh":{"channel":"$room:x"}}`},
	{name: "sub_refresh without a channel", lines: `
a: alice
a> {"id":3,"sub_refresh":{"token":"x"}}`},
	{name: "sub_refresh of no subscription", lines: `
a: alice
a> {"id":3,"sub_refresh":{"channel":"$room:x","token":"x"}}`},
	{name: "sub_refresh with an expired token", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@+60}>"}}
a> {"id":3,"sub_refresh":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@-1}>"}}`},
	{name: "sub_refresh with a bad signature", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@+60}>"}}
a> {"id":3,"sub_refresh":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x"}>x"}}`},
	{name: "sub_refresh with a token of another channel", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:x","exp":@+60}>"}}
a> {"id":3,"sub_refresh":{"channel":"$room:x","token":"<jwt:{"sub":"alice","channel":"$room:y"}>"}}`},
	{name: "user-limited channels", lines: `
a: alice
b: bob
c: carol
a> {"id":2,"subscribe":{"channel":"dialog:1#alice,bob"}}
b> {"id":2,"subscribe":{"channel":"dialog:1#alice,bob"}}
c> {"id":2,"subscribe":{"channel":"dialog:1#alice,bob"}}
publish dialog:1#alice,bob 1
a> {"id":3,"subscribe":{"channel":"#bob"}}
a> {"id":4,"subscribe":{"channel":"rec:x#alice"}}
a> {"id":5,"subscribe":{"channel":"rec:x#bob"}}`},
	{name: "another user's user-limited channel from outside", differs: "closed channels stay closed", lines: `
c: carol
publish dialog:1#alice,bob 1
c> {"id":3,"history":{"channel":"dialog:1#alice,bob","limit":-1}}
c> {"id":4,"publish":{"channel":"rec:1#alice","data":1}}`},
	{name: "a private channel from outside", differs: "closed channels stay closed", lines: `
c: carol
c> {"id":3,"presence":{"channel":"$room:x"}}
c> {"id":4,"publish":{"channel":"$room:x","data":1}}`},
	{name: "join and leave", lines: `
a: alice
b: bob
a> {"id":2,"subscribe":{"channel":"room:x"}}
b> {"id":2,"subscribe":{"channel":"room:x"}}
b> {"id":3,"unsubscribe":{"channel":"room:x"}}
b> {"id":4,"subscribe":{"channel":"room:x"}}
b close`},
	{name: "join and leave for those who ask", lines: `
a: alice
b: bob
c: carol
a> {"id":2,"subscribe":{"channel":"member:x","join_leave":true}}
b> {"id":2,"subscribe":{"channel":"member:x"}}
c> {"id":2,"subscribe":{"channel":"rec:x","join_leave":true}}
b close`},
	{name: "join and leave go with publications in order", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x"}}
b> {"id":1,"connect":{"token":"<jwt:{"sub":"bob"}>"}} | {"id":2,"subscribe":{"channel":"room:x"}} | {"id":3,"publish":{"channel":"room:x","data":1}} | {"id":4,"unsubscribe":{"channel":"room:x"}} | {"id":5,"publish":{"channel":"room:x","data":2}}`},
	{name: "presence is exact", lines: `
a: alice
b: alice
c: carol
a> {"id":2,"subscribe":{"channel":"room:x"}}
b> {"id":2,"subscribe":{"channel":"room:x"}}
c> {"id":2,"subscribe":{"channel":"room:x"}}
members room:x
a> {"id":3,"presence":{"channel":"room:x"}} | {"id":4,"presence_stats":{"channel":"room:x"}}
b> {"id":3,"unsubscribe":{"channel":"room:x"}} | {"id":4,"presence_stats":{"channel":"room:x"}}
members room:x
c close
members room:x
a> {"id":5,"presence":{"channel":"room:x"}}
a close
members room:x`},
	{name: "presence and who may read it", lines: `
a: alice
a> {"id":2,"presence":{"channel":"member:x"}}
a> {"id":3,"presence_stats":{"channel":"member:x"}}
a> {"id":4,"subscribe":{"channel":"member:x"}}
a> {"id":5,"presence":{"channel":"member:x"}}
a> {"id":6,"presence":{"channel":"locked:x"}}
a> {"id":7,"presence":{"channel":"rec:x"}}
a> {"id":8,"presence_stats":{"channel":"rec:x"}}
a> {"id":9,"presence":{"channel":"nowhere:x"}}
a> {"id":10,"presence":{"channel":"room:empty"}}
a> {"id":11,"presence_stats":{"channel":"room:empty"}}`},
	{name: "presence without a channel", lines: `
a: alice
a> {"id":2,"presence":{}}`},
	{name: "presence_stats without a channel", lines: `
a: alice
a> {"id":2,"presence_stats":{}}`},
	{name: "publish and who may", lines: `
a: alice
a> {"id":2,"publish":{"channel":"room:x","data":{"i":1}}}
a> {"id":3,"publish":{"channel":"member:x","data":{"i":1}}}
a> {"id":4,"subscribe":{"channel":"member:x"}}
a> {"id":5,"publish":{"channel":"member:x","data":{"i":1}}}
a> {"id":6,"publish":{"channel":"locked:x","data":{"i":1}}}
a> {"id":7,"publish":{"channel":"nowhere:x","data":{"i":1}}}
a> {"id":8,"publish":{"channel":"#alice","data":{"i":1}}}
a> {"id":9,"publish":{"channel":"room:ü","data":{"i":1}}}`},
	{name: "publish without data", lines: `
a: alice
a> {"id":2,"publish":{"channel":"room:x"}}`},
	{name: "publish without a channel", lines: `
a: alice
a> {"id":2,"publish":{"data":1}}`},
	{name: "publish every kind of JSON", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x"}}
a> {"id":3,"publish":{"channel":"room:x","data":"text \" \n ü 𝄞"}} | {"id":4,"publish":{"channel":"room:x","data":12.5e3}} | {"id":5,"publish":{"channel":"room:x","data":null}} | {"id":6,"publish":{"channel":"room:x","data":false}} | {"id":7,"publish":{"channel":"room:x","data":[ 1, {"a" : []} ]}} | {"id":8,"publish":{"channel":"room:x","data":{}}} | {"id":9,"publish":{"channel":"room:x","data":""}}
a> {"id":10,"history":{"channel":"room:x","limit":-1}}`},
	{name: "publish from outside, with tags, twice with one key", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x"}}
publish tag=p=odd room:x {"i":1}
publish key=k room:x {"i":2}
publish key=k room:x {"i":3}
a> {"id":3,"history":{"channel":"room:x","limit":-1}}`},
	{name: "the server unsubscribes", lines: `
a: alice
b: bob
a> {"id":2,"subscribe":{"channel":"room:x"}}
b> {"id":2,"subscribe":{"channel":"room:x"}}
remove alice room:x
publish room:x 1
a> {"id":3,"subscribe":{"channel":"room:x"}}
members room:x
remove alice room:y`},
	{name: "an encoding of deltas that does not exist", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x","delta":"zip"}}`},
	{name: "deltas where the channel has none", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x","delta":"fossil"}}
publish room:x {"i":1}
publish room:x {"i":2}`},
	{name: "a filter where the channel allows none", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x","tf":{"key":"p","cmp":"eq","val":"odd"}}}
a> {"id":3,"subscribe":{"channel":"room:x"}}`},
}
