// Downloads in pieces, and pieces that are joined.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from '../dist/index.mjs';
import { fakeClock } from './clock.mjs';
import { fakeGate, fakeWx, refusal } from './fake-wx.mjs';

const baseUrl = 'https://gate.example.com';

/** Serves a file by ranges. `fail(request)` may answer in its place. */
function ranged({ etag = '"v1"', length = content.length, fail = () => undefined } = {}) {
  const gate = fakeGate({
    '/files/f1': (request) => {
      const { method, header } = request;
      const early = fail(request);
      if (early) return early;
      const plain = { 'Content-Length': String(length), ETag: etag };
      if (method === 'HEAD') return { statusCode: 200, header: plain };
      if (header['If-Match'] !== etag) return refusal(412, 'precondition_failed');
      const m = (header.Range || '').match(/bytes=(\d+)-(\d+)/);
      if (!m) return { statusCode: 200, data: Uint8Array.from(content).buffer };
      return { statusCode: 206, data: Uint8Array.from(content.slice(Number(m[1]), Number(m[2]) + 1)).buffer };
    },
  });
  const wx = fakeWx({ serve: gate.serve });
  return { gate, wx, client: createClient({ baseUrl, wx }) };
}
/** A call of the file system that fails. */
function breaking(wx, method, failure) {
  const fs = wx.getFileSystemManager();
  wx.getFileSystemManager = () => ({ ...fs, [method]: ({ fail }) => setImmediate(() => fail(failure)) });
}
const join = { url: '/files/f1', partSize: 10, join: true, filePath: 'usr/f' };
const content = Array.from({ length: 25 }, (_, i) => i);

test('download in pieces: in order, one at a time', async () => {
  const { wx, client } = ranged();
  const parts = [];
  let busy = false;
  const seen = [];
  const answer = await client.download({
    url: '/files/f1',
    partSize: 10,
    onProgress: ({ sent, total }) => seen.push([sent, total]),
    onPart: async ({ tempFilePath, ...part }) => {
      assert.ok(!busy);
      busy = true;
      await new Promise(setImmediate);
      busy = false;
      parts.push({ ...part, bytes: [...new Uint8Array(wx.files.get(tempFilePath))] });
    },
  });
  assert.equal(answer.statusCode, 200);
  assert.deepEqual(parts.map(({ bytes, ...p }) => p), [
    { n: 1, offset: 0, size: 10, total: 25 },
    { n: 2, offset: 10, size: 10, total: 25 },
    { n: 3, offset: 20, size: 5, total: 25 },
  ]);
  assert.deepEqual(parts.flatMap((p) => p.bytes), content);
  assert.ok(seen.every(([, total]) => total === 25));
  assert.deepEqual(seen.map(([sent]) => sent), [5, 10, 15, 20, 25, 30], 'behind what came before (the fake says 10 of each piece)');
});

test('download in pieces: joined where there is room, and nothing left where not', async () => {
  const { wx, client } = ranged();
  wx.files.set('usr/f', 'old');
  const { filePath } = await client.download(join);
  assert.equal(filePath, 'usr/f');
  assert.deepEqual([...new Uint8Array(wx.files.get('usr/f'))], content);
  assert.deepEqual([...wx.files.keys()], ['usr/f']);
  wx.room = 20; // and it does not say so
  await assert.rejects(client.download(join), { code: 'no_room' });
  assert.deepEqual([...wx.files.keys()], []);
});

test('download in pieces: an error of the server is one, and a piece is tried again', async (t) => {
  const clock = fakeClock(t);
  const { wx, client } = ranged();
  await assert.rejects(client.download({ url: '/files/none', onPart() {} }), { statusCode: 404 });
  let troubles = 2;
  wx.downloadFile = ((download) => (o) => {
    if (troubles-- <= 0) return download(o);
    setImmediate(() => o.fail({ errMsg: 'downloadFile:fail timeout' }));
    return { abort() {} };
  })(wx.downloadFile);
  let bytes = 0;
  const call = client.download({ url: '/files/f1', partSize: 10, onPart: ({ size }) => void (bytes += size) });
  await clock.pass(10_000);
  await call;
  assert.equal(bytes, 25);
});

test('download in pieces: a token refused midway costs a login, and no piece comes twice', async () => {
  const { gate, wx, client } = ranged();
  const parts = [];
  const onPart = ({ n, tempFilePath }) => {
    parts.push([n, ...new Uint8Array(wx.files.get(tempFilePath))]);
    gate.valid.clear();
  };
  await client.download({ url: '/files/f1', partSize: 10, onPart });
  assert.deepEqual(parts, [[1, ...content.slice(0, 10)], [2, ...content.slice(10, 20)], [3, ...content.slice(20)]]);
  assert.equal(wx.logins, 3);
  assert.equal(wx.calls.filter((c) => c.method === 'HEAD').length, 1);
  gate.login = () => ({ statusCode: 200, data: { token: 'never-valid', expires_in: 1, user: {} } });
  await assert.rejects(client.download({ url: '/files/f1', partSize: 10, onPart }), { code: 'http_401' });
});

const limit = 200 << 20; // of WeChat, for all that a mini-program keeps

test('download in pieces: what cannot have room is not begun', async () => {
  const large = ranged({ length: limit + 1 });
  await assert.rejects(large.client.download(join), { code: 'no_room', statusCode: 0 });
  for (const listing of ['list', 'object']) {
    const { wx, client } = ranged();
    wx.env = { USER_DATA_PATH: 'usr' };
    if (listing === 'object') wx.getFileSystemManager = older(wx.getFileSystemManager());
    wx.files.set('usr/f', 'old');
    wx.files.set('usr/other', new ArrayBuffer(limit - content.length + 1));
    await assert.rejects(client.download(join), { code: 'no_room' }, listing);
    assert.equal(wx.calls.filter((c) => c.kind === 'downloadFile').length, 0);
    assert.equal(wx.files.get('usr/f'), 'old', 'what is there stays');
    wx.files.set('usr/other', new ArrayBuffer(limit - content.length));
    wx.files.set('usr/f.part', 'of an app that was killed');
    await client.download(join); // in place of what is there
    assert.deepEqual([...new Uint8Array(wx.files.get('usr/f'))], content);
  }
  const nowhere = ranged();
  nowhere.wx.getFileSystemManager = undefined;
  await assert.rejects(nowhere.client.download(join), { code: 'no_room' });
  assert.equal(nowhere.wx.calls.filter((c) => c.kind === 'downloadFile').length, 0);
});

/** Stats of a folder as older wx gives them: by path. */
function older(fs) {
  const stat = (o) => fs.stat({ ...o, success: ({ stats }) => o.success({ stats: Array.isArray(stats) ? Object.fromEntries(stats.map((s) => [s.path, s.stats])) : stats }) });
  return () => ({ ...fs, stat });
}

test('download in pieces: nothing stays of what did not become whole, and the error is its own', async () => {
  const gone = (r) => (/bytes=10-/.test(r.header.Range) ? refusal(404, 'file_not_found') : undefined);
  const mine = new Error('of the app');
  const denied = { errMsg: 'fail permission denied', errno: 1300013 };
  for (const [name, options, prepare, want] of [
    ['a piece that is refused', { fail: gone }, {}, { code: 'file_not_found', statusCode: 404 }],
    ['an onPart that throws', {}, { onPart: ({ n }) => { if (n === 2) throw mine; } }, mine],
    ['a piece that cannot be read', {}, ['readFile', denied], { code: 'file_unreadable', errno: 1300013 }],
    ['a file that cannot be written', {}, ['writeFile', denied], { code: 'file_unwritable', errno: 1300013 }],
    ['nor gone on with', {}, ['appendFile', denied], { code: 'file_unwritable', errMsg: denied.errMsg }],
    ['nor renamed', {}, ['rename', denied], { code: 'file_unwritable' }],
    ['no room, by number', {}, ['appendFile', { errMsg: 'fail', errno: 1300202 }], { code: 'no_room', errno: 1300202 }],
    ['no room, in words', {}, ['appendFile', { errMsg: 'fail the maximum size of the file storage limit is exceeded' }], { code: 'no_room' }],
  ]) {
    const { wx, client } = ranged(options);
    if (Array.isArray(prepare)) breaking(wx, ...prepare);
    await assert.rejects(client.download({ ...join, ...prepare }), want, name);
    assert.deepEqual([...wx.files.keys()], [], name);
  }
});

test('download in pieces: until it is whole it has another name, and an abort leaves nothing', async () => {
  const { wx, client } = ranged();
  const names = [];
  await client.download({ ...join, onPart: () => void names.push(...wx.files.keys()) });
  assert.ok(names.includes('usr/f.part') && !names.includes('usr/f'), names.join());
  for (const last of [2, 3]) {
    wx.files.clear();
    wx.calls.length = 0;
    const call = client.download({ ...join, onPart: ({ n }) => void (n === last && call.abort()) });
    await assert.rejects(call, { code: 'aborted' });
    for (let i = 0; i < 20; i++) await new Promise(setImmediate);
    assert.deepEqual([...wx.files.keys()], []);
    assert.equal(wx.calls.filter((c) => c.kind === 'downloadFile').length, last);
  }
});
