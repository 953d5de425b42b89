// The stock centrifuge SDK in both of its encodings, with all that saves bytes:
// deltas, tag filters, numbers instead of channel names. Needs a node with the
// namespaces of TestCentrifugeEncodings.
import assert from 'node:assert/strict';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { once } from 'node:events';
import WebSocket from 'ws';
import { api, login, unique, wsUrl } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';

const text = (value) => (value instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(value)) : value);
const document = (n) => ({ n, text: `${'价格数量订单'.repeat(10)}${String.fromCodePoint(0x4e00 + n)}${'alpha beta '.repeat(10)}` });
const people = [await person('json', Centrifuge), await person('protobuf', ProtobufCentrifuge)];

await step('connect', () => Promise.all(people.map((p) => p.connect())));

await step('the encodings are those asked for', async () => {
  assert.deepEqual(people.map((p) => p.frames.every((f) => f.binary)), [false, true]);
});

for (const person of people) {
  const channel = `ticks:${unique(person.name)}`;
  const sub = person.centrifuge.newSubscription(channel, { delta: 'fossil' });
  const heard = [];
  sub.on('publication', (ctx) => heard.push(text(ctx.data)));

  await step(`${person.name}: deltas add up, and channels are numbers in JSON`, async () => {
    sub.subscribe();
    await sub.ready(10_000);
    person.frames.length = 0;
    for (let n = 0; n < 10; n++) await api('publish', { channel, data: document(n) });
    await until(() => heard.length === 10);
    assert.deepEqual(heard, Array.from({ length: 10 }, (_, n) => document(n)));
    const bytes = Buffer.concat(person.frames.map((f) => f.data));
    // In Protobuf the SDK asks for numbers and then cannot read them.
    assert.equal(bytes.includes(channel), person.name === 'protobuf');
    assert.ok(bytes.length < 5 * Buffer.byteLength(JSON.stringify(document(0))), `${bytes.length} bytes`);
  });

  await step(`${person.name}: what was missed comes once, in order`, async () => {
    let release;
    person.hold = new Promise((resolve) => (release = resolve));
    const connecting = once(person.centrifuge, 'connecting');
    person.cut();
    await connecting;
    for (let n = 10; n < 15; n++) await api('publish', { channel, data: document(n) });
    const subscribed = once(sub, 'subscribed');
    release();
    assert.equal((await subscribed)[0].recovered, true);
    for (let n = 15; n < 20; n++) await api('publish', { channel, data: document(n) });
    await until(() => heard.length === 20);
    assert.deepEqual(heard, Array.from({ length: 20 }, (_, n) => document(n)));
  });

  await step(`${person.name}: a filter lets through what matches`, async () => {
    const channel = `ticks:${unique('filtered')}`;
    const sub = person.centrifuge.newSubscription(channel, {
      tagsFilter: { op: 'or', nodes: [{ key: 'price', cmp: 'gte', val: '10' }, { key: 'urgent', cmp: 'ex' }] },
    });
    const heard = [];
    sub.on('publication', (ctx) => heard.push(text(ctx.data)));
    sub.subscribe();
    await sub.ready(10_000);
    for (const [n, tags] of [{ price: '9.5' }, { price: '10' }, {}, { urgent: '' }, { price: '11' }].entries()) {
      await api('publish', { channel, data: n, tags });
    }
    await until(() => heard.at(-1) === 4);
    assert.deepEqual(heard, [1, 3, 4]);
  });

  await step(`${person.name}: who comes and goes is told by number too`, async () => {
    const channel = `room:${unique('number')}`;
    const sub = person.centrifuge.newSubscription(channel);
    const other = people.find((p) => p !== person).centrifuge.newSubscription(channel);
    sub.subscribe();
    await sub.ready(10_000);
    const joined = nextOf(sub, 'join', person.openid);
    other.subscribe();
    await joined;
    const left = nextOf(sub, 'leave', person.openid);
    other.unsubscribe();
    await left;
    // Gone and back again: the number is that of the new subscription.
    sub.unsubscribe();
    sub.subscribe();
    await sub.ready(10_000);
    const publication = once(sub, 'publication');
    await api('publish', { channel, data: 'again' });
    assert.equal(text((await publication)[0].data), 'again');
  });

  await step(`${person.name}: what is pushed to the user arrives, by name`, async () => {
    const publication = once(person.centrifuge, 'publication');
    await api('push', { users: [person.openid], data: { for: person.name } });
    assert.deepEqual(text((await publication)[0].data), { for: person.name });
  });
}

await step('bytes that are not JSON go past those who speak it', async () => {
  const channel = `ticks:${unique('bytes')}`;
  const [json, protobuf] = people.map((p) => p.centrifuge.newSubscription(channel));
  const heard = [[], []];
  [json, protobuf].forEach((sub, i) => {
    sub.on('publication', (ctx) => heard[i].push(ctx.data));
    sub.subscribe();
  });
  await Promise.all([json.ready(10_000), protobuf.ready(10_000)]);
  await protobuf.publish(new Uint8Array([0xff, 0, 10]));
  await protobuf.publish(new TextEncoder().encode('{"n":\n2}'));
  await until(() => heard[0].length === 1 && heard[1].length === 2);
  assert.deepEqual(heard[0], [{ n: 2 }]);
  assert.deepEqual([...heard[1][0]], [0xff, 0, 10]);
  assert.equal(people[0].disconnected, false);
});

await step('a goodbye is understood', async () => {
  for (const person of people) {
    const gone = once(person.centrifuge, 'disconnected');
    await api('disconnect', { user: person.openid });
    assert.deepEqual(await gone.then(([{ code, reason }]) => ({ code, reason })), { code: 3503, reason: 'force disconnect' });
  }
});

done();

/** A logged-in user whose frames are kept, and whose connection can be cut. */
async function person(name, SDK) {
  const { token, user } = await login(unique(name));
  let socket;
  const self = { name, openid: user.openid, frames: [], disconnected: false, hold: Promise.resolve(), cut: () => socket.terminate() };
  class Recorded extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      socket = this;
      this.on('message', (data, binary) => self.frames.push({ data: Buffer.from(data), binary }));
    }
  }
  self.centrifuge = new SDK(wsUrl, {
    websocket: Recorded,
    token,
    minReconnectDelay: 10,
    getData: () => self.hold.then(() => (SDK === Centrifuge ? {} : new TextEncoder().encode('{}'))),
  });
  self.centrifuge.on('disconnected', () => (self.disconnected = true));
  self.centrifuge.on('error', (ctx) => console.log(`# ${name}: ${JSON.stringify(ctx)}`));
  self.connect = () => {
    self.centrifuge.connect();
    return self.centrifuge.ready(10_000);
  };
  return self;
}

/** Somebody else's coming or going. */
function nextOf(sub, event, self) {
  return new Promise((resolve) => sub.on(event, ({ info }) => info.user !== self && resolve()));
}

async function until(fits) {
  while (!fits()) await new Promise((resolve) => setTimeout(resolve, 5));
}
