package difftest

var connectScripts = []script{
	{name: "connect", lines: `a: alice`},
	{name: "connect with name, version, headers, data", lines: `
a> {"connect":{"token":"<jwt:{"sub":"alice"}>","name":"js","version":"5.8.0","headers":{"x":"y"},"data":{"k":1}},"id":1}`},
	{name: "id after the request and unknown keys", lines: `
a> {"connect":{"token":"<jwt:{"sub":"alice"}>","later":{"a":[1]}},"new":{"x":1},"id":7}
a> {"unsubscribe":{"channel":"room:x"},"id":4294967295}`},
	{name: "a key that is there twice", lines: `
a> {"id":1,"id":2,"connect":{"token":"<jwt:{"sub":"alice"}>"}}`},
	{name: "an id that is too large", lines: `
a> {"id":4294967296,"connect":{"token":"<jwt:{"sub":"alice"}>"}}`},
	{name: "an id that is negative", lines: `
a> {"id":-1,"connect":{"token":"<jwt:{"sub":"alice"}>"}}`},
	{name: "connect without a token", lines: `a> {"id":1,"connect":{}}`},
	{name: "connect with a bad signature", lines: `a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice"}>x"}}`},
	{name: "connect with what is no token", lines: `a> {"id":1,"connect":{"token":"x"}}`},
	{name: "connect with an expired token", differs: "a dead connection", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@-1}>"}}
sleep 11s`},
	{name: "connect with an expired token and go on", differs: "a dead connection", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@-1}>"}}
a> {"id":2,"subscribe":{"channel":"room:x"}}
sleep 11s`},
	{name: "connect with a token that is not good yet", lines: `a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","nbf":@+60}>"}}`},
	{name: "connect with a subscription token", lines: `a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channel":"x"}>"}}`},
	{name: "anonymous", lines: `
a> {"id":1,"connect":{"token":"<jwt:{}>"}}
a> {"id":2,"subscribe":{"channel":"room:x"}}
a> {"id":3,"subscribe":{"channel":"rec:x"}}
a> {"id":4,"publish":{"channel":"room:x","data":1}}
a> {"id":5,"presence_stats":{"channel":"room:x"}}
b> {"id":1,"connect":{"token":"<jwt:{}>"}}
b> {"id":2,"subscribe":{"channel":"room:x"}}
b> {"id":3,"presence_stats":{"channel":"room:x"}}`},
	{name: "connection info", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","info":{"name":"Alice"}}>"}}
a> {"id":2,"subscribe":{"channel":"room:x"}}
a> {"id":3,"publish":{"channel":"room:x","data":"text"}}
a> {"id":4,"presence":{"channel":"room:x"}}`},
	{name: "a token that expires", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@+60}>"}}
sleep 59s
sleep 20s
sleep 10s`},
	{name: "refresh", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@+60}>"}}
a> {"id":2,"refresh":{"token":"<jwt:{"sub":"alice","exp":@+600}>"}}
sleep 2m
a> {"id":3,"presence_stats":{"channel":"room:x"}}`},
	{name: "refresh for good", differs: "a token for good", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@+60}>"}}
a> {"id":2,"refresh":{"token":"<jwt:{"sub":"alice"}>"}}
sleep 5m
a> {"id":3,"presence_stats":{"channel":"room:x"}}`},
	{name: "refresh where nothing expires", lines: `
a: alice
a> {"id":2,"refresh":{"token":"<jwt:{"sub":"alice"}>"}}
a> {"id":3,"refresh":{"token":"<jwt:{"sub":"alice","exp":@+60}>"}}
sleep 2m`},
	{name: "refresh with an expired token", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@+60}>"}}
a> {"id":2,"refresh":{"token":"<jwt:{"sub":"alice","exp":@-1}>"}}`},
	{name: "refresh without a token", lines: `
a: alice
a> {"id":2,"refresh":{}}`},
	{name: "refresh with another user's token", lines: `
a: alice
a> {"id":2,"refresh":{"token":"<jwt:{"sub":"bob"}>"}}`},
	{name: "refresh with a bad signature", lines: `
a: alice
a> {"id":2,"refresh":{"token":"<jwt:{"sub":"alice"}>x"}}`},
	{name: "refresh within the grace", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@+10}>"}}
sleep 20s
a> {"id":2,"refresh":{"token":"<jwt:{"sub":"alice","exp":@+600}>"}}
sleep 1m
a> {"id":3,"presence_stats":{"channel":"room:x"}}`},
	{name: "connect twice", lines: `
a: alice
a: alice`},
	{name: "a command before connect", lines: `a> {"id":1,"subscribe":{"channel":"room:x"}}`},
	{name: "send before connect", lines: `a> {"send":{"data":1}}`},
	{name: "never connects", lines: `
a> 
sleep 9s
sleep 3s`},
	{name: "connect and more in one frame", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice"}>"}} | {"id":2,"subscribe":{"channel":"room:x"}} | {"id":3,"presence":{"channel":"room:x"}} | {"id":4,"unsubscribe":{"channel":"room:x"}}`},
	{name: "a failed connect and more in one frame", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","exp":@-1}>"}} | {"id":2,"subscribe":{"channel":"room:x"}}`},
	{name: "a trailing newline", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice"}>"}} | `},
	{name: "a line that is empty", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice"}>"}} |  | {"id":2,"subscribe":{"channel":"room:x"}}`},
	{name: "not JSON", lines: `
a: alice
a! hello`},
	{name: "half JSON", lines: `
a: alice
a! {"id":2,"subscribe":{"channel":`},
	{name: "JSON that is no object", lines: `
a: alice
a! [1,2]`},
	{name: "types that are wrong", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":5}}`},
	{name: "good and bad in one frame", lines: `
a: alice
a> {"id":2,"presence_stats":{"channel":"room:x"}} | nonsense | {"id":3,"presence_stats":{"channel":"room:x"}}`},
	{name: "no request", lines: `
a: alice
a> {"id":2}`},
	{name: "the ping of an old protocol", lines: `
a: alice
a> {"id":2,"ping":{}}`},
	{name: "send", lines: `
a: alice
a> {"send":{"data":{"x":1}}}`},
	{name: "rpc without a backend", lines: `
a: alice
a> {"id":2,"rpc":{"method":"x","data":{"a":1}}}
a> {"id":3,"rpc":{"data":{"a":1}}}`},
	{name: "a message that is too large", lines: `
a: alice
a> {"id":2,"publish":{"channel":"room:x","data":"<pad:70000>"}}`},
	{name: "a message that just fits", lines: `
a: alice
a> {"id":2,"subscribe":{"channel":"room:x"}}
a> {"id":3,"publish":{"channel":"room:x","data":"<pad:65000>"}}`},
	{name: "pings that are answered", lines: `
a: alice
sleep 3m
a> {"id":2,"presence_stats":{"channel":"room:x"}}`},
	{name: "pings that are not answered", lines: `
a: alice
a mute
sleep 1m`},
	{name: "a pong nobody asked for", differs: "leniency on pongs", lines: `
a: alice
a> {}
a> {"id":2,"presence_stats":{"channel":"room:x"}}`},
	{name: "a command without an id counts as a pong", differs: "leniency on pongs", lines: `
a: alice
a> {"subscribe":{"channel":"room:x"}}
a> {"id":2,"presence_stats":{"channel":"room:x"}}`},
	{name: "kick", lines: `
a: alice
b: bob
kick alice
b> {"id":2,"presence_stats":{"channel":"room:x"}}`},
	{name: "kick with a code", lines: `
a: alice
b: alice
kick alice 4001`},
	{name: "kick of nobody", lines: `
a: alice
kick nobody`},
	{name: "a message to all", lines: `
a: alice
b: bob
all {"news":1}`},
	{name: "channels of the connection token", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channels":["locked:x","$room:y"]}>"}}
publish locked:x 1
publish $room:y 2
publish #alice 3
a> {"id":2,"presence":{"channel":"$room:y"}}`},
	{name: "subs of the connection token", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","subs":{"room:x":{"info":{"seat":1},"data":{"hello":1}},"plain:y":{"override":{"presence":{"value":true}}}}}>"}}
a> {"id":2,"presence":{"channel":"room:x"}}`},
	{name: "an unknown channel in the connection token", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channels":["nowhere:x"]}>"}}`},
	{name: "too many channels in the connection token", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channels":["room:1","room:2","room:3","room:4","room:5","room:6","room:7","room:8"]}>"}}`},
	{name: "channels asked for in connect", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice"}>","subs":{"rec:x":{},"locked:y":{},"$rec:z":{},"#alice":{}}}}
publish rec:x 1`},
	{name: "an unknown channel asked for in connect", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice"}>","subs":{"nowhere:x":{}}}}`},
	{name: "server-side subscriptions recover", lines: `
a: alice
publish #alice 1
a close
publish #alice 2
publish #alice 3
b> {"id":1,"connect":{"token":"<jwt:{"sub":"alice"}>","subs":{"#alice":{"recover":true,"offset":1,"epoch":"<epoch:#alice>"}}}}
publish #alice 4`},
	{name: "server-side subscriptions do not recover what is lost", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channels":["small:x"]}>"}}
publish small:x 1
a close
publish small:x 2
publish small:x 3
publish small:x 4
b> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channels":["small:x"]}>","subs":{"small:x":{"recover":true,"offset":1,"epoch":"<epoch:small:x>"}}}}
publish small:x 5`},
	{name: "server-side: unsubscribe and come back", lines: `
a> {"id":1,"connect":{"token":"<jwt:{"sub":"alice","channels":["locked:x","room:y"]}>"}}
a> {"id":2,"subscribe":{"channel":"room:y"}}
a> {"id":3,"unsubscribe":{"channel":"room:y"}}
a> {"id":4,"unsubscribe":{"channel":"locked:x"}}
a> {"id":5,"subscribe":{"channel":"room:y"}}
a> {"id":6,"subscribe":{"channel":"locked:x"}}`},
	{name: "server-side: the server unsubscribes", lines: `
a: alice
remove alice #alice
publish #alice 1`},
}
