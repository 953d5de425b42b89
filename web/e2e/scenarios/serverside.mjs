// Subscriptions that the server makes: personal channels and those of tokens.
import assert from 'node:assert/strict';
import { api, unique } from '../lib/env.mjs';
import { collect, connected, jwt, next, numbers, person, pick, publish } from '../lib/lab.mjs';

export default async function (step) {
  await step('the personal channel and those of the token', async () => {
    const channel = `locked:${unique('srv')}`;
    const client = person('srv', { claims: { subs: { [channel]: { data: { welcome: 1 } } } } });
    const told = collect(client, 2, 'subscribed');
    client.connect();
    const subs = Object.fromEntries((await told).map((ctx) => [ctx.channel, ctx]));
    assert.deepEqual(Object.keys(subs).sort(), [`#${client.user}`, channel].sort());
    assert.deepEqual(subs[channel].data, { welcome: 1 });
    const heard = collect(client, 2);
    await api('push', { users: [client.user], data: 'personal' });
    await publish(channel, 'token');
    assert.deepEqual((await heard).map(({ channel, data }) => ({ channel, data })), [
      { channel: `#${client.user}`, data: 'personal' },
      { channel, data: 'token' },
    ]);
    client.disconnect();
  });

  await step('what was missed comes back through connect', async () => {
    const client = await connected('srv');
    const first = next(client, 'publication');
    await api('push', { users: [client.user], data: 0 });
    await first;
    const heard = collect(client, 4);
    const subscribed = next(client, 'subscribed');
    await client.gone(client.cut, async () => {
      for (const i of [1, 2, 3]) await api('push', { users: [client.user], data: i });
    });
    assert.deepEqual(pick(await subscribed, 'wasRecovering', 'recovered'), { wasRecovering: true, recovered: true });
    await api('push', { users: [client.user], data: 4 });
    assert.deepEqual((await heard).map((p) => p.data), [1, 2, 3, 4]);
    client.disconnect();
  });

  await step('what is lost is said to be lost', async () => {
    const channel = `smallhistory:${unique('srv')}`;
    const client = await connected('srv', { claims: { channels: [channel] } });
    const heard = [];
    client.on('publication', (p) => heard.push(p.data));
    const subscribed = next(client, 'subscribed', (ctx) => ctx.channel === channel);
    await client.gone(client.cut, async () => {
      for (const i of numbers(1, 5)) await publish(channel, i);
    });
    assert.deepEqual(pick(await subscribed, 'wasRecovering', 'recovered'), { wasRecovering: true, recovered: false });
    const last = next(client, 'publication');
    await publish(channel, 6);
    await last;
    assert.deepEqual(heard, [6]);
    client.disconnect();
  });

  await step('a channel that the next token does not name: gone, unless clients may have it', async () => {
    const [a, b, c, user] = [`locked:${unique('a')}`, `locked:${unique('b')}`, `room:${unique('c')}`, unique('srv')];
    const tokens = [[a, b, c], [b]].map((channels) => jwt({ sub: user, channels }));
    const client = person('srv', { getToken: async () => tokens.shift() });
    await client.ready2();
    const gone = next(client, 'unsubscribed');
    // On 3014 the SDK asks for another token.
    await client.gone(() => api('disconnect', { user, disconnect: { code: 3014, reason: 'state invalidated' } }));
    assert.equal((await gone).channel, a);
    const heard = collect(client, 2);
    for (const channel of [a, b, c]) await publish(channel, channel);
    assert.deepEqual((await heard).map((p) => p.channel), [b, c]);
    client.disconnect();
  });

  await step('the backend ends one', async () => {
    const channel = `room:${unique('srv')}`;
    const client = await connected('srv', { claims: { channels: [channel] } });
    const gone = next(client, 'unsubscribed');
    await api('unsubscribe', { user: client.user, channel });
    assert.equal((await gone).channel, channel);
    assert.equal(client.state, 'connected');
    client.disconnect();
  });

  await step('join and leave arrive at the client', async () => {
    const channel = `room:${unique('srv')}`;
    const client = await connected('srv', { claims: { channels: [channel] } });
    const joined = next(client, 'join', (ctx) => ctx.info.user !== client.user);
    const left = next(client, 'leave');
    const guest = await connected('guest');
    const sub = await guest.join(channel);
    assert.equal((await joined).info.user, guest.user);
    sub.unsubscribe();
    assert.equal((await left).info.user, guest.user);
    guest.disconnect();
    client.disconnect();
  });

  await step('a message to all belongs to no channel', async () => {
    const client = await connected('srv');
    const said = unique('all');
    const heard = next(client, 'message', ({ data }) => data?.said === said);
    await api('push', { all: true, data: { said } });
    await heard;
    client.disconnect();
  });
}
