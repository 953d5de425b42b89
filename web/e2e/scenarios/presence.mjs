// Who is there: exact numbers, at once.
import assert from 'node:assert/strict';
import { api, unique } from '../lib/env.mjs';
import { connected, next } from '../lib/lab.mjs';

export default async function (step) {
  const watcher = await connected('watcher');
  const numbers = async (sub) => {
    const { numClients, numUsers } = await sub.presenceStats();
    const { num_clients, num_users } = await api('presence_stats', { channel: sub.channel });
    assert.deepEqual([num_clients ?? 0, num_users ?? 0], [numClients, numUsers]);
    return [numClients, numUsers];
  };

  await step('numbers are exact by the time others hear of it', async () => {
    const room = await watcher.join(`room:${unique('exact')}`);
    assert.deepEqual(await numbers(room), [1, 1]);
    const guest = await connected('guest');
    const guestSub = await guest.join(room.channel);
    assert.deepEqual(await numbers(room), [2, 2]);

    for (const leave of [
      () => guestSub.unsubscribe(),
      () => guest.disconnect(),
      () => guest.cut(),
      () => api('disconnect', { user: guest.user }),
      () => api('unsubscribe', { user: guest.user, channel: room.channel }),
    ]) {
      if (guest.state !== 'connected') await guest.ready2();
      if (guestSub.state !== 'subscribed') {
        guestSub.subscribe();
        await guestSub.ready(10_000);
      }
      const left = next(room, 'leave');
      let back;
      if (guest.state === 'connected') back = next(room, 'join');
      await leave();
      await left;
      if (guest.state === 'connecting') await back; // after the cut the SDK returns by itself
      else assert.deepEqual(await numbers(room), [1, 1]);
    }
    guest.disconnect();
  });

  await step('1, then 0, without waiting for any lease', async () => {
    const channel = `room:${unique('empty')}`;
    const one = await connected('one');
    const other = await watcher.join(`room:${unique('other')}`);
    await one.join(channel);
    assert.equal((await watcher.presenceStats(channel)).numClients, 1);
    const left = watcher.presenceStats(channel);
    await left;
    one.getSubscription(channel).unsubscribe();
    await one.presenceStats(channel).then((s) => assert.equal(s.numClients, 0)); // same connection: in order
    assert.equal((await watcher.presenceStats(channel)).numClients, 0);
    assert.deepEqual((await watcher.presence(channel)).clients, {});
    one.disconnect();
    other.unsubscribe();
  });

  await step('two connections of one user are two clients and one user', async () => {
    const room = await watcher.join(`room:${unique('twice')}`);
    const a = await connected('double');
    const b = await connected('double', { token: a._config.token });
    await a.join(room.channel);
    await b.join(room.channel);
    assert.deepEqual(await numbers(room), [3, 2]);
    const { clients } = await room.presence();
    assert.deepEqual(Object.values(clients).map((c) => c.user).sort(), [a.user, a.user, watcher.user].sort());
    a.disconnect();
    b.disconnect();
  });
  watcher.disconnect();
}
