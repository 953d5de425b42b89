// The stock centrifuge SDK over ws, nothing of ours in between.
import assert from 'node:assert/strict';
import { Centrifuge } from 'centrifuge';
import { once } from 'node:events';
import WebSocket from 'ws';
import { api, login, unique, wsUrl } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';

const room = `room:${unique('e2e')}`;
const feed = `feed:${unique('e2e')}`;
const alice = await step('login of two users', () => person('alice'));
const bob = await person('bob');

await step('connect with the login token', () => Promise.all([alice.connect(), bob.connect()]));

await step('a push for one user reaches that user only', async () => {
  const got = alice.next();
  const other = bob.next();
  await api('push', { users: [alice.openid], data: { for: 'alice' } });
  await api('push', { users: [bob.openid], data: { for: 'bob' } });
  assert.deepEqual(await got, { for: 'alice' });
  assert.deepEqual(await other, { for: 'bob' });
});

const [subA, subB] = await step('subscribe: the others are told who joins', async () => {
  const a = alice.subscribe(room);
  await a.ready(10_000);
  const joined = nextWhere(a, 'join', ({ info }) => info.user === bob.openid);
  const b = bob.subscribe(room);
  await Promise.all([b.ready(10_000), joined]);
  return [a, b];
});

await step('publish: everybody gets everything in order, with who said it', async () => {
  const atA = collect(subA, 20);
  const atB = collect(subB, 20);
  for (let i = 0; i < 20; i++) await subB.publish({ i });
  const numbers = Array.from({ length: 20 }, (_, i) => i);
  for (const heard of await Promise.all([atA, atB])) {
    assert.deepEqual(heard.map((p) => p.data.i), numbers);
    assert.ok(heard.every((p) => p.info.user === bob.openid));
  }
});

await step('presence and its numbers', async () => {
  const { clients } = await subA.presence();
  assert.deepEqual(Object.values(clients).map((c) => c.user).sort(), [alice.openid, bob.openid].sort());
  assert.deepEqual(pick(await subA.presenceStats(), 'numClients', 'numUsers'), { numClients: 2, numUsers: 2 });
});

await step('history, newest first', async () => {
  const { publications, offset } = await subA.history({ limit: 3, reverse: true });
  assert.deepEqual(publications.map((p) => p.data.i), [19, 18, 17]);
  assert.equal(publications[0].offset, offset);
});

await step('a kick with a reconnect code: what was missed is recovered', () =>
  missAndRecover(3, () => api('disconnect', { user: alice.openid, disconnect: { code: 3011, reason: 'force reconnect' } })));

await step('a lost connection: what was missed is recovered', () => missAndRecover(5, () => alice.cut()));

await step('feed: the server publishes, clients may not', async () => {
  const sub = alice.subscribe(feed);
  await sub.ready(10_000);
  await assert.rejects(sub.publish({ mine: true }), { code: 103 });
  const heard = once(sub, 'publication');
  await api('publish', { channel: feed, data: { news: 1 } });
  assert.deepEqual((await heard)[0].data, { news: 1 });
});

await step('a namespace that does not exist is refused with 102', async () => {
  const sub = alice.centrifuge.newSubscription(`nowhere:${unique('x')}`);
  const refused = once(sub, 'unsubscribed');
  sub.subscribe();
  assert.equal((await refused)[0].code, 102);
});

await step('unsubscribe: the others are told, presence counts down', async () => {
  const left = nextWhere(subA, 'leave', ({ info }) => info.user === bob.openid);
  subB.unsubscribe();
  await left;
  assert.equal((await subA.presenceStats()).numClients, 1);
});

await step('a kick without a code is for good', async () => {
  const gone = once(bob.centrifuge, 'disconnected');
  await api('disconnect', { user: bob.openid });
  assert.equal((await gone)[0].code, 3503);
});

await step('a token nobody was given is refused for good', async () => {
  const stranger = new Centrifuge(wsUrl, { websocket: WebSocket, token: 'not-a-token' });
  const gone = once(stranger, 'disconnected');
  stranger.connect();
  assert.equal((await gone)[0].code, 3500);
});

alice.centrifuge.disconnect();
done();

/** A logged-in user with one connection that can be cut and held. */
async function person(name) {
  const { token, user } = await login(unique(name));
  let socket;
  class Cuttable extends WebSocket {
    constructor(url) {
      super(url);
      socket = this;
    }
  }
  const self = {
    openid: user.openid,
    hold: Promise.resolve(),
    cut: () => socket.terminate(),
    subscribe(channel) {
      const sub = self.centrifuge.newSubscription(channel);
      sub.subscribe();
      return sub;
    },
    async connect() {
      self.centrifuge.connect();
      await self.centrifuge.ready(10_000);
    },
    /** What is pushed to the user, whichever way the server sends it. */
    next: () =>
      Promise.race([once(self.centrifuge, 'publication'), once(self.centrifuge, 'message')]).then(([ctx]) => ctx.data),
    centrifuge: new Centrifuge(wsUrl, {
      websocket: Cuttable,
      token,
      minReconnectDelay: 10,
      // Asked before every attempt: holds a reconnect back until released.
      getData: () => self.hold.then(() => ({})),
    }),
  };
  return self;
}

/** Takes alice away, publishes n messages, lets her come back. */
async function missAndRecover(n, away) {
  let release;
  alice.hold = new Promise((resolve) => (release = resolve));
  const connecting = once(alice.centrifuge, 'connecting');
  const heard = collect(subA, n + 1);
  await away();
  await connecting;
  const nonce = unique('missed');
  for (let i = 0; i < n; i++) await api('publish', { channel: room, data: { nonce, i } });
  const subscribed = once(subA, 'subscribed');
  release();
  const [ctx] = await subscribed;
  assert.deepEqual(pick(ctx, 'wasRecovering', 'recovered'), { wasRecovering: true, recovered: true });
  await api('publish', { channel: room, data: { nonce, i: n } });
  assert.deepEqual((await heard).map((p) => p.data), Array.from({ length: n + 1 }, (_, i) => ({ nonce, i })));
}

function collect(sub, n) {
  return new Promise((resolve) => {
    const heard = [];
    const listener = (ctx) => {
      heard.push(ctx);
      if (heard.length < n) return;
      sub.off('publication', listener);
      resolve(heard);
    };
    sub.on('publication', listener);
  });
}

function nextWhere(emitter, event, fits) {
  return new Promise((resolve) => {
    const listener = (ctx) => {
      if (!fits(ctx)) return;
      emitter.off(event, listener);
      resolve(ctx);
    };
    emitter.on(event, listener);
  });
}

function pick(object, ...keys) {
  return Object.fromEntries(keys.map((key) => [key, object[key]]));
}
