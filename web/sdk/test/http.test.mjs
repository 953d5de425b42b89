import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient, MinigateError } from '../dist/index.mjs';
import { fakeGate, fakeWx, refusal } from './fake-wx.mjs';

const baseUrl = 'https://gate.example.com';

function setup(routes, options = {}) {
  const gate = fakeGate(routes);
  const wx = fakeWx({ serve: gate.serve });
  return { gate, wx, client: createClient({ baseUrl, wx, ...options }) };
}

const hello = { '/api/hello': () => ({ statusCode: 200, data: { hello: 'world' } }) };
const urls = (wx) => wx.calls.map((c) => c.url.replace(baseUrl, ''));

test('request logs in first, sends the token, gives wx its own result shape', async () => {
  const { wx, client } = setup(hello);
  const result = await client.request({ url: '/api/hello', enableHttp2: true, header: { 'X-Mine': '1' } });
  assert.deepEqual(result.data, { hello: 'world' });
  assert.equal(result.statusCode, 200);
  assert.deepEqual(urls(wx), ['/auth/login', '/api/hello']);
  assert.deepEqual(wx.calls[0].data, { code: 'code-1' });
  assert.deepEqual(wx.calls[1].header, { 'X-Mine': '1', Authorization: 'Bearer token-1' });
  assert.equal(wx.calls[1].enableHttp2, true);
  assert.equal(client.session.user.openid, 'o-code-1');
});

test('a kept session is used after a restart of the app', async () => {
  const { gate, wx, client } = setup(hello);
  await client.login();
  const restarted = createClient({ baseUrl, wx });
  await restarted.request({ url: '/api/hello' });
  assert.equal(wx.logins, 1);
  const other = createClient({ baseUrl, wx, appid: 'wx2' });
  assert.equal(other.session, undefined, 'sessions are kept apart by appid');
  assert.equal(gate.given, 1);
});

test('twenty refused calls cause one login and all succeed', async () => {
  const { gate, wx, client } = setup(hello);
  await client.login();
  gate.valid.clear();
  const results = await Promise.all(Array.from({ length: 20 }, () => client.request({ url: '/api/hello' })));
  assert.equal(results.length, 20);
  assert.ok(results.every((r) => r.data.hello === 'world'));
  assert.equal(wx.logins, 2);
});

test('a call refused after another has logged in uses the new token', async () => {
  let release;
  const gateOpen = new Promise((resolve) => (release = resolve));
  const gate = fakeGate({ ...hello, '/api/slow': () => ({ statusCode: 200, data: {} }) });
  const wx = fakeWx({
    serve: async (request) => {
      const answer = gate.serve(request);
      if (request.url.endsWith('/slow') && answer.statusCode === 401) await gateOpen;
      return answer;
    },
  });
  const client = createClient({ baseUrl, wx });
  await client.login();
  gate.valid.clear();
  const slow = client.request({ url: '/api/slow' });
  await client.request({ url: '/api/hello' });
  release();
  await slow;
  assert.equal(wx.logins, 2);
});

test('a token refused again after the login is an error, not a loop', async () => {
  const { gate, wx, client } = setup(hello);
  gate.login = () => ({ statusCode: 200, data: { token: 'never-valid', expires_in: 1, user: {} } });
  await assert.rejects(client.request({ url: '/api/hello' }), { code: 'token_expired', statusCode: 401 });
  assert.deepEqual(urls(wx), ['/auth/login', '/api/hello', '/auth/login', '/api/hello']);
});

test("the backend's own 401 is not taken for ours", async () => {
  const { wx, client } = setup({ '/api/secret': () => ({ statusCode: 401, data: { reason: 'no' } }) });
  await assert.rejects(client.request({ url: '/api/secret' }), { code: 'http_401', data: { reason: 'no' } });
  assert.equal(wx.logins, 1);
});

for (const [name, answer, want] of [
  [
    'our error body',
    refusal(404, 'not_found'),
    { statusCode: 404, code: 'not_found', message: 'Because of not_found.', requestId: 'r1', errMsg: 'request:ok' },
  ],
  [
    'a foreign body',
    { statusCode: 500, data: '<html>', header: { 'X-Request-Id': 'r2' } },
    { statusCode: 500, code: 'http_500', requestId: 'r2', data: '<html>' },
  ],
  ['no server', new Error('timeout'), { statusCode: 0, code: 'timeout', errMsg: 'request:fail timeout', errno: 600001 }],
  ['cut in the background', new Error('interrupted'), { code: 'interrupted' }],
  ['domain list', new Error('url not in domain list'), { code: 'network_error', message: 'request:fail url not in domain list' }],
]) {
  test(`errors: ${name}`, async () => {
    const { client } = setup({ '/api/x': () => answer });
    const error = await client.request({ url: '/api/x' }).then(assert.fail, (e) => e);
    assert.ok(error instanceof MinigateError && error instanceof Error);
    for (const key of Object.keys(want)) assert.deepEqual(error[key], want[key], key);
  });
}

test('callbacks: success then complete; fail then complete; no unhandled rejection', async () => {
  const unhandled = [];
  const note = (reason) => unhandled.push(reason);
  process.on('unhandledRejection', note);
  const { client } = setup(hello);
  const heard = [];
  const end = (url) =>
    new Promise((resolve) =>
      client.request({
        url,
        success: (r) => heard.push(['success', r.statusCode]),
        fail: (e) => heard.push(['fail', e.code]),
        complete: (r) => resolve(heard.push(['complete', r.statusCode])),
      }),
    );
  await end('/api/hello');
  await end('/api/missing');
  await new Promise((resolve) => client.request({ url: '/api/missing', complete: resolve }));
  await new Promise(setImmediate);
  process.off('unhandledRejection', note);
  assert.deepEqual(heard, [['success', 200], ['complete', 200], ['fail', 'not_found'], ['complete', 404]]);
  assert.deepEqual(unhandled, []);
});

test('a refused wx.login reaches fail of whatever needed it', async () => {
  const { wx, client } = setup(hello);
  wx.loginFailure = { errMsg: 'login:fail auth deny', errno: 3 };
  const want = { code: 'login_failed', errMsg: 'login:fail auth deny', errno: 3, statusCode: 0 };
  await assert.rejects(client.request({ url: '/api/hello' }), want);
  await assert.rejects(client.login(), want);
  const error = await new Promise((resolve) => client.upload({ filePath: 'f', fail: resolve }));
  assert.equal(error.code, 'login_failed');
  wx.loginFailure = undefined;
  await client.request({ url: '/api/hello' });
});

test('a login the server refuses keeps the reason', async () => {
  const { gate, client } = setup(hello);
  gate.login = () => refusal(403, 'user_blocked');
  await assert.rejects(client.login(), { code: 'user_blocked', statusCode: 403, requestId: 'r1' });
  gate.login = () => ({ statusCode: 200, data: '<html>' });
  await assert.rejects(client.login(), { code: 'bad_answer' });
});

test('authorize: a refusal has a code of its own', async () => {
  const { wx, client } = setup();
  wx.authorize = ({ scope, fail }) => setImmediate(() => fail({ errMsg: 'authorize:fail auth deny', scope }));
  const want = { code: 'authorization_refused', errMsg: 'authorize:fail auth deny' };
  await assert.rejects(client.authorize({ scope: 'scope.werun' }), want);
});

test('logins that overlap are one', async () => {
  const { wx, client } = setup(hello);
  const [a, b] = await Promise.all([client.login(), client.login(), client.request({ url: '/api/hello' })]);
  assert.equal(a, b);
  assert.equal(wx.logins, 1);
  await client.login();
  assert.equal(wx.logins, 2, 'asked for later, a login is a new one');
});

const settle = async () => {
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
};

test('abort: during the login nothing more is sent', async () => {
  const { wx, client } = setup(hello);
  const call = client.request({ url: '/api/hello' });
  call.abort();
  await assert.rejects(call, { code: 'aborted', errMsg: 'request:fail abort' });
  await settle();
  assert.deepEqual(urls(wx), ['/auth/login']);
});

test('abort: during the call the wx task is ended, and nobody logs in for it', async () => {
  const gate = fakeGate(hello);
  const wx = fakeWx({ serve: gate.serve });
  const client = createClient({ baseUrl, wx });
  await client.login();
  gate.valid.clear();
  wx.request = (({ request }) => (options) => {
    const task = request(options);
    return { ...task, abort: () => void (wx.calls.at(-1).aborted = true) }; // deaf: the 401 still comes
  })(wx);
  const call = client.request({ url: '/api/hello' });
  await new Promise(process.nextTick); // by then the microtasks have made the wx call
  assert.equal(wx.calls.at(-1).url, `${baseUrl}/api/hello`);
  call.abort();
  await assert.rejects(call, { code: 'aborted' });
  assert.ok(wx.calls.at(-1).aborted);
  await settle();
  assert.equal(wx.logins, 1);
});

test('PATCH travels as POST with an override', async () => {
  const { wx, client } = setup(hello);
  await client.request({ url: '/api/hello', method: 'PATCH', data: { a: 1 } });
  const { method, header, data } = wx.calls.at(-1);
  assert.equal(method, 'POST');
  assert.equal(header['X-HTTP-Method-Override'], 'PATCH');
  assert.deepEqual(data, { a: 1 });
});

test('the token goes to no other host', async () => {
  const { wx, client } = setup();
  for (const url of ['https://elsewhere.example.com/x', `${baseUrl}.evil.com/x`, `${baseUrl}@evil.com/x`]) {
    await client.request({ url }).catch(() => {});
    assert.equal(wx.calls.at(-1).url, url);
    assert.deepEqual(wx.calls.at(-1).header, {});
  }
  assert.equal(wx.logins, 0);
});

test('baseUrl loses :443 and trailing slashes, nothing else', async () => {
  for (const [given, want] of [
    ['https://a.com:443/', 'https://a.com'],
    ['https://a.com:4430', 'https://a.com:4430'],
    ['https://a.com:443/gate//', 'https://a.com/gate'],
    ['http://127.0.0.1:8080', 'http://127.0.0.1:8080'],
  ]) {
    const { wx, client } = setup({}, { baseUrl: given });
    await client.login().catch(() => {}); // the fake gate lives at the root
    assert.equal(wx.calls[0].url, `${want}/auth/login`);
  }
  assert.throws(() => createClient({ baseUrl: 'gate.example.com', wx: {} }), TypeError);
});

test('upload to a URL of ours: size and name in it, no content-type, parsed answer, progress', async () => {
  const record = { id: 'f1', name: '猫.jpg', size: 4 };
  const { wx, client } = setup({ '/files': () => ({ statusCode: 201, data: JSON.stringify(record) }) });
  wx.files.set('http://tmp/a.jpg', 'four');
  const seen = [];
  const task = client.upload({
    filePath: 'http://tmp/a.jpg',
    fileName: '猫.jpg',
    formData: { kind: 'cat' },
    header: { 'Content-Type': 'multipart/form-data' },
    onProgress: (p) => seen.push(p),
  });
  task.onProgressUpdate((p) => seen.push(p.progress));
  const { data, statusCode } = await task;
  assert.deepEqual(data, record);
  assert.equal(statusCode, 201);
  const call = wx.calls.at(-1);
  assert.equal(call.url, `${baseUrl}/files?size=4&name=${encodeURIComponent('猫.jpg')}`);
  assert.equal(call.name, 'file');
  assert.deepEqual(call.formData, { kind: 'cat' });
  assert.deepEqual(call.header, { Authorization: 'Bearer token-1' });
  assert.deepEqual(seen, [{ progress: 50, sent: 5, total: 10 }, 50, { progress: 100, sent: 10, total: 10 }, 100]);
});

test('upload: refused with an error body in a string; an unknown size is left out', async () => {
  const { wx, client } = setup({ '/files': () => refusal(413, 'file_too_large') });
  await assert.rejects(client.upload({ filePath: 'gone' }), { statusCode: 413, code: 'file_too_large' });
  assert.equal(wx.calls.at(-1).url, `${baseUrl}/files`);
});

test('download: an error leaves no file and tells what the server said', async () => {
  const { wx, client } = setup({ '/files/f1': () => ({ statusCode: 200, data: 'bytes' }) });
  const { tempFilePath } = await client.download({ url: '/files/f1' });
  assert.equal(wx.files.get(tempFilePath), 'bytes');
  for (const filePath of [undefined, 'wxfile://usr/mine']) {
    const before = wx.files.size;
    const want = { code: 'not_found', statusCode: 404, requestId: 'r1' };
    await assert.rejects(client.download({ url: '/files/f2', filePath }), want);
    assert.equal(wx.files.size, before);
  }
});

test('download: a refused token is renewed where the body can not be read, too', async () => {
  const { gate, wx, client } = setup({ '/files/f1': () => ({ statusCode: 200, data: 'bytes' }) });
  await client.login();
  for (const readable of [true, false]) {
    if (!readable) wx.getFileSystemManager = undefined;
    gate.valid.clear();
    await client.download({ url: '/files/f1' });
  }
  assert.equal(wx.logins, 3);
});

test('logout: ends the session at the server and here, and forgets it when offline', async () => {
  const { gate, wx, client } = setup(hello);
  await client.login();
  await client.logout();
  assert.equal(gate.valid.size, 0);
  assert.equal(client.session, undefined);
  assert.equal(wx.storage.size, 0);
  await client.logout(); // nothing to end
  await client.login();
  gate.serve = undefined;
  const offline = fakeWx({ serve: () => new Error('timeout') });
  offline.storage = wx.storage;
  const other = createClient({ baseUrl, wx: offline });
  assert.ok(other.session);
  await assert.rejects(other.logout(), { code: 'timeout' });
  assert.equal(other.session, undefined);
  assert.equal(wx.storage.size, 0);
});

test('full or broken storage only costs logins', async () => {
  const { wx } = setup(hello);
  wx.getStorageSync = wx.setStorageSync = wx.removeStorageSync = () => {
    throw new Error('storage limit');
  };
  const client = createClient({ baseUrl, wx });
  await client.request({ url: '/api/hello' });
  await client.request({ url: '/api/hello' });
  assert.equal(wx.logins, 1);
});
