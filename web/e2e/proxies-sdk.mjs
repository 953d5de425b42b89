// The stock centrifuge SDK without any token: a backend is asked who connects,
// who may subscribe, what is published and what rpc is answered. The backend is
// that of TestCentrifugeSDKWithProxies.
import assert from 'node:assert/strict';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { wsUrl } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';

const ann = client({ data: { name: 'ann' }, headers: { Authorization: 'Bearer of-the-backend' } });

await step('the backend says who connects', async () => {
  const connected = next(ann, 'connected');
  const channels = [];
  const both = new Promise((resolve) => ann.on('subscribed', ({ channel }) => channels.push(channel) === 2 && resolve()));
  ann.connect();
  assert.deepEqual((await connected).data, { hello: 1 });
  await both;
  assert.deepEqual(channels.sort(), ['#ann', 'feed:ann']);
});

await step('whom it does not know is turned away for good', async () => {
  const stranger = client({ data: { name: 'bob' } });
  const gone = next(stranger, 'disconnected');
  stranger.connect();
  const { code, reason } = await gone;
  assert.deepEqual({ code, reason }, { code: 4504, reason: 'nobody' });
});

const open = await step('it says who may subscribe, and how', async () => {
  const sub = ann.newSubscription('hook:open', { data: { as: 'host' } });
  const subscribed = next(sub, 'subscribed');
  sub.subscribe();
  assert.deepEqual((await subscribed).data, { topic: 'open' });
  const { clients } = await sub.presence();
  assert.deepEqual(Object.values(clients).map(({ user, connInfo, chanInfo }) => ({ user, connInfo, chanInfo })), [
    { user: 'ann', connInfo: { name: 'Ann' }, chanInfo: { role: 'host' } },
  ]);
  return sub;
});

await step('and who may not', async () => {
  const sub = ann.newSubscription('hook:closed');
  const gone = next(sub, 'unsubscribed');
  sub.subscribe();
  const { code, reason } = await gone;
  assert.deepEqual({ code, reason }, { code: 1001, reason: 'members only' });
});

await step('it changes what is published', async () => {
  const heard = next(open, 'publication');
  await open.publish({ text: 'hi' });
  assert.deepEqual((await heard).data, { text: 'HI' });
});

await step('it answers rpc, or refuses', async () => {
  assert.deepEqual((await ann.rpc('shop:price', { of: 'tea' })).data, { of: 'tea', for: 'ann' });
  await assert.rejects(ann.rpc('shop:brew'), { code: 1418, message: 'teapot' });
  await assert.rejects(ann.rpc('other:x'), { code: 104 });
  await assert.rejects(ann.rpc('x'), { code: 108 });
});

await step('it lets the connection go on when that expires', async () => {
  await ann.rpc('shop:refreshed');
  await open.publish({ text: 'still here' });
  assert.equal(ann.state, 'connected');
});

ann.disconnect();
done();

/** Unlike events.once it does not fail on 'error'. */
function next(emitter, event) {
  return new Promise((resolve) => emitter.once(event, resolve));
}

function client(options) {
  return new Centrifuge(wsUrl, { websocket: WebSocket, minReconnectDelay: 10, timeout: 30_000, ...options });
}
