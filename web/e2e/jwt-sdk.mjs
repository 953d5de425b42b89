// The stock centrifuge SDK with tokens that a backend signs: HS256 for
// connections, ES256 with a published key set for subscriptions.
//   JWT_SECRET   of connection tokens
//   JWT_KEY      PEM private key of subscription tokens; its kid is "sub"
import assert from 'node:assert/strict';
import { Centrifuge, UnauthorizedError } from 'centrifuge';
import { createHmac, sign } from 'node:crypto';
import WebSocket from 'ws';
import { api, unique, wsUrl } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';

const { JWT_SECRET, JWT_KEY } = process.env;
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const now = () => Math.floor(Date.now() / 1000);

function jwt(header, claims, signature) {
  const text = `${encode({ typ: 'JWT', ...header })}.${encode(claims)}`;
  return `${text}.${signature(text).toString('base64url')}`;
}
const connectToken = (claims) =>
  jwt({ alg: 'HS256' }, claims, (text) => createHmac('sha256', JWT_SECRET).update(text).digest());
const subscribeToken = (claims) =>
  jwt({ alg: 'ES256', kid: 'sub' }, claims, (text) => sign('sha256', Buffer.from(text), { key: JWT_KEY, dsaEncoding: 'ieee-p1363' }));

const user = unique('ann');
const secret = `$room:${unique('jwt')}`;
const news = `feed:${unique('news')}`;

/** Hands out tokens in turn, the last one again and again, and counts them. */
function source(...tokens) {
  const asked = { count: 0, waiting: [] };
  return {
    get: async () => {
      const token = tokens[Math.min(asked.count++, tokens.length - 1)]();
      asked.waiting = asked.waiting.filter(({ n, resolve }) => asked.count < n || resolve());
      return token;
    },
    /** Resolves once n tokens were asked for. */
    asked: (n) => new Promise((resolve) => (asked.count >= n ? resolve() : asked.waiting.push({ n, resolve }))),
  };
}

const claims = (more) => ({ sub: user, info: { name: 'Ann' }, subs: { [news]: { data: { hello: 1 } } }, ...more });
const tokens = source(
  () => connectToken(claims({ exp: now() - 1 })), // answered with 109: the SDK asks for another
  () => connectToken(claims({ exp: now() + 2 })),
  () => connectToken(claims({ exp: now() + 600 })),
);
const ann = client({ getToken: tokens.get });

await step('an expired token is replaced, then the connection is made', async () => {
  const heard = next(ann, 'subscribed', ({ channel }) => channel === news);
  ann.connect();
  await ann.ready(10_000);
  assert.deepEqual((await heard).data, { hello: 1 });
});

await step('a push for the user of the token arrives', async () => {
  const got = next(ann, 'publication');
  await api('push', { users: [user], data: { for: user } });
  assert.deepEqual((await got).data, { for: user });
});

await step('the connection is refreshed before its token expires', async () => {
  await tokens.asked(3);
  await ann.rpc('x').catch((error) => assert.equal(error.code, 108)); // after the refresh, in order
  assert.equal(ann.state, 'connected');
});

const subTokens = source(
  () => subscribeToken({ sub: user, channel: secret, exp: now() - 1 }),
  () => subscribeToken({ sub: user, channel: secret, exp: now() + 2, info: { role: 'host' } }),
  () => subscribeToken({ sub: user, channel: secret, exp: now() + 600 }),
);

const sub = await step('a private channel takes a subscription token, a new one after 109', async () => {
  const sub = ann.newSubscription(secret, { getToken: subTokens.get });
  sub.subscribe();
  await sub.ready(10_000);
  const { clients } = await sub.presence();
  assert.deepEqual(Object.values(clients).map(({ user, connInfo, chanInfo }) => ({ user, connInfo, chanInfo })), [
    { user, connInfo: { name: 'Ann' }, chanInfo: { role: 'host' } },
  ]);
  return sub;
});

await step('the subscription is refreshed before its token expires', async () => {
  await subTokens.asked(3);
  const heard = next(sub, 'publication');
  await sub.publish({ i: 1 });
  const { info, data } = await heard;
  assert.deepEqual({ data, user: info.user }, { data: { i: 1 }, user });
  assert.equal(sub.state, 'subscribed');
});

await step('nobody else gets in: 103 without a token', async () => {
  const other = ann.newSubscription(`${secret}-other`);
  const gone = next(other, 'unsubscribed');
  other.subscribe();
  assert.equal((await gone).code, 103);
});

await step("another user's subscription token ends the connection for good", async () => {
  const gone = next(ann, 'disconnected');
  ann.newSubscription(`${secret}-foreign`, { token: subscribeToken({ sub: 'bob', channel: `${secret}-foreign` }) }).subscribe();
  assert.equal((await gone).code, 3500);
});

await step('a token of another secret is refused for good', async () => {
  const forged = jwt({ alg: 'HS256' }, { sub: user }, (text) => createHmac('sha256', `${JWT_SECRET}?`).update(text).digest());
  const stranger = client({ token: forged });
  const gone = next(stranger, 'disconnected');
  stranger.connect();
  assert.equal((await gone).code, 3500);
});

await step('a backend that refuses a refresh logs its user out', async () => {
  let first = true;
  const leaving = client({
    getToken: async () => {
      if (!first) throw new UnauthorizedError();
      first = false;
      return connectToken({ sub: unique('cas'), exp: now() + 1 });
    },
  });
  const gone = next(leaving, 'disconnected');
  leaving.connect();
  assert.equal((await gone).code, 1);
});

done();

/** Unlike events.once it does not fail on 'error', which a 109 causes too. */
function next(emitter, event, fits = () => true) {
  return new Promise((resolve) => {
    const listener = (ctx) => {
      if (!fits(ctx)) return;
      emitter.off(event, listener);
      resolve(ctx);
    };
    emitter.on(event, listener);
  });
}

function client(options) {
  return new Centrifuge(wsUrl, { websocket: WebSocket, minReconnectDelay: 10, ...options });
}
