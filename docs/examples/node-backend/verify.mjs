// What a backend behind minigate has to check itself: that a webhook was sent
// by its own minigate, that it was not handled before, and who is asking.
import { createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto'

/** Refused is a call that is not to be believed; reason is for the log. */
export class Refused extends Error {
  constructor(reason) {
    super('signature refused')
    this.reason = reason
  }
}

/**
 * verifyCall checks the signature of a webhook: an HMAC-SHA256 over
 * X-Minigate-Timestamp, a dot and the body as it was received. keys are all
 * that are valid now, by id, so that a new one can be added before minigate
 * uses it and the old one removed after. It throws Refused.
 */
export function verifyCall(headers, body, keys, now = Date.now() / 1000, window = 300) {
  const time = headers['x-minigate-timestamp'] ?? ''
  const secret = new Map(Object.entries(keys)).get(headers['x-minigate-key-id'])
  if (!/^\d{1,12}$/.test(time)) throw new Refused('no time')
  if (!secret) throw new Refused('unknown key id')
  const given = /(?:^|,)\s*v1=([0-9a-fA-F]{64})(?:,|$)/.exec(headers['x-minigate-signature'] ?? '')
  if (!given) throw new Refused('no signature of version 1')
  const want = createHmac('sha256', secret).update(time + '.').update(body).digest()
  if (!timingSafeEqual(Buffer.from(given[1], 'hex'), want)) throw new Refused('wrong signature')
  if (Math.abs(now - Number(time)) > window) throw new Refused('too old, or from the future')
}

/**
 * Once does things once per id. What succeeded is not done again, what fails
 * may be tried again, and a repeat that comes meanwhile waits for the first.
 * A real backend keeps the ids in its database, in the same transaction as
 * whatever they stand for: these are gone with the process.
 */
export class Once {
  #done = new Map() // id → result, or the promise of one; oldest first
  #most

  constructor(most = 100_000) {
    this.#most = most
  }

  async do(id, work) {
    if (this.#done.has(id)) return this.#done.get(id)
    const result = Promise.resolve().then(work)
    this.#done.set(id, result)
    if (this.#done.size > this.#most) this.#done.delete(this.#done.keys().next().value)
    try {
      return await result
    } catch (err) {
      this.#done.delete(id)
      throw err
    }
  }
}

/**
 * KeySet holds the public keys of minigate's ops listener. They are fetched
 * when a key id is met that is not known, at most every ten seconds, and again
 * when they are five minutes old. Old ones stay good while minigate is away.
 */
export class KeySet {
  #url
  #fetch
  #now
  #keys = new Map() // id → KeyObject
  #fetched = -Infinity
  #pending = null

  constructor(url, { fetch = globalThis.fetch, now = () => Date.now() / 1000 } = {}) {
    this.#url = url
    this.#fetch = fetch
    this.#now = now
  }

  async get(id) {
    const age = this.#now() - this.#fetched
    if (age > 300 || (!this.#keys.has(id) && age > 10)) {
      this.#pending ??= this.#load().finally(() => { this.#pending = null })
    }
    if (this.#pending) await this.#pending.catch((err) => { if (!this.#keys.has(id)) throw err })
    return this.#keys.get(id)
  }

  async #load() {
    this.#fetched = this.#now() // also where it fails: nobody is asked all the time
    const res = await this.#fetch(this.#url, { signal: AbortSignal.timeout(3000), redirect: 'error' })
    if (!res.ok) throw new Error(`the key set answers HTTP ${res.status}`)
    const keys = new Map()
    for (const jwk of (await res.json()).keys) {
      if (jwk.kty === 'EC' && jwk.crv === 'P-256' && jwk.kid) keys.set(jwk.kid, createPublicKey({ key: jwk, format: 'jwk' }))
    }
    this.#keys = keys
  }
}

/**
 * verifyToken checks a JSON Web Token of minigate's (ES256) and returns its
 * claims. type keeps one kind of token from being taken for another: 'JWT' for
 * what phones carry, 'minigate-identity+jwt' for X-Minigate-Identity. Whose it
 * is is left to the caller: compare sub. It throws Refused.
 */
export async function verifyToken(token, keySet, { type, audience, issuer = 'minigate', now = Date.now() / 1000 }) {
  const parts = String(token ?? '').split('.')
  if (parts.length !== 3 || token.length > 64 * 1024) throw new Refused('no token')
  const [header, claims] = parts.slice(0, 2).map(parse)
  if (header.alg !== 'ES256' || typeof header.kid !== 'string' || header.crit) throw new Refused('no token of ES256')
  if (header.typ !== type) throw new Refused('a token for something else')
  const key = await keySet.get(header.kid)
  if (!key) throw new Refused('unknown key id')
  const signature = Buffer.from(parts[2], 'base64url')
  const signed = Buffer.from(parts[0] + '.' + parts[1])
  if (!verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signature)) throw new Refused('wrong signature')
  if (!(claims.exp > now)) throw new Refused('expired') // one without an end is none
  if (claims.nbf > now + 60) throw new Refused('not valid yet')
  if (claims.iss !== issuer) throw new Refused('another issuer')
  if (claims.aud !== audience) throw new Refused('for somebody else')
  return claims
}

function parse(part) {
  try {
    const value = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'))
    if (value && typeof value === 'object') return value
  } catch {
    // told below
  }
  throw new Refused('no token')
}
