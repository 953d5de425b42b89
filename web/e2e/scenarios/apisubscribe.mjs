// Subscriptions and refreshes that the backend makes.
import assert from 'node:assert/strict';
import { api, unique } from '../lib/env.mjs';
import { connected, next, now, publish } from '../lib/lab.mjs';

export default async function (step) {
  const ann = await connected('ann');
  const channel = `locked:${unique('api')}`;
  await step('subscribe: the client is told, and hears', async () => {
    const told = next(ann, 'subscribed', (ctx) => ctx.channel === channel);
    await api('subscribe', { user: ann.user, channel, data: { welcome: 1 } });
    assert.deepEqual((await told).data, { welcome: 1 });
    const heard = next(ann, 'publication');
    await publish(channel, 'x');
    assert.deepEqual((({ channel, data }) => ({ channel, data }))(await heard), { channel, data: 'x' });
  });
  await step('refresh: expired ends the connection with 3005', async () => {
    const connecting = next(ann, 'connecting');
    await api('refresh', { user: ann.user, expired: true });
    assert.equal((await connecting).code, 3005);
  });
  await step('refresh: a new end', () => api('refresh', { user: ann.user, expire_at: now() + 600 }));
  ann.disconnect();
}
