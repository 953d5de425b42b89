// The code that docs/protocol.md offers to those without an SDK, on uni-h5's wx
// in jsdom. Its node has to ping once a second, and to keep 100 publications of
// personal channels.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { api, baseUrl, login, unique, wsUrl } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';
import { uniPage } from './lib/uni-jsdom.mjs';

/** The code of a page, and the same without comments. */
async function codeOf(page) {
  const text = await readFile(new URL(`../../docs/${page}`, import.meta.url), 'utf8');
  const [, code] = text.match(/```js\n(function live\([\s\S]*?)```/) ?? assert.fail(`${page} has no function live`);
  return { code, bare: code.replace(/ *\/\/.*$/gm, '') };
}

const { code, bare } = await codeOf('protocol.md');
await step('the pages offer the same code', async () => {
  assert.equal((await codeOf('protocol.zh-CN.md')).bare, bare);
});

const { e2e } = await step('uni-h5 boots in jsdom', () => uniPage(baseUrl), 30_000);
const { token, user } = await login(unique('plain'));
const mine = `#${user.openid}`;
const pushed = (data) => api('push', { users: [user.openid], data });

// What the code under test says, and the sockets it opens, in order. A pause
// before it reconnects lasts until comeBack is called.
const said = queue();
const sockets = queue();
const pauses = queue();
const comeBack = async () => (await pauses.next())();
let url = wsUrl;
const wx = {
  ...e2e.wx,
  connectSocket(options) {
    const task = e2e.wx.connectSocket({ ...options, url });
    const lines = queue();
    task.onMessage(({ data }) => data.split('\n').forEach(lines.put));
    sockets.put({ task, lines, connected: lines.find((line) => line.includes('"connect"')) });
    return task;
  },
};
const live = new Function('wx', 'setTimeout', `${code}; return live`)(wx, pauses.put);
const start = (token) =>
  live({
    url: wsUrl,
    token,
    onMessage: (data, channel) => said.put({ data, channel }),
    onGap: (channel) => said.put({ gap: channel }),
    onEnd: ({ code }) => said.put({ end: code }),
  });

let socket;
await step('what is pushed arrives', async () => {
  start(token);
  socket = await sockets.next();
  await socket.connected;
  await pushed('hello');
  assert.deepEqual(await said.next(), { data: 'hello', channel: mine });
});

await step('it answers pings', async () => {
  for (let pings = 0; pings < 3; pings++) await socket.lines.find((line) => line === '{}');
});

/** Cuts the socket as WeChat does in the background; gives what comes back. */
async function cut() {
  socket.task.close({ code: 1000, reason: 'interrupted' });
  const again = await pauses.next();
  return async () => {
    again();
    socket = await sockets.next();
  };
}

for (const round of ['a cut', 'another']) {
  await step(`after ${round} it gets exactly what it missed`, async () => {
    const reconnect = await cut();
    for (const n of [1, 2, 3]) await pushed(n);
    await reconnect();
    for (const n of [1, 2, 3]) assert.equal((await said.next()).data, n);
    await socket.connected;
    await pushed('live');
    assert.equal((await said.next()).data, 'live');
  });
}

await step('away for too long, it says so', async () => {
  const reconnect = await cut();
  await api('broadcast', { channels: Array(101).fill(mine), data: 'too much' });
  await reconnect();
  assert.deepEqual(await said.next(), { gap: mine });
  await pushed('after the gap');
  assert.equal((await said.next()).data, 'after the gap');
});

await step('a socket that does not open is tried again', async () => {
  const reconnect = await cut();
  url = 'ws://127.0.0.1:1/';
  await reconnect();
  url = wsUrl;
  await comeBack();
  socket = await sockets.next();
  await socket.connected;
  await pushed('there again');
  assert.equal((await said.next()).data, 'there again');
});

await step('sent away for good, it stays away', async () => {
  await api('disconnect', { user: user.openid });
  assert.deepEqual(await said.next(), { end: 3503 });
});

await step('so it does where the login ends, or is over already', async () => {
  start(token);
  await (await sockets.next()).connected;
  const answer = await fetch(`${baseUrl}/auth/logout`, { method: 'POST', headers: { Authorization: `Bearer ${token}` } });
  assert.ok(answer.ok, `logout: ${answer.status}`);
  assert.deepEqual(await said.next(), { end: 3503 });
  start(token);
  assert.deepEqual(await said.next(), { end: 109 });
  await sockets.next();
});

await step('nothing else was said, and no other socket opened', async () => {
  await pushed('to nobody');
  assert.deepEqual([said.rest(), sockets.rest(), pauses.rest()], [[], [], []]);
});
done();

/** What is put in comes out in order. */
function queue() {
  const items = [];
  const waiting = [];
  const queue = {
    put(item) {
      items.push(item);
      waiting.splice(0).forEach((wake) => wake());
    },
    async next() {
      while (!items.length) await new Promise((wake) => waiting.push(wake));
      return items.shift();
    },
    async find(wanted) {
      for (;;) {
        const item = await queue.next();
        if (wanted(item)) return item;
      }
    },
    rest: () => items.splice(0),
  };
  return queue;
}
