import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from '../dist/index.mjs';
import { fakeClock } from './clock.mjs';
import { fakeGate, fakeWx, refusal } from './fake-wx.mjs';

const baseUrl = 'https://gate.example.com';

/**
 * A gate that opens only what was encrypted after its latest login: as with
 * WeChat, every wx.login makes a new key and ends the one before.
 */
function setup(routes = {}, options = {}) {
  const gate = fakeGate({ '/auth/opendata': open, ...routes });
  const wx = fakeWx({ serve: (request) => gate.serve(request) });
  const client = createClient({ baseUrl, wx, ...options });
  const fetch = () => Promise.resolve({ encryptedData: `under key ${gate.given}`, iv: 'iv', cloudID: 'not sent' });
  function open({ data }) {
    if (data.encrypted_data && data.encrypted_data !== `under key ${gate.given}`) return refusal(409, 'session_key_stale');
    const answer = { jws: 'signed' };
    if (data.raw_data) answer.raw_data = JSON.parse(data.raw_data);
    if (data.encrypted_data) answer.data = { steps: 1 };
    return { statusCode: 200, data: answer };
  }
  return { gate, wx, client, fetch };
}

const stale = { encryptedData: 'under key 0', iv: 'iv' };

const urls = (wx) => wx.calls.map((c) => c.url.replace(baseUrl, ''));

test('openData: sends the four parts and nothing else, gives back what was opened', async () => {
  const { wx, client } = setup();
  await client.login();
  const given = { rawData: '{"nickName":"ann"}', signature: 's', encryptedData: 'under key 1', iv: 'v' };
  const opened = await client.openData({ ...given, userInfo: {}, errMsg: 'getUserProfile:ok' });
  assert.deepEqual(wx.calls.at(-1).data, {
    raw_data: given.rawData, signature: 's', encrypted_data: 'under key 1', iv: 'v',
  });
  assert.equal(wx.calls.at(-1).method, 'POST');
  assert.deepEqual(opened, { rawData: { nickName: 'ann' }, data: { steps: 1 }, jws: 'signed' });
});

test('openData: logs in before it fetches', async () => {
  const { wx, client, fetch } = setup();
  const { data } = await client.openData({ fetch });
  assert.deepEqual(data, { steps: 1 });
  assert.deepEqual(urls(wx), ['/auth/login', '/auth/opendata']);
});

test('openData: a stale key causes one login, one fetch and one retry', async () => {
  const { wx, client, fetch } = setup();
  await client.login();
  let fetches = 0;
  const counted = () => (fetches++, fetch());
  const { data } = await client.openData({ ...stale, fetch: counted });
  assert.deepEqual(data, { steps: 1 });
  assert.equal(fetches, 1);
  assert.deepEqual(urls(wx), ['/auth/login', '/auth/opendata', '/auth/login', '/auth/opendata']);
});

test('openData: stale again after the retry is an error, not a loop', async () => {
  const { wx, client } = setup();
  const want = { code: 'session_key_stale', statusCode: 409, requestId: 'r1' };
  const fetch = () => Promise.resolve({ encryptedData: 'under no key', iv: 'iv' });
  await assert.rejects(client.openData({ fetch }), want);
  assert.deepEqual(urls(wx), ['/auth/login', '/auth/opendata', '/auth/login', '/auth/opendata']);
});

test('openData: without fetch a stale key is an error, after a login', async () => {
  const { wx, client, fetch } = setup();
  const early = await fetch(); // before the login
  await assert.rejects(client.openData(early), { code: 'session_key_stale' });
  assert.deepEqual(urls(wx), ['/auth/login', '/auth/opendata', '/auth/login']);
  await client.openData(await fetch());
  assert.equal(wx.logins, 2, 'what is fetched then can be opened');
});

test('openData: calls that find the key stale together share one login', async () => {
  const { wx, client, fetch } = setup();
  await client.login();
  const all = await Promise.all(Array.from({ length: 5 }, () => client.openData({ ...stale, fetch })));
  assert.ok(all.every((opened) => opened.data.steps === 1));
  assert.equal(wx.logins, 2);
});

test('openData: a key found stale after another call has logged in needs no login', async () => {
  const { gate, wx, client, fetch } = setup();
  await client.login();
  let release;
  const first = new Promise((resolve) => (release = resolve));
  const serve = gate.serve.bind(gate);
  let held = 0;
  gate.serve = async (request) => {
    const answer = serve(request);
    if (request.data.iv === 'late' && held++ === 0) await first;
    return answer;
  };
  const late = client.openData({ ...stale, iv: 'late', fetch });
  await client.openData({ ...stale, fetch });
  release();
  assert.deepEqual((await late).data, { steps: 1 });
  assert.equal(wx.logins, 2);
});

test('openData: other refusals cause no login; a failed fetch says what wx said', async () => {
  const { wx, client } = setup({ '/auth/opendata': () => refusal(400, 'opendata_invalid') });
  await assert.rejects(client.openData({ rawData: 'x', signature: 'y' }), { code: 'opendata_invalid' });
  const fetch = () => Promise.reject({ errMsg: 'getWeRunData:fail auth deny', errno: 103 });
  const want = { name: 'MinigateError', code: 'fetch_failed', errMsg: 'getWeRunData:fail auth deny', errno: 103 };
  await assert.rejects(client.openData({ fetch }), want);
  const error = await new Promise((fail) => client.openData({ fetch, fail }));
  assert.equal(error.code, 'fetch_failed');
  assert.equal(wx.logins, 1);
});

test('openData: an answer that is not ours is an error', async () => {
  const { client } = setup({ '/auth/opendata': () => ({ statusCode: 200, data: '<html>' }) });
  await assert.rejects(client.openData({ rawData: 'x', signature: 'y' }), { code: 'bad_answer', data: '<html>' });
});

test("phone: takes the button's detail as it is", async () => {
  const number = { phone_number: '13800000000', pure_phone_number: '13800000000', country_code: '86', jws: 'signed' };
  const { wx, client } = setup({ '/auth/phone': () => ({ statusCode: 200, data: number }) });
  const detail = { code: 'button-code', errMsg: 'getPhoneNumber:ok', encryptedData: 'old', iv: 'old' };
  assert.deepEqual(await client.phone(detail), {
    phoneNumber: '13800000000', purePhoneNumber: '13800000000', countryCode: '86', jws: 'signed',
  });
  assert.deepEqual(wx.calls.at(-1).data, { code: 'button-code' });
  const sent = wx.calls.length;
  const want = { code: 'authorization_refused', errMsg: 'getPhoneNumber:fail user deny' };
  await assert.rejects(client.phone({ errMsg: want.errMsg }), want);
  assert.equal(wx.calls.length, sent, 'a refusal is not sent');
});

test('ticket: asks for a scope', async () => {
  const { wx, client } = setup({ '/auth/ticket': () => ({ statusCode: 200, data: { ticket: 'mgt_1', expires_in: 300 } }) });
  assert.deepEqual(await client.ticket('socket'), { ticket: 'mgt_1', expiresIn: 300 });
  assert.deepEqual(wx.calls.at(-1).data, { scope: 'socket' });
});

test('fileUrl: one ticket per file for half its life, and never past its session', async (t) => {
  const clock = fakeClock(t);
  let made = 0;
  const { wx, client } = setup({
    '/auth/ticket': () => ({ statusCode: 200, data: { ticket: `mgt_k.${++made}+/`, expires_in: 300 } }),
  });
  const url = async (file) => {
    const answer = client.fileUrl(file);
    await clock.settle();
    return answer;
  };
  const first = await url({ id: 'f1', url: '/files/f1', size: 4 });
  assert.equal(first, `${baseUrl}/files/f1?ticket=mgt_k.1%2B%2F`);
  assert.deepEqual(wx.calls.at(-1).data, { scope: 'file:f1:read' });
  assert.equal(await url('f1'), first);
  assert.notEqual(await url('f2'), first);
  await clock.pass(149_000);
  assert.equal(await url('f1'), first);
  await clock.pass(2_000);
  const second = await url('f1');
  assert.notEqual(second, first);
  client.login();
  await clock.settle();
  assert.notEqual(await url('f1'), second);
  assert.equal(made, 4);
});

for (const [name, options, api, want] of [
  ['brand and model', {}, { getDeviceInfo: () => ({ brand: 'Xiaomi', model: '2407FRK8EC' }) }, 'Xiaomi 2407FRK8EC'],
  ['an old base library', {}, { getSystemInfoSync: () => ({ brand: 'iPhone', model: 'iPhone X' }) }, 'iPhone X'],
  ['no model', {}, { getDeviceInfo: () => ({}) }, undefined],
  ['a wx that throws', {}, { getDeviceInfo: () => JSON.parse('{') }, undefined],
  ['a wx that does not know', {}, {}, undefined],
  ['one of the app', { device: 'till 7' }, { getDeviceInfo: () => ({ model: 'x' }) }, 'till 7'],
  ['one that is too long', { device: '📱'.repeat(70) }, {}, '📱'.repeat(64)],
  ['opted out', { device: false }, { getDeviceInfo: () => ({ model: 'x' }) }, undefined],
]) {
  test(`device: ${name}`, async () => {
    const { wx, client } = setup({}, options);
    Object.assign(wx, api);
    await client.login();
    assert.deepEqual(wx.calls[0].data, want === undefined ? { code: 'code-1' } : { code: 'code-1', device: want });
  });
}

test('a missing token is cured by a login, too', async () => {
  let seen = 0;
  const { wx, client } = setup({
    '/api/x': () => (++seen === 1 ? refusal(401, 'token_missing') : { statusCode: 200, data: {} }),
  });
  await client.request({ url: '/api/x' });
  assert.deepEqual(urls(wx), ['/auth/login', '/api/x', '/auth/login', '/api/x']);
});
