// Connecting, tokens, and their refresh.
import assert from 'node:assert/strict';
import { UnauthorizedError } from 'centrifuge';
import { api, unique } from '../lib/env.mjs';
import { connected, jwt, next, now, person } from '../lib/lab.mjs';

export default async function (step) {
  await step('with a token', async () => {
    const client = person();
    const hello = next(client, 'connected');
    client.connect();
    const { client: id, transport } = await hello;
    assert.match(id, /^[0-9a-f-]{36}$/);
    assert.equal(transport, 'websocket');
    client.disconnect();
  });

  await step('without a user', async () => {
    const anonymous = person('nobody', { token: jwt({}) });
    await anonymous.ready2();
    const sub = await anonymous.join(`room:${unique('anon')}`);
    const { clients } = await sub.presence();
    assert.deepEqual(Object.values(clients).map((c) => c.user ?? ''), ['']);
    assert.equal((await sub.presenceStats()).numUsers, 1);
    anonymous.disconnect();
  });

  await step('an expired token is replaced by getToken', async () => {
    const tokens = [jwt({ sub: 'x', exp: now() - 1 }), jwt({ sub: 'x' })];
    const client = person('x', { getToken: async () => tokens.shift() });
    await client.ready2();
    assert.equal(tokens.length, 0);
    client.disconnect();
  });

  await step('an expired token and no getToken: for good, code 1', async () => {
    const client = person('x', { token: jwt({ sub: 'x', exp: now() - 1 }) });
    const gone = next(client, 'disconnected');
    client.connect();
    assert.equal((await gone).code, 1);
  });

  await step('a forged token: for good, 3500', async () => {
    const client = person('x', { token: `${jwt({ sub: 'x' })}x` });
    const gone = next(client, 'disconnected');
    client.connect();
    assert.deepEqual((({ code, reason }) => ({ code, reason }))(await gone), { code: 3500, reason: 'invalid token' });
  });

  await step('refresh keeps the connection', async () => {
    let asked = 0;
    let twice;
    const refreshed = new Promise((resolve) => (twice = resolve));
    const user = unique('refresh');
    const client = person('refresh', {
      getToken: async () => {
        if (++asked === 3) twice();
        return jwt({ sub: user, exp: now() + 2 });
      },
    });
    await client.ready2();
    let interrupted = false;
    client.on('connecting', () => (interrupted = true));
    await refreshed;
    await client.history('room:none', { limit: 1 }); // in order: after the refresh
    assert.equal(interrupted, false);
    client.disconnect();
  });

  await step('refresh with an expired token: 3005, and connected anew with a good one', async () => {
    const user = unique('late');
    const tokens = [now() + 1, now() - 1, now() + 600].map((exp) => jwt({ sub: user, exp }));
    const client = person('late', { getToken: async () => tokens.shift() });
    await client.ready2();
    const { code } = await next(client, 'connecting');
    assert.equal(code, 3005);
    await next(client, 'connected');
    client.disconnect();
  });

  await step("refresh with another user's token: for good, 3500", async () => {
    const tokens = [jwt({ sub: unique('a'), exp: now() + 4 }), jwt({ sub: unique('b'), exp: now() + 600 })];
    const client = person('a', { getToken: async () => tokens.shift() });
    await client.ready2();
    assert.equal((await next(client, 'disconnected')).code, 3500);
  });

  await step('getToken says unauthorized: for good, code 1', async () => {
    let first = true;
    const client = person('a', {
      getToken: async () => {
        if (!first) throw new UnauthorizedError();
        first = false;
        return jwt({ sub: unique('a'), exp: now() + 4 });
      },
    });
    await client.ready2();
    assert.equal((await next(client, 'disconnected')).code, 1);
  });

  await step('connect and disconnect at once, again and again, leave nothing behind', async () => {
    const client = person('hasty');
    for (let i = 0; i < 30; i++) {
      client.connect();
      if (i % 3 === 0) await Promise.race([client.ready(), new Promise(setImmediate)]).catch(() => {});
      client.disconnect();
    }
    await client.ready2();
    // What is pushed is heard once, and by no connection that it left behind.
    const said = unique('said');
    const heard = next(client, 'publication', ({ data }) => data === said);
    let sockets;
    do {
      const { users } = await api('push', { users: [client.user], data: said });
      sockets = users[client.user].sockets;
    } while (sockets !== 1);
    await heard;
    client.disconnect();
  });

  await step('who is connected is known to the backend', async () => {
    const client = await connected('known', { claims: { info: { name: 'Ann' } } });
    const sub = await client.join(`room:${unique('known')}`);
    const { presence } = await api('presence', { channel: sub.channel });
    assert.deepEqual(Object.values(presence).map(({ user, conn_info }) => ({ user, conn_info })), [
      { user: client.user, conn_info: { name: 'Ann' } },
    ]);
    client.disconnect();
  });
}
