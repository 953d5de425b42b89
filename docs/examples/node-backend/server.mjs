// A whole business backend behind minigate, in plain Node.js 20: the webhooks,
// and the routes that phones reach by wx.request and rpc. Everything is kept in
// memory, so that what matters stays in view. README.md says how to run it.
import { createHash, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { pathToFileURL } from 'node:url'
import { KeySet, Once, Refused, verifyCall, verifyToken } from './verify.mjs'

const MAX_JSON = 1 << 20 // bytes
const MAX_ORDERS = 1000 // of one user

/** Problem is an answer that is no success. code and message reach rpc callers, too. */
class Problem extends Error {
  constructor(status, code, message) {
    super(message)
    Object.assign(this, { status, code })
  }
}

/**
 * createBackend makes the request listener. keys sign webhooks, by id; jwksUrl
 * is minigate's; audience is this backend in signed identities.
 */
export function createBackend({ keys, jwksUrl, audience, now = () => Date.now() }) {
  const blocked = new Set() // openids
  const online = new Map() // user → the latest { status, seq, at }
  const news = [] // what webhooks told, latest last
  const orders = new Map() // user → Map of order id → order
  const once = new Once()
  const keySet = new KeySet(jwksUrl)

  // ---- Questions: minigate waits for the answer. ----

  const questions = {
    // Who may log in. Claims come back in X-WX-CLAIMS, channels are subscribed.
    login({ user }) {
      if (blocked.has(user.openid)) return { allow: false, reason: 'This account is closed.' }
      return { claims: { level: 'gold' }, channels: ['room:club'] }
    },
    // Who connects without a login; or, with for_logins, what a user gets more.
    connect({ user, login, data, channels = [] }) {
      if (user) return blocked.has(user) ? bye() : { result: { user, info: { level: login?.claims?.level ?? 'none' } } }
      if (typeof data?.guest !== 'string' || data.guest.length > 32) return bye()
      return { result: { user: 'guest-' + data.guest, info: { guest: true }, channels: channels.filter((c) => c === 'room:lobby') } }
    },
    refresh: ({ user }) => goesOn(!blocked.has(user)),
    subscribe({ user, channel }) {
      if (!maySubscribe(user, channel)) return { error: { code: 103, message: 'permission denied' } }
      return { result: { info: { since: Math.floor(now() / 1000) } } }
    },
    publish({ user, data }) {
      if (typeof data?.text !== 'string' || data.text.length > 500) return { error: { code: 1001, message: 'text of up to 500 characters, please' } }
      return { result: { data: { text: data.text.trim(), from: user, at: now() } } }
    },
    sub_refresh: ({ user, channel }) => goesOn(maySubscribe(user, channel)),
    // The same methods as the routes below, for who prefers one webhook.
    async rpc({ user, method, data }) {
      const name = method.slice(method.indexOf(':') + 1) // without its namespace
      const handler = Object.hasOwn(methods, name) && methods[name]
      if (!handler) return { error: { code: 104, message: 'method not found' } }
      try {
        return { result: { data: await handler(user, data ?? {}) } }
      } catch (err) {
        if (!(err instanceof Problem)) throw err
        return { error: { code: err.code, message: err.message } }
      }
    },
    // What may be uploaded, before the first byte is stored.
    upload({ file }) {
      if (/\.(exe|sh)$/i.test(file?.name ?? '')) return { allow: false, reason: 'No programs, please.' }
      return { allow: true, attributes: { album: 'inbox' } }
    },
  }

  const bye = () => ({ disconnect: { code: 4501, reason: 'log in first' } }) // 4500 and above: do not come back
  const goesOn = (yes) => ({ result: yes ? { expire_at: Math.floor(now() / 1000) + 3600 } : { expired: true } })

  // order:ID belongs to whom the order does; every other channel is open.
  function maySubscribe(user, channel) {
    const [kind, id] = channel.split(':')
    return !blocked.has(user) && (kind !== 'order' || !!orders.get(user)?.has(id))
  }

  // ---- News: told at least once, so handled once per delivery. ----

  const tellings = {
    files: (told) => remember(told),
    wechat_push: (told) => remember(told),
    open_data: (told) => remember(told),
    // Calls may overtake each other: only what has a higher seq is newer.
    user_status({ events }) {
      for (const { user, status, seq, at } of events) {
        if (seq > (online.get(user)?.seq ?? -1)) online.set(user, { status, seq, at })
      }
    },
  }

  function remember(told) {
    news.push(told)
    if (news.length > 1000) news.shift()
  }

  async function webhook(name, req, res) {
    const body = await read(req, MAX_JSON)
    verifyCall(req.headers, body, keys, now() / 1000) // before anything in it is believed
    const told = JSON.parse(body)
    if (Object.hasOwn(questions, name)) return json(res, 200, await questions[name](told))
    if (!Object.hasOwn(tellings, name)) throw new Problem(404, 1404, 'no such webhook')
    // The id in the body is signed; the one in the header is for logs.
    await once.do(told.delivery, () => tellings[name](told))
    res.writeHead(204).end()
  }

  // ---- The API of the mini-program: wx.request and rpc. ----

  const ordersOf = (user) => orders.get(user) ?? orders.set(user, new Map()).get(user)
  const orderOf = (user, id) => ordersOf(user).get(id) ?? fail(404, 1404, 'no such order')
  const fail = (status, code, message) => { throw new Problem(status, code, message) }

  function checked({ item, count = 1, note = '' }) {
    if (typeof item !== 'string' || !item || item.length > 100) fail(400, 1400, 'item is a text of 1 to 100 characters')
    if (!Number.isInteger(count) || count < 1 || count > 1000) fail(400, 1400, 'count is a number from 1 to 1000')
    if (typeof note !== 'string' || note.length > 1000) fail(400, 1400, 'note is a text of up to 1000 characters')
    return { item, count, note }
  }

  const methods = {
    'orders/list': (user) => ({ orders: [...ordersOf(user).values()] }),
    'orders/show': (user, { id }) => orderOf(user, id),
    'orders/create'(user, fields) {
      const order = { id: randomUUID(), ...checked(fields) }
      if (ordersOf(user).size >= MAX_ORDERS) fail(409, 1409, 'too many orders')
      ordersOf(user).set(order.id, order)
      return order
    },
    'orders/change'(user, { id, ...changes }) {
      const order = { id, ...checked({ ...orderOf(user, id), ...changes }) }
      ordersOf(user).set(id, order)
      return order
    },
    'orders/remove'(user, { id }) {
      orderOf(user, id)
      ordersOf(user).delete(id)
      return {}
    },
  }

  // Who is asking. minigate has checked the login and removes these headers
  // from what clients send: they can be believed as long as nobody else can
  // reach this server. Where others can, believe the signed identity alone.
  async function whoami(req) {
    const h = req.headers
    const user = h['x-wx-openid']
    if (!user) fail(401, 1401, 'nobody is logged in')
    const me = { openid: user, unionid: h['x-wx-unionid'], appid: h['x-wx-appid'], claims: JSON.parse(h['x-wx-claims'] ?? 'null') }
    const token = h['x-minigate-identity']
    if (token) {
      me.identity = await verifyToken(token, keySet, { type: 'minigate-identity+jwt', audience, now: now() / 1000 })
      if (me.identity.sub !== user) throw new Refused('the signed identity is somebody else')
    }
    return me
  }

  async function api(path, req, res) {
    const me = await whoami(req)
    const user = me.openid
    const at = `${req.method} ${path}`
    const body = async () => JSON.parse((await read(req, MAX_JSON)).toString() || '{}') ?? {}
    const [, id] = /^orders\/([0-9a-f-]{36})$/.exec(path) ?? []
    switch (true) {
      case path === 'whoami': return json(res, 200, me)
      case at === 'GET orders': return json(res, 200, methods['orders/list'](user))
      case at === 'POST orders': return json(res, 201, methods['orders/create'](user, await body()))
      case !!id && req.method === 'GET': return json(res, 200, methods['orders/show'](user, { id }))
      case !!id && req.method === 'PATCH': return json(res, 200, methods['orders/change'](user, { ...await body(), id }))
      case !!id && req.method === 'DELETE': return json(res, 200, methods['orders/remove'](user, { id }))
      // rpc.path /api/{method} brings the methods of sockets here.
      case req.method === 'POST' && Object.hasOwn(methods, path): return json(res, 200, await methods[path](user, await body()))
      case at === 'POST phone': return json(res, 200, await phone(me, await body()))
      case at === 'GET stream': return stream(req, res)
      case at === 'POST hash': return json(res, 200, await hash(req))
      case at === 'GET slow': return slow(req, res)
    }
    fail(404, 1404, 'no such route')
  }

  // A phone number that the phone brings is believed because minigate signed
  // it, for this user.
  async function phone(me, { jws }) {
    const claims = await verifyToken(jws, keySet, { type: 'JWT', audience: me.appid, now: now() / 1000 })
    if (claims.sub !== me.openid || claims.kind !== 'phone') throw new Refused('not the phone number of this user')
    return { phone: claims.data.phone_number }
  }

  // An answer in pieces; minigate passes each on at once.
  async function stream(req, res) {
    res.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' })
    for (let i = 1; i <= 5 && !res.destroyed; i++) {
      res.write(`line ${i}\n`)
      await pause(100)
    }
    res.end()
  }

  // A body of any size, which is never in memory as a whole.
  async function hash(req) {
    const sum = createHash('sha256')
    let size = 0
    for await (const chunk of req) {
      sum.update(chunk)
      size += chunk.length
    }
    return { size, sha256: sum.digest('hex') }
  }

  async function slow(req, res) {
    const ms = Math.min(Number(new URL(req.url, 'http://x').searchParams.get('ms')) || 1000, 60_000)
    await pause(ms)
    json(res, 200, { slept: ms })
  }

  // ---- HTTP ----

  async function route(req, res) {
    const [, area, path] = /^\/(minigate|api)\/([^?]+)/.exec(req.url) ?? []
    if (area === 'minigate' && req.method === 'POST') return webhook(path, req, res)
    if (area === 'api') return api(path, req, res)
    // Not under a prefix that minigate proxies, so that no phone gets here.
    if (req.url === '/state') return json(res, 200, { news, online: Object.fromEntries(online), blocked: [...blocked] })
    if (req.method === 'POST' && req.url === '/block') {
      blocked.add(JSON.parse(await read(req, MAX_JSON)).user)
      return json(res, 200, {})
    }
    fail(404, 1404, 'no such route')
  }

  return (req, res) => {
    route(req, res).catch((err) => {
      if (res.headersSent || res.destroyed) return res.destroy()
      if (err instanceof Problem) return json(res, err.status, { error: { code: err.code, message: err.message } })
      if (err instanceof Refused) {
        console.error(`${req.url}: ${err.message}: ${err.reason}`)
        return json(res, 401, { error: { code: 1401, message: 'signature refused' } })
      }
      if (err instanceof SyntaxError) return json(res, 400, { error: { code: 1400, message: 'the body is not JSON' } })
      console.error(err) // minigate tries news again
      json(res, 500, { error: { code: 1500, message: 'something went wrong' } })
    })
  }
}

async function read(req, limit) {
  const chunks = []
  let size = 0
  for await (const chunk of req) {
    if ((size += chunk.length) > limit) throw new Problem(413, 1413, 'the body is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function json(res, status, value) {
  res.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8' }).end(JSON.stringify(value))
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { WEBHOOK_KEYS, JWKS_URL = 'http://127.0.0.1:9000/.well-known/jwks.json', HOST = '127.0.0.1', PORT = '3000', AUDIENCE = `${HOST}:${PORT}` } = process.env
  if (!WEBHOOK_KEYS) throw new Error('WEBHOOK_KEYS is missing: a JSON object of key ids and secrets, as in webhooks.keys')
  const server = createServer(createBackend({ keys: JSON.parse(WEBHOOK_KEYS), jwksUrl: JWKS_URL, audience: AUDIENCE }))
  server.requestTimeout = 0 // large bodies take their time; minigate has limits of its own
  server.listen(Number(PORT), HOST, () => console.log(`listening on http://${HOST}:${server.address().port}`))
  process.on('SIGTERM', () => server.close())
}
