import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import test from 'node:test'
import { createBackend } from './server.mjs'

const secret = 'a-webhook-secret-for-tests'

async function start(t) {
  const server = createServer(createBackend({ keys: { k: secret }, jwksUrl: 'http://127.0.0.1:1/' }))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close().closeAllConnections())
  const url = `http://127.0.0.1:${server.address().port}`
  const send = async (path, body, headers, method = 'POST') => {
    const res = await fetch(url + path, { method, body, headers })
    const text = await res.text()
    return { status: res.status, body: text && JSON.parse(text) }
  }
  return {
    send,
    hook(name, told) {
      const body = JSON.stringify(told)
      const time = String(Math.floor(Date.now() / 1000))
      return send('/minigate/' + name, body, {
        'x-minigate-timestamp': time, 'x-minigate-key-id': 'k',
        'x-minigate-signature': 'v1=' + createHmac('sha256', secret).update(`${time}.${body}`).digest('hex'),
      })
    },
    state: async () => (await send('/state', undefined, {}, 'GET')).body,
  }
}

test('webhooks that are not signed are refused', async (t) => {
  const b = await start(t)
  for (const name of ['login', 'connect', 'user_status', 'nosuch']) {
    assert.equal((await b.send('/minigate/' + name, '{"delivery":"x","events":[]}', {})).status, 401)
  }
  assert.equal((await b.hook('nosuch', {})).status, 404)
})

test('the six questions', async (t) => {
  const b = await start(t)
  const ask = async (name, q) => (await b.hook(name, q)).body
  assert.equal((await ask('connect', { client: 'c', data: { guest: 'eve' }, channels: ['room:lobby', 'other'] })).result.user, 'guest-eve')
  assert.deepEqual((await ask('connect', { client: 'c', data: { guest: 'eve' }, channels: ['room:lobby', 'other'] })).result.channels, ['room:lobby'])
  assert.equal((await ask('connect', { client: 'c' })).disconnect.code, 4501)
  assert.equal((await ask('connect', { client: 'c', user: 'o1', login: { appid: 'wx', claims: { level: 'gold' } } })).result.info.level, 'gold')
  assert.ok((await ask('refresh', { user: 'o1' })).result.expire_at > Date.now() / 1000)
  assert.ok((await ask('subscribe', { user: 'o1', channel: 'room:lobby' })).result)
  assert.equal((await ask('subscribe', { user: 'o1', channel: 'order:1' })).error.code, 103)
  assert.equal((await ask('publish', { user: 'o1', channel: 'room:lobby', data: { text: ' hi ' } })).result.data.text, 'hi')
  assert.equal((await ask('publish', { user: 'o1', channel: 'room:lobby', data: 'hi' })).error.code, 1001)

  const order = (await ask('rpc', { user: 'o1', method: 'orders/create', data: { item: 'tea' } })).result.data
  assert.equal(order.count, 1)
  assert.ok((await ask('subscribe', { user: 'o1', channel: 'order:' + order.id })).result)
  assert.equal((await ask('subscribe', { user: 'o2', channel: 'order:' + order.id })).error.code, 103)
  assert.ok((await ask('sub_refresh', { user: 'o1', channel: 'order:' + order.id })).result.expire_at)
  assert.equal((await ask('rpc', { user: 'o1', method: 'orders/create', data: {} })).error.code, 1400)
  assert.equal((await ask('rpc', { user: 'o1', method: 'shop:orders/show', data: { id: order.id } })).result.data.item, 'tea')
  for (const method of ['nosuch', 'constructor', '__proto__', 'shop:']) {
    assert.equal((await ask('rpc', { user: 'o1', method })).error.code, 104)
  }

  await b.send('/block', '{"user":"o1"}')
  assert.equal((await ask('login', { user: { openid: 'o1' } })).allow, false)
  assert.equal((await ask('login', { user: { openid: 'o2' } })).claims.level, 'gold')
  assert.equal((await ask('refresh', { user: 'o1' })).result.expired, true)
  assert.equal((await ask('sub_refresh', { user: 'o1', channel: 'order:' + order.id })).result.expired, true)
})

test('uploads are asked about', async (t) => {
  const b = await start(t)
  assert.equal((await b.hook('upload', { file: { name: 'a.EXE' } })).body.allow, false)
  assert.deepEqual((await b.hook('upload', { file: { name: 'a.jpg' } })).body, { allow: true, attributes: { album: 'inbox' } })
})

test('news are handled once, and status by its number', async (t) => {
  const b = await start(t)
  for (const delivery of ['d1', 'd1', 'd2']) {
    assert.equal((await b.hook('files', { event: 'file_ready', delivery })).status, 204)
  }
  assert.deepEqual((await b.state()).news.map((n) => n.delivery), ['d1', 'd2'])
  const event = (user, status, seq) => ({ user, status, seq, at: 1 })
  await b.hook('user_status', { event: 'user_status', delivery: 'd3', events: [event('o1', 'offline', 7), event('o2', 'online', 1)] })
  await b.hook('user_status', { event: 'user_status', delivery: 'd4', events: [event('o1', 'online', 6)] })
  const { online } = await b.state()
  assert.deepEqual([online.o1.status, online.o2.status], ['offline', 'online'])
})

test('phones', async (t) => {
  const b = await start(t)
  const me = { 'x-wx-openid': 'o1' }
  assert.equal((await b.send('/api/whoami', undefined, {}, 'GET')).status, 401)
  assert.equal((await b.send('/api/whoami', undefined, { ...me, 'x-minigate-identity': 'a.b.c' }, 'GET')).status, 401)
  assert.equal((await b.send('/api/orders', '{', me)).status, 400)
  assert.equal((await b.send('/api/orders', JSON.stringify({ item: 'x'.repeat(1 << 20) }), me)).status, 413)
  assert.equal((await b.send('/api/nosuch', undefined, me, 'GET')).status, 404)
})
