// Our own SDK on uni-h5's wx in jsdom.
import { createClient } from '@minigate/sdk';
import assert from 'node:assert/strict';
import { createHash, createPublicKey, randomBytes, verify } from 'node:crypto';
import { once } from 'node:events';
import { api, baseUrl, login, loginCode, onPhone, ops, opsUrl, unique } from './lib/env.mjs';
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
  getDeviceInfo: () => ({ brand: 'Node', model: 'jsdom' }),
});
const client = createClient({ baseUrl, wx });

const { user: me } = await step('login', () => client.login());
const stranger = unique('stranger');
await login(stranger);

await step('login: the operator sees what the phone calls itself', async () => {
  const { sessions } = await ops('sessions', { user: me.openid });
  assert.deepEqual(sessions.map((s) => s.device), ['Node jsdom']);
});

await step('openData: verified, decrypted, and signed for the backend', async () => {
  const given = await onPhone('opendata', user);
  const { rawData, data, jws } = await client.openData(given);
  assert.deepEqual(plain(rawData), JSON.parse(given.rawData));
  assert.equal(data.openId, me.openid);
  const said = await proven(jws);
  assert.deepEqual([said.sub, said.data], [me.openid, plain(data)]);
  assert.equal(logins, 1);
});

await step('openData: a key the server does not know: one login, fetched again, opened', async () => {
  const before = logins;
  let fetches = 0;
  const { data } = await client.openData({
    fetch: () => onPhone('opendata', fetches++ ? user : stranger, { stepInfoList: [{ step: 42 }] }),
  });
  assert.deepEqual(plain(data.stepInfoList), [{ step: 42 }]);
  assert.deepEqual([fetches, logins], [2, before + 1]);
});

await step('openData: without fetch it fails as stale, logged in', async () => {
  const before = logins;
  const stale = await onPhone('opendata', stranger, { stepInfoList: [] });
  await assert.rejects(client.openData(stale), { code: 'session_key_stale', statusCode: 409 });
  assert.equal(logins, before + 1);
});

await step('phone: the number, once for each press of the button', async () => {
  const detail = await onPhone('phone', user);
  const { phoneNumber, countryCode, jws } = await client.phone(detail);
  assert.match(phoneNumber, /^13\d{9}$/);
  assert.equal(countryCode, '86');
  assert.equal((await proven(jws)).data.phone_number, phoneNumber);
  await assert.rejects(client.phone(detail), { code: 'phone_code_invalid', statusCode: 400 });
});

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

await step('fileUrl: opens this file without a header, and nothing else', async () => {
  const url = await client.fileUrl(file);
  const answer = await fetch(url);
  assert.ok(bytes.equals(Buffer.from(await answer.arrayBuffer())), `status ${answer.status}, bytes differ`);
  assert.equal(await client.fileUrl(file.id), url);
  for (const wrong of [url.replace(/.$/, (c) => (c === 'A' ? 'B' : 'A')), url.replace(file.id, 'another'), url.split('?')[0]]) {
    assert.equal((await fetch(wrong)).status, 401, wrong);
  }
});

const socket = await step('socket: connects', async () => {
  const s = client.socket();
  await s.ready(10_000);
  return s;
});

await step('socket: a push for the user arrives', () => pushed());

await step('onFile: of this user, and in a channel; not what others make up', async () => {
  const room = socket.newSubscription('room:files');
  room.subscribe();
  await room.ready(10_000);
  const heard = [];
  let enough;
  const both = new Promise((resolve) => (enough = resolve));
  const stop = client.onFile(({ event, file, channel }) => {
    heard.push([event, file.id, file.owner, channel]);
    if (heard.length >= 2) enough();
  });
  const published = once(room, 'publication');
  await room.publish({ type: 'minigate.file', event: 'file_shared', file: { id: 'made up' } });
  await published;
  const filePath = `data:text/plain;base64,${Buffer.from('hello').toString('base64')}`;
  const { data } = await client.upload({ filePath, size: 5, channel: 'room:files' });
  await both;
  stop();
  const want = [['file_ready', data.id, me.openid, `#${me.openid}`], ['file_shared', data.id, me.openid, 'room:files']];
  assert.deepEqual(heard.sort(), want);
  socket.removeSubscription(room);
});

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
  const { token } = client.session;
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

/** Objects of jsdom's realm as objects of ours. */
function plain(value) {
  return JSON.parse(JSON.stringify(value));
}

/** What minigate signed, checked as a backend would: with the public keys it publishes. */
async function proven(jws) {
  const [head, body, signature] = jws.split('.');
  const { keys } = await (await fetch(`${opsUrl}/.well-known/jwks.json`)).json();
  const { kid } = JSON.parse(Buffer.from(head, 'base64url'));
  const key = createPublicKey({ key: keys.find((k) => k.kid === kid), format: 'jwk' });
  const es256 = { key, dsaEncoding: 'ieee-p1363' };
  assert.ok(verify('sha256', Buffer.from(`${head}.${body}`), es256, Buffer.from(signature, 'base64url')), 'signature');
  return JSON.parse(Buffer.from(body, 'base64url'));
}

async function pushed() {
  const data = { nonce: unique('n') };
  const heard = Promise.race([once(socket, 'publication'), once(socket, 'message')]);
  await api('push', { users: [me.openid], data });
  assert.deepEqual((await heard)[0].data, data);
}
