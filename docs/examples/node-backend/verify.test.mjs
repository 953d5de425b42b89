import assert from 'node:assert/strict'
import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import test from 'node:test'
import { KeySet, Once, Refused, verifyCall, verifyToken } from './verify.mjs'

const keys = { a: 'first-signing-secret', b: 'second-signing-secret' }
const now = 1700000000
const body = Buffer.from('{"a":1}')

function signed(secret = keys.a, time = now, bytes = body) {
  return {
    'x-minigate-timestamp': String(time), 'x-minigate-key-id': 'a',
    'x-minigate-signature': 'v1=' + createHmac('sha256', secret).update(time + '.').update(bytes).digest('hex'),
  }
}

const refused = (reason) => (err) => err instanceof Refused && err.reason === reason

test('verifyCall takes what is signed', () => {
  // openssl: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac first-signing-secret
  assert.equal(signed()['x-minigate-signature'], 'v1=a0cd8314c35fc1b90bf4a137d0ce8f1c10840fb0de4c097d1e0accc56ffce0d8')
  verifyCall(signed(), body, keys, now)
  verifyCall(signed(), body, keys, now + 300)
  verifyCall(signed(), body, keys, now - 300)
  verifyCall({ ...signed(keys.b), 'x-minigate-key-id': 'b' }, body, keys, now)
  const list = signed()
  list['x-minigate-signature'] = 'v2=zz, ' + list['x-minigate-signature'].toUpperCase().replace('V1', 'v1')
  verifyCall(list, body, keys, now)
})

test('verifyCall refuses everything else', () => {
  const change = (name, value) => ({ ...signed(), [name]: value })
  const s = signed()['x-minigate-signature']
  for (const [reason, headers, bytes = body, at = now, known = keys] of [
    ['too old, or from the future', signed(), body, now + 301],
    ['too old, or from the future', signed(), body, now - 301],
    ['wrong signature', signed(), Buffer.from('{"a":2}')],
    ['wrong signature', signed(keys.b)],
    ['wrong signature', change('x-minigate-timestamp', String(now + 1))],
    ['wrong signature', change('x-minigate-key-id', 'b')],
    ['wrong signature', change('x-minigate-signature', s.slice(0, -1) + (s.endsWith('0') ? '1' : '0'))],
    ['wrong signature', change('x-minigate-timestamp', '170000000'), Buffer.from('0.{"a":1}')],
    ['unknown key id', change('x-minigate-key-id', 'c')],
    ['unknown key id', change('x-minigate-key-id', 'constructor')],
    ['unknown key id', change('x-minigate-key-id', undefined)],
    ['unknown key id', signed(), body, now, {}],
    ['no time', change('x-minigate-timestamp', undefined)],
    ['no time', change('x-minigate-timestamp', '+1700000000')],
    ['no time', change('x-minigate-timestamp', '1700000000, 1700000000')],
    ['no signature of version 1', change('x-minigate-signature', undefined)],
    ['no signature of version 1', change('x-minigate-signature', s.slice(0, -2))],
    ['no signature of version 1', change('x-minigate-signature', 'v2' + s.slice(2))],
  ]) {
    assert.throws(() => verifyCall(headers, bytes, known, at), refused(reason), reason)
  }
})

test('Once does a thing once', async () => {
  const once = new Once()
  let calls = 0
  const work = async () => ++calls
  assert.deepEqual(await Promise.all([once.do('x', work), once.do('x', work)]), [1, 1])
  assert.equal(await once.do('x', work), 1)
  assert.equal(await once.do('y', work), 2)
})

test('Once lets what failed be tried again', async () => {
  const once = new Once()
  await assert.rejects(once.do('x', () => { throw new Error('away') }), /away/)
  assert.equal(await once.do('x', () => 'done'), 'done')
})

test('Once forgets the oldest', async () => {
  const once = new Once(2)
  for (const id of ['x', 'y', 'z']) await once.do(id, () => id)
  assert.equal(await once.do('z', () => 'again'), 'z')
  assert.equal(await once.do('x', () => 'again'), 'again')
})

function issuer(kid = 'k1') {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid, alg: 'ES256', use: 'sig' }
  const token = (claims, header = {}) => {
    const text = [{ alg: 'ES256', kid, typ: 'JWT', ...header }, claims].map((v) => Buffer.from(JSON.stringify(v)).toString('base64url')).join('.')
    return text + '.' + sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')
  }
  return { jwk, token }
}

function server(...issuers) {
  const s = { fetches: 0, away: false, keys: issuers.map((i) => i.jwk) }
  s.fetch = async () => {
    s.fetches++
    if (s.away) throw new Error('away')
    return { ok: true, json: async () => ({ keys: s.keys }) }
  }
  return s
}

const good = { iss: 'minigate', aud: 'me', sub: 'oAlice', exp: now + 60 }
const wanted = { type: 'JWT', audience: 'me', now }

test('verifyToken takes what is signed', async () => {
  const i = issuer()
  const set = new KeySet('http://x', server(i))
  assert.deepEqual(await verifyToken(i.token(good), set, wanted), good)
})

test('verifyToken refuses everything else', async () => {
  const i = issuer()
  const other = issuer()
  const set = new KeySet('http://x', server(i))
  const t = i.token(good)
  for (const [reason, token] of [
    ['no token', undefined], ['no token', ''], ['no token', 'a.b'], ['no token', 'a.b.c'], ['no token', 'bnVsbA.bnVsbA.x'],
    ['no token of ES256', i.token(good, { alg: 'none' })],
    ['no token of ES256', i.token(good, { alg: 'HS256' })],
    ['no token of ES256', i.token(good, { crit: ['x'] })],
    ['unknown key id', i.token(good, { kid: 'other' })],
    ['wrong signature', other.token(good)],
    ['wrong signature', t.slice(0, -4) + 'AAAA'],
    ['wrong signature', t.split('.').slice(0, 2).join('.') + '.'],
    ['expired', i.token({ ...good, exp: now })],
    ['expired', i.token({ ...good, exp: undefined })],
    ['not valid yet', i.token({ ...good, nbf: now + 61 })],
    ['another issuer', i.token({ ...good, iss: 'evil' })],
    ['for somebody else', i.token({ ...good, aud: 'you' })],
    ['for somebody else', i.token({ ...good, aud: undefined })],
    ['a token for something else', i.token(good, { typ: 'minigate-identity+jwt' })],
    ['a token for something else', i.token(good, { typ: undefined })],
  ]) {
    await assert.rejects(verifyToken(token, set, wanted), refused(reason), `${reason}: ${token}`)
  }
})

test('KeySet fetches when it must, and no more', async () => {
  const a = issuer('a')
  const b = issuer('b')
  const s = server(a)
  let clock = 1000
  const set = new KeySet('http://x', { fetch: s.fetch, now: () => clock })
  await Promise.all([set.get('a'), set.get('a'), set.get('b')])
  assert.equal(s.fetches, 1)
  assert.equal(await set.get('b'), undefined)
  assert.equal(s.fetches, 1, 'an unknown key is asked for every ten seconds at most')
  s.keys.push(b.jwk)
  clock += 11
  assert.ok(await set.get('b'))
  assert.equal(s.fetches, 2)
  s.away = true
  clock += 301
  assert.ok(await set.get('a'), 'known keys stay good while the server is away')
  await assert.rejects(async () => { clock += 11; await set.get('c') }, /away/)
})
