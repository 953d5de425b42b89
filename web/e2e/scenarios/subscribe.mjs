// Subscribing: loops, tokens, limits, rights, publishing.
import assert from 'node:assert/strict';
import { unique } from '../lib/env.mjs';
import { collect, connected, jwt, next, now, numbers, person, publish } from '../lib/lab.mjs';

const refused = async (client, channel, options) => {
  const sub = client.sub(channel, options);
  const gone = next(sub, 'unsubscribed');
  sub.subscribe();
  const { code } = await gone;
  client.removeSubscription(sub);
  return code;
};

export default async function (step) {
  const ann = await connected('ann');

  await step('subscribe and unsubscribe 50 times in one connection: no 105 leaks', async () => {
    const sub = ann.sub(`room:${unique('loop')}`);
    for (let i = 0; i < 50; i++) {
      sub.subscribe();
      if (i % 2) await sub.ready(5_000);
      sub.unsubscribe();
    }
    const subscribed = next(sub, 'subscribed');
    sub.subscribe();
    await subscribed;
    assert.equal((await sub.presenceStats()).numClients, 1);
    sub.unsubscribe();
    assert.equal(ann.state, 'connected');
  });

  await step('unsubscribe before connected, subscribe right after', async () => {
    const client = person('early');
    const sub = client.sub(`room:${unique('early')}`);
    client.connect();
    sub.subscribe();
    sub.unsubscribe();
    sub.subscribe();
    await sub.ready(10_000);
    client.disconnect();
  });

  await step('eight subscriptions with tokens at once', async () => {
    const subs = numbers(1, 8).map(() => {
      const channel = `$room:${unique('token')}`;
      return ann.sub(channel, { getToken: async () => jwt({ sub: ann.user, channel }) });
    });
    subs.forEach((sub) => sub.subscribe());
    await Promise.all(subs.map((sub) => sub.ready(10_000)));
    subs.forEach((sub) => { sub.unsubscribe(); ann.removeSubscription(sub); });
  });

  await step('refusals: 102 unknown, 103 not allowed, 105 twice, 107 no name', async () => {
    assert.equal(await refused(ann, `nowhere:${unique('x')}`), 102);
    assert.equal(await refused(ann, `locked:${unique('x')}`), 103);
    assert.equal(await refused(ann, `$room:${unique('x')}`), 103);
    assert.equal(await refused(ann, `dialog:${unique('x')}#somebody`), 103);
    assert.equal(await refused(ann, `#${ann.user}`), 105); // it is subscribed to by the server
    assert.equal(await refused(ann, `room:${unique('ü')}`), 107);
    assert.equal(await refused(ann, `room:${'x'.repeat(300)}`), 107);
  });

  await step('106 beyond the limit of channels; room again after one left', async () => {
    const client = await connected('many');
    const subs = [];
    for (const i of numbers(1, 15)) subs.push(await client.join(`room:${unique(`many${i}`)}`));
    assert.equal(await refused(client, `room:${unique('more')}`), 106);
    subs[0].unsubscribe();
    await client.join(`room:${unique('more')}`);
    client.disconnect();
  });

  await step('a user-limited channel takes those it names', async () => {
    await ann.join(`dialog:${unique('d')}#somebody,${ann.user}`);
  });

  await step('a subscription token is replaced after 109 and before it expires', async () => {
    const channel = `$room:${unique('expiring')}`;
    const times = [now() - 1, now() + 2, now() + 600];
    let last;
    const all = new Promise((resolve) => (last = resolve));
    const sub = await ann.join(channel, {
      getToken: async () => {
        const exp = times.shift();
        if (!times.length) last();
        return jwt({ sub: ann.user, channel, exp, info: { seat: 1 } });
      },
    });
    await all;
    await sub.publish({ i: 1 });
    const { clients } = await sub.presence();
    assert.deepEqual(Object.values(clients).map((c) => c.chanInfo), [{ seat: 1 }]);
    assert.equal(sub.state, 'subscribed');
  });

  await step('publish: every kind of JSON arrives as it was sent', async () => {
    const sub = await ann.join(`room:${unique('json')}`);
    const values = [{ a: [1, { b: null }] }, 'text " \n ü 𝄞', 12.5, false, [], {}, ''];
    const heard = collect(sub, values.length);
    for (const value of values) await sub.publish(value);
    assert.deepEqual((await heard).map((p) => p.data), values);
    assert.ok((await heard).every((p) => p.info.user === ann.user));
  });

  await step('refusals of publish, presence and history are rejections', async () => {
    const at = (code) => (error) => assert.equal(error.code, code) ?? true;
    await assert.rejects(ann.publish(`locked:${unique('x')}`, {}), at(103));
    await assert.rejects(ann.publish(`nowhere:${unique('x')}`, {}), at(102));
    await assert.rejects(ann.presence(`live:${unique('x')}`), at(108));
    await assert.rejects(ann.presence(`locked:${unique('x')}`), at(103));
    await assert.rejects(ann.history(`live:${unique('x')}`, { limit: 1 }), at(108));
    await assert.rejects(ann.history(`locked:${unique('x')}`, { limit: 1 }), at(103));
  });

  await step('rights of subscribers end with the subscription', async () => {
    const channel = `live:${unique('sub')}`;
    await assert.rejects(ann.publish(channel, 1), { code: 103 });
    const sub = await ann.join(channel);
    await sub.publish(1);
    sub.unsubscribe();
    await assert.rejects(ann.publish(channel, 1), { code: 103 });
  });

  await step('a batch of commands in one frame, its replies in order', async () => {
    const sub = await ann.join(`room:${unique('batch')}`);
    const heard = collect(sub, 100);
    ann.startBatching();
    const sent = numbers(1, 100).map((i) => sub.publish(i));
    ann.stopBatching();
    await Promise.all(sent);
    assert.deepEqual((await heard).map((p) => p.data), numbers(1, 100));
  });

  await step('join and leave, of oneself too', async () => {
    const channel = `room:${unique('join')}`;
    const sub = ann.sub(channel);
    const own = next(sub, 'join');
    sub.subscribe();
    assert.equal((await own).info.user, ann.user);
    const bob = person('bob');
    const joined = next(sub, 'join');
    await bob.ready2();
    const theirs = await bob.join(channel);
    assert.equal((await joined).info.user, bob.user);
    const left = next(sub, 'leave');
    theirs.unsubscribe();
    assert.equal((await left).info.user, bob.user);
    const again = next(sub, 'leave');
    await bob.join(`room:${unique('elsewhere')}`);
    theirs.subscribe();
    await theirs.ready(10_000);
    bob.cut();
    assert.equal((await again).info.user, bob.user);
    bob.disconnect();
  });

  await step('the backend ends a subscription: unsubscribed, 2000', async () => {
    const { api } = await import('../lib/env.mjs');
    const sub = await ann.join(`room:${unique('out')}`);
    const gone = next(sub, 'unsubscribed');
    await api('unsubscribe', { user: ann.user, channel: sub.channel });
    assert.equal((await gone).code, 2000);
    await publish(sub.channel, 1);
    sub.subscribe();
    await sub.ready(10_000);
  });

  ann.disconnect();
}
