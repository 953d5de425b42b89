// The wire itself, without an SDK.
import assert from 'node:assert/strict';
import { baseUrl, unique, wsUrl } from '../lib/env.mjs';
import { jwt, publish, raw } from '../lib/lab.mjs';
import WebSocket from 'ws';

export default async function (step) {
  await step('many commands in one frame, answered in order', async () => {
    const room = `room:${unique('wire')}`;
    const w = await raw({ silent: true });
    w.send(
      { id: 1, connect: { token: jwt({ sub: 'wire' }) } },
      { subscribe: { channel: room }, id: 2 },
      { id: 3, publish: { channel: room, data: 1 } },
      { id: 4, history: { channel: room, limit: -1 } },
      { id: 5, unsubscribe: { channel: room } },
    );
    const ids = [];
    while (ids.at(-1) !== 5) {
      const { id, error } = await w.json();
      assert.equal(error, undefined);
      if (id) ids.push(id);
    }
    assert.deepEqual(ids, [1, 2, 3, 4, 5]);
    w.ws.close();
  });

  await step('zero values are left out', async () => {
    const channel = `recovery:${unique('wire')}`;
    const w = await raw();
    w.send({ id: 2, subscribe: { channel } });
    const { subscribe } = await w.json();
    assert.deepEqual(Object.keys(subscribe).sort(), ['epoch', 'positioned', 'recoverable']);
    w.send({ id: 3, unsubscribe: { channel } });
    assert.equal(await w.line(), '{"id":3,"unsubscribe":{}}');
    w.ws.close();
  });

  await step('the epoch comes with the first publication of a stream', async () => {
    const channel = `recovery:${unique('wire')}`;
    const w = await raw();
    w.send({ id: 2, subscribe: { channel } });
    const { subscribe } = await w.json();
    await publish(channel, { n: 1 });
    await publish(channel, { n: 2 });
    assert.deepEqual(await w.json(), { push: { channel, pub: { data: { n: 1 }, offset: 1, epoch: subscribe.epoch } } });
    assert.deepEqual(await w.json(), { push: { channel, pub: { data: { n: 2 }, offset: 2 } } });
    w.ws.close();
  });

  for (const [what, frame] of [
    ['what is not JSON', 'hello'], ['half an object', '{"id":2,'], ['a list', '[]'], ['no request', '{"id":2}'],
    ['a number for a text', '{"id":2,"subscribe":{"channel":1}}'], ['a second connect', '{"id":2,"connect":{}}'],
    ['a key twice', '{"id":2,"id":3,"rpc":{}}'], ['an empty channel', '{"id":2,"subscribe":{}}'],
  ]) {
    await step(`${what}: 3501, told in a push and in the close frame`, async () => {
      const w = await raw();
      w.send(frame);
      assert.equal(await w.line(), '{"push":{"disconnect":{"code":3501,"reason":"bad request"}}}');
      assert.deepEqual(await w.end, { code: 3501, reason: 'bad request' });
    });
  }

  await step('a command before connect: 3501', async () => {
    const w = await raw({ silent: true });
    w.send({ id: 1, rpc: { method: 'x' } });
    assert.equal((await w.end).code, 3501);
  });

  await step('silence instead of connect: 3502', async () => {
    const w = await raw({ silent: true });
    assert.deepEqual(await w.end, { code: 3502, reason: 'stale' });
  });

  await step('a message that is too large: 1009', async () => {
    const w = await raw();
    w.send('x'.repeat(70_000));
    assert.equal((await w.end).code, 1009);
  });

  await step('pings are empty objects; many pongs do no harm', async () => {
    const w = await raw();
    assert.deepEqual([w.hello.connect.ping, w.hello.connect.pong], [2, true]);
    w.pings = true;
    assert.equal(await w.line(), '{}');
    w.send('{}', '{}');
    w.send('{}');
    assert.equal(await w.line(), '{}'); // the next one
    w.ws.close();
  });

  await step('an error reply to connect: the connection is of no use', async () => {
    const w = await raw({ silent: true });
    w.send({ id: 1, connect: { token: jwt({ sub: 'x', exp: 1 }) } });
    assert.equal((await w.json()).error.code, 109);
    w.send({ id: 2, subscribe: { channel: 'room:x' } });
    assert.equal((await w.end).code, 3502);
  });

  await step('subprotocols: centrifuge-json is echoed, others are not', async () => {
    const w = await raw({ protocols: ['centrifuge-json'] });
    assert.equal(w.ws.protocol, 'centrifuge-json');
    w.ws.close();
    await assert.rejects(raw({ protocols: ['chat'] })); // ws wants one of those that it offered
    const old = await raw({ query: '?cf_protocol_version=v2' });
    assert.ok(old.hello.connect.client);
    old.ws.close();
  });

  await step('the path is exact', async () => {
    const { status } = await fetch(`${baseUrl}/connection/websocket/`);
    assert.equal(status, 404);
    const ws = new WebSocket(wsUrl.replace('websocket', 'other'));
    await new Promise((resolve) => ws.on('error', resolve));
  });
}
