// What was missed comes back, or the client is told that it did not.
import assert from 'node:assert/strict';
import { api, unique } from '../lib/env.mjs';
import { collect, connected, next, numbers, pick, publish } from '../lib/lab.mjs';

const values = (pubs) => pubs.map((p) => p.data);

export default async function (step) {
  const ann = await connected('ann');

  /** Publishes 1..n while ann is away; gives the subscribed event and what she heard up to n+1. */
  async function miss(sub, n, { away = ann.cut, meanwhile = async () => {} } = {}) {
    const heard = [];
    const listener = (p) => heard.push(p.data);
    sub.on('publication', listener);
    const subscribed = next(sub, 'subscribed');
    await ann.gone(away, async () => {
      for (const i of numbers(1, n)) await publish(sub.channel, i);
      await meanwhile();
    });
    const ctx = await subscribed;
    const last = next(sub, 'publication', (p) => p.data === n + 1);
    await publish(sub.channel, n + 1);
    await last;
    sub.off('publication', listener);
    return { heard, ...pick(ctx, 'wasRecovering', 'recovered') };
  }

  await step('all that was missed, in order, once', async () => {
    const sub = await ann.join(`recovery:${unique('r')}`);
    assert.deepEqual(await miss(sub, 20), { heard: numbers(1, 21), wasRecovering: true, recovered: true });
  });

  await step('nothing was missed', async () => {
    const sub = await ann.join(`recovery:${unique('r')}`);
    assert.deepEqual(await miss(sub, 0), { heard: [1], wasRecovering: true, recovered: true });
  });

  await step('after a kick that says come back', async () => {
    const sub = await ann.join(`recovery:${unique('r')}`);
    const away = () => api('disconnect', { user: ann.user, disconnect: { code: 3011, reason: 'force reconnect' } });
    assert.deepEqual(await miss(sub, 3, { away }), { heard: [1, 2, 3, 4], wasRecovering: true, recovered: true });
  });

  await step('more was missed than is kept: recovered is false', async () => {
    const sub = await ann.join(`smallhistory:${unique('s')}`);
    assert.deepEqual(await miss(sub, 5), { heard: [6], wasRecovering: true, recovered: false });
  });

  await step('exactly what is kept was missed', async () => {
    const sub = await ann.join(`smallhistory:${unique('s')}`);
    assert.deepEqual(await miss(sub, 2), { heard: [1, 2, 3], wasRecovering: true, recovered: true });
  });

  await step('the history was removed meanwhile: recovered is false, and life goes on', async () => {
    const sub = await ann.join(`recovery:${unique('r')}`);
    const meanwhile = () => api('history_remove', { channel: sub.channel });
    assert.deepEqual(await miss(sub, 3, { meanwhile }), { heard: [4], wasRecovering: true, recovered: false });
  });

  await step('removed history that was seen does not hurt', async () => {
    const sub = await ann.join(`recovery:${unique('r')}`);
    const heard = next(sub, 'publication');
    await publish(sub.channel, 'seen');
    await heard;
    const meanwhile = () => api('history_remove', { channel: sub.channel });
    assert.deepEqual(await miss(sub, 0, { meanwhile }), { heard: [1], wasRecovering: true, recovered: true });
  });

  await step('what is sent without history moves no position', async () => {
    const sub = await ann.join(`recovery:${unique('r')}`);
    const heard = collect(sub, 2);
    await publish(sub.channel, 'kept');
    await publish(sub.channel, 'passing', { skip_history: true });
    assert.deepEqual((await heard).map((p) => p.offset ?? 0), [1, 0]);
    assert.deepEqual(await miss(sub, 2), { heard: [1, 2, 3], wasRecovering: true, recovered: true });
  });

  await step('unsubscribe and subscribe again recovers too', async () => {
    const sub = await ann.join(`recovery:${unique('r')}`);
    const first = next(sub, 'publication');
    await publish(sub.channel, 0);
    await first;
    const left = next(sub, 'unsubscribed');
    sub.unsubscribe();
    await left;
    const heard = [];
    sub.on('publication', (p) => heard.push(p.data));
    await ann.presenceStats(sub.channel).catch(() => {}); // in order: the server has taken us out
    for (const i of [1, 2]) await publish(sub.channel, i);
    const subscribed = next(sub, 'subscribed');
    sub.subscribe();
    const ctx = await subscribed;
    assert.equal(ctx.wasRecovering, ctx.recovered); // an SDK may forget the position of its own accord
    const last = next(sub, 'publication', (p) => p.data === 3);
    await publish(sub.channel, 3);
    await last;
    assert.deepEqual(heard, ctx.recovered ? [1, 2, 3] : [3]);
  });

  await step('since: a position from elsewhere', async () => {
    const channel = `recovery:${unique('since')}`;
    for (const i of numbers(1, 5)) await publish(channel, i);
    const { offset, epoch } = await api('history', { channel });
    assert.equal(offset, 5);
    const sub = ann.sub(channel, { since: { offset: 2, epoch } });
    const heard = collect(sub, 3);
    const subscribed = next(sub, 'subscribed');
    sub.subscribe();
    assert.deepEqual(pick(await subscribed, 'wasRecovering', 'recovered'), { wasRecovering: true, recovered: true });
    assert.deepEqual(values(await heard), [3, 4, 5]);
    const lost = ann.sub(`recovery:${unique('since')}`, { since: { offset: 2, epoch: 'other' } });
    const told = next(lost, 'subscribed');
    lost.subscribe();
    assert.deepEqual(pick(await told, 'wasRecovering', 'recovered'), { wasRecovering: true, recovered: false });
  });

  await step('a storm: publications go on while the connection is cut again and again', async () => {
    const sub = await ann.join(`recovery:${unique('storm')}`);
    const heard = [];
    const all = next(sub, 'publication', (p) => heard.push(p.data) && p.data === 80);
    let lost = false;
    sub.on('subscribed', (ctx) => (lost ||= ctx.wasRecovering && !ctx.recovered));
    for (const i of numbers(1, 80)) {
      await publish(sub.channel, i);
      if (i % 16 === 0) {
        const connecting = ann.state === 'connected' ? next(ann, 'connecting') : undefined;
        ann.cut();
        await connecting;
      }
    }
    await all;
    assert.equal(lost, false);
    assert.deepEqual(heard, numbers(1, 80));
  });

  await step('many channels recover at once', async () => {
    const client = await connected('many');
    const subs = await Promise.all(numbers(1, 8).map((i) => client.join(`recovery:${unique(`m${i}`)}`)));
    const heard = Promise.all(subs.map((sub) => collect(sub, 2)));
    await client.gone(client.cut, async () => {
      for (const sub of subs) for (const i of [1, 2]) await publish(sub.channel, i);
    });
    for (const pubs of await heard) assert.deepEqual(values(pubs), [1, 2]);
    client.disconnect();
  });
  ann.disconnect();
}
