// Our own SDK on uni-h5's wx in jsdom.
import { createClient } from '@minigate/sdk';
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { api, baseUrl, loginCode, unique } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';
import { uniPage } from './lib/uni-jsdom.mjs';

const { e2e, readFile } = await step('uni-h5 boots in jsdom', () => uniPage(baseUrl), 30_000);
const user = unique('sdk');
let logins = 0;
// The browser has no wx.login: the simulator's stands in for it.
const wx = Object.assign({}, e2e.wx, {
  login({ success, fail }) {
    logins++;
    loginCode(user).then((code) => success({ code, errMsg: 'login:ok' }), (e) => fail({ errMsg: `login:fail ${e.message}` }));
  },
});
const client = createClient({ baseUrl, wx });

const { user: me, token } = await step('login', () => client.login());

await step('request: the backend is told who asks', async () => {
  const { data } = await client.request({ url: '/api/whoami' });
  assert.ok(JSON.stringify(data).includes(me.openid), JSON.stringify(data));
});

await step('request: a status of 404 fails with the code of the server', async () => {
  await assert.rejects(client.request({ url: '/files/no-such-file' }), (e) => {
    assert.equal(e.statusCode, 404);
    assert.ok(!e.code.startsWith('http_') && e.message && e.requestId, JSON.stringify(e));
    return true;
  });
});

const bytes = randomBytes(200_000);
const file = await step('upload with progress', async () => {
  const seen = [];
  const { data } = await client.upload({
    filePath: `data:application/octet-stream;base64,${bytes.toString('base64')}`,
    fileName: '你好.bin',
    onProgress: (p) => seen.push(p),
  });
  assert.equal(data.size, bytes.length);
  assert.equal(data.name, '你好.bin');
  assert.equal(data.sha256, createHash('sha256').update(bytes).digest('hex'));
  assert.equal(seen.at(-1)?.progress, 100);
  return data;
});

await step('download with progress, the same bytes', async () => {
  const seen = [];
  const { tempFilePath } = await client.download({ url: `/files/${file.id}`, onProgress: (p) => seen.push(p) });
  assert.ok(bytes.equals(await readFile(tempFilePath)), 'bytes differ');
  assert.equal(seen.at(-1)?.sent, bytes.length);
});

const socket = await step('socket: connects', async () => {
  const s = client.socket();
  await s.ready(10_000);
  return s;
});

await step('socket: a push for the user arrives', () => pushed());

await step('onShow: a living socket is left alone', async () => {
  const events = [];
  socket.on('connecting', (ctx) => events.push(ctx));
  client.onShow();
  await assert.rejects(socket.rpc('nothing', null), (e) => e.code >= 100); // answered after the probe
  await pushed();
  assert.deepEqual(events, []);
});

await step('a session ended elsewhere: twenty calls, one login, all succeed', async () => {
  const before = logins;
  const cut = Promise.race([once(socket, 'connecting'), once(socket, 'disconnected')]);
  await fetch(`${baseUrl}/auth/logout`, { method: 'POST', headers: { Authorization: `Bearer ${token}` } });
  const answers = await Promise.all(Array.from({ length: 20 }, () => client.request({ url: '/api/whoami' })));
  assert.ok(answers.every((a) => a.statusCode === 200));
  assert.equal(logins, before + 1);
  assert.notEqual(client.session.token, token);
  await cut;
});

await step('socket: cut with the old session, it comes back with the new one', async () => {
  client.socket();
  await socket.ready(10_000);
  await pushed();
});

await step('logout: the session ends, the socket closes', async () => {
  const last = client.session.token;
  await client.logout();
  assert.equal(client.session, undefined);
  assert.equal(socket.state, 'disconnected');
  const answer = await fetch(`${baseUrl}/auth/session`, { headers: { Authorization: `Bearer ${last}` } });
  assert.equal(answer.status, 401);
});

done();

async function pushed() {
  const data = { nonce: unique('n') };
  const heard = Promise.race([once(socket, 'publication'), once(socket, 'message')]);
  await api('push', { users: [me.openid], data });
  assert.deepEqual((await heard)[0].data, data);
}
