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
