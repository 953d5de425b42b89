// Package auth answers one question: who is this?
//
// # From wx.login to a session
//
// A phone calls wx.login, which gives it a code: good for five minutes, for one
// redemption, in one mini-program. It sends the code to POST /auth/login. We
// redeem it at WeChat (code2Session) with the mini-program's AppSecret and
// learn the user's openid, perhaps a unionid, and a session_key. Then we make a
// session and hand the phone its token, which it sends with everything it does
// from there on:
//
//	code ──► Service.Login ──► wechatClient.Code2Session ──► WeChat
//	                │
//	                ├─ newToken: "mg_" and 256 random bits, shown once
//	                ├─ sealer:   the session_key, encrypted for this record only
//	                └─ Store.Put(fingerprint, user, sealed key, expiry)
//
// # What is secret
//
// Three things must never leave: the AppSecret, the session_key and the tokens.
// The AppSecret has to travel in the query of a GET, so its requests bypass
// http.Client, whose errors quote URLs. The session_key is sealed the moment it
// arrives. Tokens are stored nowhere: only their SHA-256, the [Fingerprint], is
// kept, compared and sent between nodes, so a stolen database logs nobody in.
//
// # Verifying is cheap, revoking is fast
//
// [Service.Verify] runs for every request and every socket. It remembers
// verified sessions for a few seconds per node, and questions about one token
// that is not remembered share one look into the [Store]. A session slides:
// using it moves its expiry, written at most once per hundredth of its lifetime.
//
// A session that ends before its time (logout, too many devices, revoked) is
// forgotten by this node at once and by the others as soon as the store has
// told them; whoever registered with [Service.OnEnd] hears of it on every node.
// Such a message can be lost with a connection to Redis. The few seconds of
// the cache then bound how long a revoked token still works for requests.
//
// # Stores
//
// [FileStore] keeps sessions in the data directory of a node that runs alone;
// [RedisStore] shares them between nodes. Both obey one contract, written down
// at [Store] and tested over both. When the store is away nobody can be
// verified, and the answer is 503 `sessions_unavailable`, never 401: a 401
// would send every phone to wx.login at once.
//
// # Running it
//
//	store, err := auth.NewFileStore(db)           // or auth.NewRedisStore
//	service, err := auth.New(auth.Options{…})
//	service.OnEnd(hub.EndSession)                 // before Run
//	go service.Run(ctx)                           // background work of the store
//	mux.Handle("POST /auth/login", rest.Handler(service.ServeLogin))
//	mux.Handle("/api/", service.Require(proxy))   // SessionFrom(ctx) in there
package auth
