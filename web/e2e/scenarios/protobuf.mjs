// The binary encoding, by the SDK's own build for it.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import WebSocket from 'ws';
import { unique, wsUrl } from '../lib/env.mjs';
import { collect, jwt, next, publish } from '../lib/lab.mjs';

const { Centrifuge } = createRequire(import.meta.url)('centrifuge/build/protobuf');
const bytes = (value) => new TextEncoder().encode(JSON.stringify(value));
const value = (data) => JSON.parse(new TextDecoder().decode(data));

export default async function (step) {
  const user = unique('proto');
  const client = new Centrifuge(wsUrl, { websocket: WebSocket, token: jwt({ sub: user }), minReconnectDelay: 10, maxReconnectDelay: 100 });
  let sub;
  await step('connect and subscribe', async () => {
    client.connect();
    await client.ready(10_000);
    sub = client.newSubscription(`room:${unique('proto')}`);
    sub.subscribe();
    await sub.ready(10_000);
  });
  await step('publish, presence, history', async () => {
    const heard = collect(sub, 2);
    await sub.publish(bytes({ i: 1 }));
    await publish(sub.channel, { i: 2 });
    assert.deepEqual((await heard).map((p) => value(p.data)), [{ i: 1 }, { i: 2 }]);
    assert.equal((await sub.presenceStats()).numUsers, 1);
    assert.deepEqual(Object.values((await sub.presence()).clients).map((c) => c.user), [user]);
    const { publications } = await sub.history({ limit: -1 });
    assert.deepEqual(publications.map((p) => [p.offset, value(p.data)]), [[1, { i: 1 }], [2, { i: 2 }]]);
  });
  await step('recover', async () => {
    const subscribed = next(sub, 'subscribed');
    client._transport.close();
    assert.equal((await subscribed).recovered, true);
  });
  await step('refusals', () => assert.rejects(client.publish('nowhere:x', bytes(1)), { code: 102 }));
  await step('a disconnect push in this encoding', async () => {
    const gone = next(client, 'disconnected');
    const { api } = await import('../lib/env.mjs');
    await api('disconnect', { user });
    assert.equal((await gone).code, 3503);
  });
}
