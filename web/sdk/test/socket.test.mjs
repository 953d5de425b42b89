import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { createClient } from '../dist/index.mjs';
import { fakeClock } from './clock.mjs';
import { centrifugeServer, fakeGate, fakeWx } from './fake-wx.mjs';

const baseUrl = 'https://gate.example.com';

function setup(t, tokens) {
  const clock = fakeClock(t);
  const gate = fakeGate();
  const wx = fakeWx({ serve: gate.serve, live: centrifugeServer({ tokens }) });
  return { gate, wx, clock, client: createClient({ baseUrl, wx }) };
}

test('connects over wx with the login token and delivers pushes', async (t) => {
  const { wx, client, clock } = setup(t);
  const socket = client.socket();
  await once(socket, 'connected');
  assert.equal(wx.sockets[0].url, 'wss://gate.example.com/connection/websocket');
  assert.equal(wx.live.connects[0].token, 'token-1');
  const message = once(socket, 'message');
  wx.sockets[0].push({ push: { message: { data: { hi: 1 } } } });
  assert.deepEqual((await message)[0].data, { hi: 1 });
  assert.equal(client.socket(), socket, 'one socket per client');
  await clock.settle();
  assert.equal(wx.opened, 1);
});

test('onFile: what the server tells of files, in whatever channel, and nothing else', async (t) => {
  const { wx, client, clock } = setup(t);
  const seen = [];
  const stop = client.onFile(({ event, file, channel }) => seen.push([event, file.id, channel]));
  client.onFile(() => {
    throw new Error('of the app');
  });
  client.onFile(({ file }) => seen.push(file.id));
  const socket = client.socket();
  await once(socket, 'connected');
  const room = socket.newSubscription('room:1');
  room.subscribe();
  await once(room, 'subscribed');
  const [live] = wx.sockets;
  live.push({ push: { channel: '#me', subscribe: {} } });
  const notice = (event, id) => ({ data: { type: 'minigate.file', event, file: { id } } });
  live.push({ push: { channel: '#me', pub: notice('file_ready', 'f1') } });
  live.push({ push: { channel: 'room:1', pub: notice('file_shared', 'f2') } });
  live.push({ push: { channel: 'room:1', pub: { ...notice('file_shared', 'forged'), info: { client: 'c', user: 'mallory' } } } });
  live.push({ push: { channel: 'room:1', pub: { data: { type: 'file', file: { id: 'of the app' } } } } });
  live.push({ push: { channel: 'room:1', pub: { data: null } } });
  await clock.settle();
  assert.deepEqual(seen, [['file_ready', 'f1', '#me'], 'f1', ['file_shared', 'f2', 'room:1'], 'f2']);
  stop();
  live.push({ push: { channel: '#me', pub: notice('file_blocked', 'f3') } });
  await clock.settle();
  assert.deepEqual(seen.slice(4), ['f3']);
});

test('a lost connection comes back, one socket at a time', async (t) => {
  const { wx, client, clock } = setup(t);
  const socket = client.socket();
  await once(socket, 'connected');
  for (let i = 2; i < 5; i++) {
    wx.sockets[0].closed(1006, 'abnormal closure');
    await clock.pass(2000);
    assert.equal(socket.state, 'connected');
    assert.equal(wx.opened, i);
    assert.equal(wx.sockets.length, 1);
  }
  assert.equal(wx.logins, 1, 'reconnecting needs no login');
});

test('closing and connecting at once never holds two sockets', async (t) => {
  const { wx, client, clock } = setup(t);
  const socket = client.socket();
  await once(socket, 'connected');
  for (let i = 0; i < 10; i++) {
    socket.disconnect();
    socket.connect();
    if (i % 3 === 0) await clock.settle();
  }
  await clock.pass(3000);
  assert.equal(socket.state, 'connected');
  assert.ok(wx.opened > 2);
  assert.equal(wx.most, 1);
});

test('a socket closed before it opened is closed once it opens', async (t) => {
  const { wx, client, clock } = setup(t);
  const held = [];
  const accept = wx.live.accept;
  wx.live.accept = (s) => held.push(s);
  const socket = client.socket();
  await clock.settle();
  socket.disconnect();
  wx.live.accept = accept;
  held[0].open();
  await clock.settle();
  assert.equal(held[0].state, 'closed');
  assert.equal(held[0].received.length, 0);
  assert.equal(wx.sockets.length, 0);
});

test('a handshake that fails, with or without a close event, is tried again', async (t) => {
  for (const closes of [true, false]) {
    await t.test(`close event: ${closes}`, async (t) => {
      const { wx, client, clock } = setup(t);
      const accept = wx.live.accept;
      wx.live.accept = (s) => {
        s.fail('Error during WebSocket handshake: Unexpected response code: 502');
        if (closes) s.closed(1006, 'abnormal closure');
        wx.live.accept = accept;
      };
      const socket = client.socket();
      await clock.pass(5000);
      assert.equal(socket.state, 'connected');
      assert.equal(wx.opened, 2);
    });
  }
});

test('too many sockets in the app: tried again until there is room', async (t) => {
  const { wx, client, clock } = setup(t);
  const others = Array.from({ length: 5 }, () => wx.connectSocket({ url: 'wss://other', success() {} }));
  const socket = client.socket();
  await clock.pass(1000);
  assert.equal(socket.state, 'connecting');
  others[0].closed(1000, '');
  await clock.pass(10000);
  assert.equal(socket.state, 'connected');
});

test('onShow: a socket that answers is left alone', async (t) => {
  const { wx, client, clock } = setup(t);
  const socket = client.socket();
  await once(socket, 'connected');
  wx.show();
  client.onShow(); // the app calls it as well: one probe
  await clock.settle();
  await clock.pass(5000);
  assert.equal(wx.opened, 1);
  assert.equal(wx.sockets[0].received.filter((r) => r.includes('minigate.probe')).length, 1);
});

test('onShow: a dead socket is replaced though no close is ever reported', async (t) => {
  const { wx, client, clock } = setup(t);
  const socket = client.socket({ probeTimeout: 1000 });
  await once(socket, 'connected');
  wx.sockets[0].dead = true;
  wx.show();
  await clock.pass(900);
  assert.equal(wx.opened, 1);
  await clock.pass(1700); // the rest of the probe, and the wait for a close that never comes
  assert.equal(wx.opened, 2);
  assert.equal(socket.state, 'connected');
});

test('onShow: a waiting reconnect happens now', async (t) => {
  const { wx, client, clock } = setup(t);
  const accept = wx.live.accept;
  wx.live.accept = (s) => s.closed(1006, 'abnormal closure');
  const socket = client.socket({ minReconnectDelay: 15000 });
  await clock.settle();
  wx.live.accept = accept;
  assert.equal(socket.state, 'connecting');
  wx.show();
  await clock.settle();
  assert.equal(socket.state, 'connected');
});

const expired = { error: { code: 109, message: 'token expired' } };
const invalid = { close: { code: 3500, reason: 'invalid token' } };
for (const [name, refusal] of [['expired (109)', expired], ['invalid (3500)', invalid]]) {
  test(`a kept token that is ${name} is replaced by one login`, async (t) => {
    const { wx, client, clock } = setup(t, (token) => (token === 'token-1' ? refusal : {}));
    await client.login();
    const socket = client.socket();
    await clock.pass(3000);
    assert.equal(socket.state, 'connected');
    assert.equal(wx.live.connects.at(-1).token, 'token-2');
    assert.equal(wx.logins, 2);
  });
}

test('a server that takes no token is not asked for ever', async (t) => {
  const { wx, client, clock } = setup(t, () => invalid);
  const socket = client.socket();
  await clock.pass(30000);
  assert.equal(socket.state, 'disconnected');
  assert.equal(wx.logins, 2);
  client.socket(); // the app tries again
  await clock.pass(30000);
  assert.equal(wx.logins, 3);
});

test('a user the server refuses ends the socket; trouble on the way does not', async (t) => {
  const { gate, wx, client, clock } = setup(t);
  wx.loginFailure = { errMsg: 'login:fail network' };
  const errors = [];
  const socket = client.socket();
  socket.on('error', (ctx) => errors.push(ctx.error.message));
  await clock.pass(1000);
  assert.equal(socket.state, 'connecting');
  assert.match(errors[0], /login:fail network/);
  wx.loginFailure = undefined;
  gate.login = () => ({ statusCode: 403, data: { error: { code: 'user_blocked', message: 'Blocked.' } } });
  await clock.pass(20000);
  assert.equal(socket.state, 'disconnected');
});

test('logout closes the socket; the next one carries the next token', async (t) => {
  const { wx, client, clock } = setup(t);
  await once(client.socket(), 'connected');
  const old = wx.sockets[0];
  await client.logout();
  await clock.settle();
  assert.equal(old.state, 'closed');
  await once(client.socket(), 'connected');
  assert.deepEqual(wx.live.connects.map((c) => c.token), ['token-1', 'token-2']);
});
