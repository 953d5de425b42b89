// How many calls files take of those that wx makes at a time.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { baseUrl, puts, setup, whole } from './fake-uploads.mjs';

const settle = async () => {
  for (let i = 0; i < 40; i++) await new Promise(setImmediate);
};

/** A gate that does not answer what `hold` names before `release`, which lets the oldest go. */
function held(hold, options) {
  const waiting = [];
  const fail = (r) => (hold(r) ? new Promise((resolve) => waiting.push(() => resolve())) : undefined);
  const s = setup({ ...options, fail });
  for (const name of 'abcd') s.wx.files.set(`tmp/${name}`, s.content.buffer);
  const upload = (name) => s.client.upload({ filePath: `tmp/${name}`, parallel: 3 });
  const release = async () => {
    waiting.shift()();
    await settle();
  };
  return { ...s, waiting, release, upload };
}

const file = (r) =>
  r.method === 'HEAD'
    ? { statusCode: 200, header: { 'Content-Length': '2' } }
    : { statusCode: r.header.Range ? 206 : 200, data: 'ab' };

test('files take six calls of the ten, whatever they are, and leave the others to the app', async () => {
  const { client, waiting, release, upload } = held((r) => !/\/(auth|api)\//.test(r.url), {
    routes: {
      '/api/hello': () => ({ statusCode: 200, data: { hello: 'world' } }),
      '/files': () => ({ statusCode: 201, data: { id: 'f2' } }),
      '/files/f1': file,
    },
  });
  const all = [
    ...['a', 'b', 'c'].map(upload),
    client.upload({ filePath: 'tmp/small' }),
    client.upload({ filePath: 'tmp/small', name: 'mine' }),
    client.download({ url: '/files/f1' }),
    client.download({ url: '/files/f1', onPart() {} }),
  ];
  await settle();
  assert.equal(waiting.length, 6);
  assert.deepEqual((await client.request({ url: '/api/hello' })).data, { hello: 'world' });
  let most = 0;
  for (; waiting.length; await release()) most = Math.max(most, waiting.length);
  assert.equal(most, 6);
  await Promise.all(all);
});

test('uploads have their turns, and a part is not read before it is its turn', async () => {
  const { wx, content, uploads, waiting, release, upload } = held((r) => r.method === 'PUT');
  const fs = wx.getFileSystemManager();
  let reads = 0;
  wx.getFileSystemManager = () => ({ ...fs, readFile: (o) => (reads++, fs.readFile(o)) });
  const all = ['a', 'b', 'c', 'd'].map(upload);
  for (await settle(); waiting.length; await release()) assert.equal(reads, puts(wx).length);
  await Promise.all(all);
  const counts = { u1: 0, u2: 0, u3: 0, u4: 0 };
  puts(wx).forEach(({ url }, i) => {
    counts[url.match(/uploads\/(u\d)/)[1]]++;
    const sent = Object.values(counts);
    assert.ok(Math.max(...sent) - Math.min(...sent) <= 3, `after ${i + 1}: ${sent}`);
  });
  assert.deepEqual(counts, { u1: 5, u2: 5, u3: 5, u4: 5 });
  for (const u of uploads.values()) assert.ok(whole(u).equals(Buffer.from(content)));
});

for (const [name, order] of [['what is under way', (calls) => calls], ['what waits', (calls) => calls.reverse()]]) {
  test(`abort gives back what it had, also where wx does not say that a call has ended: ${name} first`, async () => {
    const { wx, uploads, content, upload } = held((r) => r.method === 'PUT' && /u[123]\//.test(r.url));
    wx.request = ((request) => (o) => ({ ...request(o), abort() {} }))(wx.request);
    const hung = ['a', 'b', 'c'].map(upload);
    await settle();
    for (let i = 0; i < 6; i++) hung.push(upload('d')); // with the parts that wait more than there are lanes
    await settle();
    const last = upload('d');
    await settle();
    assert.deepEqual([puts(wx).length, uploads.size], [6, 3], 'the others wait');
    const ended = hung.map((call) => assert.rejects(call, { code: 'aborted' }));
    order(hung).forEach((call) => call.abort());
    await Promise.all(ended);
    assert.equal((await last).data.id, 'u4');
    assert.ok(whole(uploads.get('u4')).equals(Buffer.from(content)));
    assert.equal(puts(wx).filter((c) => /u[123]\//.test(c.url)).length, 6, 'what waited is not sent');
    await settle();
    assert.deepEqual([...uploads.keys()], ['u4'], 'given up at the server');
    assert.ok(wx.calls.every((c) => c.url.startsWith(baseUrl)));
  });
}
