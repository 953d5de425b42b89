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
//	code ──► Service.Login ──► wechat.Client.Code2Session ──► WeChat
//	                │
//	                ├─ newToken: "mg_" and 256 random bits, shown once
//	                ├─ sealer:   the session_key, encrypted for this user only
//	                └─ Store.Open(fingerprint, user, expiry; sealed key)
//
// Phones repeat a login whose answer got lost, but WeChat takes a code once. So
// the answer is kept for a minute, encrypted under a key derived from the code
// and found by the code's hash, and a code sent again gets the same token, on
// every node, as long as its session lives. While one node redeems a code the
// others wait for it.
//
// A user's latest session_keys stay in a keyring, three at most and for 72
// hours: data that the phone encrypted before a login may arrive after it. A
// login never ends the session of another device, except beyond the limit of
// sessions per user.
//
// Where a login webhook is configured, the business backend is asked before
// the session is stored: it may refuse, or say things about the user that stay
// with it ([Session.Claims], [Session.Channels]).
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
// using it moves its expiry, up to its greatest age, and notes when and where it
// was last seen, written at most once per hundredth of its lifetime but every
// ten minutes, and together with others; a crash takes the last second of that.
//
// A session that ends before its time (logout, too many devices, revoked, user
// blocked) is forgotten by this node at once and by the others as soon as the
// store has told them; whoever registered with [Service.OnEnd] hears of it on
// every node. Blocks are told in the same way, also of users who have no
// session ([Service.OnBlock]); [Service.Blocked] is for who lets users in
// without a login of ours.
// Such a message can be lost with a connection to Redis. The few seconds of
// the cache then bound how long a revoked token still works for requests, and
// when the connection is back the cache is dropped and whoever registered with
// [Service.OnResume] has live connections verified anew.
//
// # Where no header can be sent
//
// A download that the system makes or a socket of some runtimes takes a URL and
// nothing else. For those a client asks POST /auth/ticket for a ticket and sends
// it as ?ticket=. [Service.NewTicket] signs it with HMAC-SHA256 for one session
// and one [Scope]: it works for minutes, dies with the session, makes no other
// tickets, and for a socket works once.
//
// A link to a file stands for no session: the backend has [Service.SignLink]
// make it, and whoever has it reads that file until it expires. One that carries a
// user stands for what that user may read by then.
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
//	service.OnEnd(func(e auth.SessionEnd) {…})    // before Run: hub.EndSession
//	go service.Run(ctx)                           // background work of the store
//	mux.Handle("POST /auth/login", rest.Handler(service.ServeLogin))
//	mux.Handle("/api/", service.Require(proxy))   // SessionFrom(ctx) in there
package auth
