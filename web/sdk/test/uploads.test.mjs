import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from '../dist/index.mjs';
import { fakeClock } from './clock.mjs';
import { baseUrl, puts, setup, storage, whole } from './fake-uploads.mjs';
import { refusal } from './fake-wx.mjs';

const kept = (wx) => wx.storage.get(`minigate:@${baseUrl}:uploads`);

for (const target of ['gateway', 'storage']) {
  test(`a small file is one form to the ${target}`, async () => {
    const { wx, uploads, client } = setup({ target });
    const seen = [];
    const { data, statusCode } = await client.upload({
      filePath: 'tmp/small', fileName: 'a.txt', type: 'text/plain', enableHttp2: true, onProgress: (p) => seen.push(p.progress),
    });
    assert.deepEqual([data.id, data.name, statusCode], ['u1', 'a.txt', 201]);
    const { form, size, type } = uploads.get('u1');
    assert.deepEqual([size, type], [4, 'text/plain']);
    assert.deepEqual(form.formData, { key: 'k', policy: 'p' }, 'what was signed, and nothing else');
    assert.deepEqual([form.name, form.filePath, form.header, form.enableHttp2], ['file', 'tmp/small', undefined, true]);
    assert.deepEqual(seen, [50, 100]);
    const confirms = wx.calls.filter((c) => c.url.endsWith('/confirm'));
    assert.equal(confirms.length, target === 'storage' ? 1 : 0, 'the gateway answers with the file');
    assert.equal(kept(wx), undefined);
  });

  test(`a large file is parts to the ${target}: two at a time, each with its own progress`, async () => {
    let open = 0;
    let most = 0;
    const { wx, uploads, content, client } = setup({ target });
    wx.request = ((request) => (o) => {
      if (o.method === 'PUT') most = Math.max(most, ++open);
      return request({ ...o, complete: (r) => (o.method === 'PUT' && open--, o.complete?.(r)) });
    })(wx.request);
    const seen = [];
    const { data } = await client.upload({ filePath: 'tmp/large', onProgress: ({ sent, total }) => seen.push([sent, total]) });
    assert.equal(data.id, 'u1');
    assert.ok(whole(uploads.get('u1')).equals(Buffer.from(content)));
    assert.equal(most, 2);
    assert.deepEqual(seen.map(([sent]) => sent).sort((a, b) => a - b), seen.map(([sent]) => sent));
    assert.deepEqual([seen[0], seen.at(-1), seen.length], [[0, 45], [45, 45], 6]);
    for (const { header } of puts(wx)) {
      assert.equal(header.Authorization, undefined, 'addresses need no token');
      assert.equal('X-Checksum-Crc32c' in header, target === 'gateway', 'the storage gets only what was signed');
    }
    assert.equal(kept(wx), undefined);
  });
}

test('the checksum of a part is CRC-32C', async () => {
  const { wx, client } = setup({ partSize: 9 });
  wx.files.set('tmp/check', '123456789');
  await client.upload({ filePath: 'tmp/check', mode: 'parts' });
  assert.equal(puts(wx)[0].header['X-Checksum-Crc32c'], 'e3069283');
});

test('what fails on the way is sent again, and nothing else', async (t) => {
  const clock = fakeClock(t);
  const troubles = [new Error('interrupted'), new Error('timeout'), refusal(503, 'uploads_busy'), refusal(400, 'checksum_mismatch'), new Error('network')];
  const { wx, uploads, content, client } = setup({ fail: (r) => (/parts\/2\?/.test(r.url) ? troubles.shift() : undefined) });
  const call = client.upload({ filePath: 'tmp/large' });
  await clock.pass(60_000);
  await call;
  assert.ok(whole(uploads.get('u1')).equals(Buffer.from(content)));
  const tries = puts(wx).map((c) => Number(c.url.match(/parts\/(\d+)/)[1]));
  assert.deepEqual(tries.sort(), [1, 2, 2, 2, 2, 2, 2, 3, 4, 5]);
});

test('a part that was refused for good ends it', async () => {
  const { wx, client } = setup({ fail: (r) => (/parts\/2\?/.test(r.url) ? refusal(415, 'type_not_allowed') : undefined) });
  await assert.rejects(client.upload({ filePath: 'tmp/large', parallel: 1 }), { code: 'type_not_allowed', statusCode: 415 });
  assert.equal(puts(wx).length, 2);
});

test('a restarted app goes on with what is missing; the server forgot it: it begins anew', async (t) => {
  const clock = fakeClock(t);
  let down = true;
  const { wx, uploads, content, client } = setup({ fail: (r) => (down && /parts\/[345]\?/.test(r.url) ? new Error('network') : undefined) });
  const call = client.upload({ filePath: 'tmp/large' });
  const failed = assert.rejects(call, { code: 'network_error' });
  await clock.pass(600_000);
  await failed;
  assert.equal(Object.values(kept(wx)).length, 1);
  down = false;
  const before = puts(wx).length;
  const seen = [];
  const restarted = createClient({ baseUrl, wx });
  const { data } = await restarted.upload({ filePath: 'tmp/large', onProgress: ({ sent }) => seen.push(sent) });
  assert.equal(data.id, 'u1');
  assert.ok(whole(uploads.get('u1')).equals(Buffer.from(content)));
  assert.deepEqual(puts(wx).slice(before).map((c) => c.url.match(/parts\/(\d+)/)[1]).sort(), ['3', '4', '5']);
  assert.equal(seen[0], 20);
  assert.equal(kept(wx), undefined);

  down = true;
  const again = assert.rejects(restarted.upload({ filePath: 'tmp/large' }), { code: 'network_error' });
  await clock.pass(600_000);
  await again;
  uploads.clear();
  down = false;
  assert.equal((await createClient({ baseUrl, wx }).upload({ filePath: 'tmp/large' })).data.id, 'u3');
});

test('a file that was rewritten since is begun anew, and what was sent of the old one given up', async (t) => {
  const clock = fakeClock(t);
  let down = true;
  const { wx, uploads, client } = setup({ fail: (r) => (down && /parts\/[345]\?/.test(r.url) ? new Error('network') : undefined) });
  const failed = assert.rejects(client.upload({ filePath: 'tmp/large' }), { code: 'network_error' });
  await clock.pass(600_000);
  await failed;
  down = false;
  const content = Uint8Array.from({ length: 45 }, (_, i) => 100 + i);
  wx.files.set('tmp/large', content.buffer);
  const { data } = await createClient({ baseUrl, wx }).upload({ filePath: 'tmp/large' });
  assert.ok(whole(uploads.get(data.id)).equals(Buffer.from(content)));
  assert.deepEqual([...uploads.keys()], ['u2'], 'the old one counts no more');
});

for (const [name, change, options] of [
  ['when a file changed', (fs) => ({ ...fs, stat: ({ success }) => setImmediate(() => success({ stats: { size: 45 } })) }), {}],
  ['anything of a file', (fs) => ({ ...fs, stat: undefined }), { size: 45 }],
]) {
  test(`where the platform does not tell ${name}, nobody goes on with an upload of it`, async (t) => {
    const clock = fakeClock(t);
    let line = () => new Error('network');
    const { wx, uploads, client } = setup({ fail: (r) => (/parts\/[345]\?/.test(r.url) ? line() : undefined) });
    const fs = wx.getFileSystemManager();
    wx.getFileSystemManager = () => change(fs);
    const failed = assert.rejects(client.upload({ filePath: 'tmp/large', ...options }), { code: 'network_error' });
    await clock.pass(600_000);
    await failed;
    assert.deepEqual([uploads.size, kept(wx)], [0, undefined], 'given up at the server');
    line = () => new Promise(() => {}); // the app is killed
    client.upload({ filePath: 'tmp/large', ...options });
    await clock.settle();
    assert.equal(Object.values(kept(wx)).length, 1);
    line = () => undefined;
    const content = Uint8Array.from({ length: 45 }, (_, i) => 100 + i);
    wx.files.set('tmp/large', content.buffer);
    await createClient({ baseUrl, wx }).upload({ filePath: 'tmp/large', ...options });
    assert.deepEqual([...uploads.keys()], ['u3']);
    assert.ok(whole(uploads.get('u3')).equals(Buffer.from(content)));
  });
}

test('a confirm whose answer was lost is found out', async (t) => {
  const clock = fakeClock(t);
  let lost = true;
  const { client } = setup({ fail: (r) => (lost && r.url.endsWith('/confirm') ? new Error('network') : undefined) });
  const call = assert.rejects(client.upload({ filePath: 'tmp/large' }), { code: 'network_error' });
  await clock.pass(1000);
  await call;
  lost = false;
  assert.equal((await client.upload({ filePath: 'tmp/large' })).data.id, 'u1');
});

test('what came once more while it was confirmed is confirmed again, but not for ever', async () => {
  for (const [codes, asked] of [[['parts_changed', 'upload_changed'], 3], [['parts_changed', 'parts_changed', 'parts_changed'], 3], [['parts_missing'], 1]]) {
    const left = codes.slice();
    const { wx, client } = setup({ fail: (r) => (r.url.endsWith('/confirm') && left.length ? refusal(409, left.shift()) : undefined) });
    const call = client.upload({ filePath: 'tmp/large' });
    if (codes.length === 2) assert.equal((await call).data.id, 'u1');
    else await assert.rejects(call, { code: codes[0] });
    assert.equal(wx.calls.filter((c) => c.url.endsWith('/confirm')).length, asked);
  }
});

test('addresses come by the page, and again when they have expired', async (t) => {
  const clock = fakeClock(t);
  let n = 0;
  const s = setup({ target: 'storage', page: 2, fail: (r) => void (r.method === 'PUT' && ++n === 2 && s.expire()) });
  const call = s.client.upload({ filePath: 'tmp/large' });
  await clock.pass(60_000);
  await call;
  assert.ok(whole(s.uploads.get('u1')).equals(Buffer.from(s.content)));
});

const toStorage = (r) => r.url.startsWith(storage);
const detour = (wx) => wx.storage.get(`minigate:@${baseUrl}:uploads:detour`);

test('a form that does not reach the storage goes to the gateway, and so do those that come soon', async (t) => {
  const clock = fakeClock(t);
  let down = true;
  const order = [];
  const fail = (r) => {
    if (r.url.endsWith('/files/direct')) order.push('reserved');
    if (r.method === 'DELETE') return new Promise((resolve) => setTimeout(resolve, 1000, { statusCode: 204, data: '' })).then((a) => (order.push('given up'), a));
    return down && toStorage(r) ? new Error('url not in domain list') : undefined;
  };
  const { wx, client } = setup({ target: 'storage', fail });
  const seen = [];
  const call = client.upload({ filePath: 'tmp/small', onProgress: (p) => seen.push(p.progress) });
  await clock.pass(1000);
  assert.deepEqual([(await call).data.id, seen], ['u2', [50, 100]]);
  assert.deepEqual(order, ['reserved', 'given up', 'reserved'], 'never two that count');
  const tries = () => wx.calls.filter((c) => c.kind === 'uploadFile').map((c) => (toStorage(c) ? 'storage' : 'gateway'));
  assert.deepEqual(tries(), ['storage', 'gateway']);
  down = false;
  await clock.pass(9 * 60_000);
  assert.ok(detour(wx));
  await createClient({ baseUrl, wx }).upload({ filePath: 'tmp/small' });
  assert.deepEqual(tries().slice(2), ['gateway'], 'also in a restarted app');
  await clock.pass(60_000);
  await client.upload({ filePath: 'tmp/small' });
  assert.deepEqual(tries().slice(3), ['storage'], 'then it is looked at again');
});

test('a form is not sent twice where the line is the trouble, or the storage refuses', async () => {
  const cases = [
    ['refused', () => ({ statusCode: 403, data: '<Error/>' }), 'http_403'],
    ['cut in the background', () => new Error('interrupted'), 'interrupted'],
  ];
  for (const [name, trouble, code] of cases) {
    const { wx, client } = setup({ target: 'storage', fail: (r) => (toStorage(r) ? trouble() : undefined) });
    await assert.rejects(client.upload({ filePath: 'tmp/small' }), { code }, name);
    assert.equal(wx.calls.filter((c) => c.kind === 'uploadFile').length, 1, name);
  }
  const behind = setup({ fail: (r) => (r.kind === 'uploadFile' ? new Error('network') : undefined) });
  await assert.rejects(behind.client.upload({ filePath: 'tmp/small' }), { code: 'network_error' });
  assert.equal(behind.wx.calls.filter((c) => c.kind === 'uploadFile').length, 1, 'the gateway');
  let down = false;
  const { wx, client } = setup({ target: 'storage', fail: (r) => ((down = down || toStorage(r)) ? new Error('network') : undefined) });
  await assert.rejects(client.upload({ filePath: 'tmp/small' }), { code: 'network_error' });
  assert.equal(detour(wx), undefined, 'no line at all says nothing of the storage');
});

test('a form that timed out under way is not sent again; one of which nothing went is', async () => {
  for (const [sent, kinds] of [[true, 1], [false, 2]]) {
    const { wx, client } = setup({ target: 'storage' });
    const uploadFile = wx.uploadFile;
    wx.uploadFile = (o) => {
      if (!o.url.startsWith(storage)) return uploadFile(o);
      wx.calls.push({ kind: 'uploadFile', url: o.url });
      let progress;
      setImmediate(() => {
        if (sent) progress({ progress: 50, totalBytesSent: 2, totalBytesExpectedToSend: 4 });
        o.fail({ errMsg: 'uploadFile:fail timeout' });
      });
      return { abort() {}, onProgressUpdate: (f) => void (progress = f) };
    };
    const call = client.upload({ filePath: 'tmp/small' });
    if (sent) await assert.rejects(call, { code: 'timeout' });
    else await call;
    assert.equal(wx.calls.filter((c) => c.kind === 'uploadFile').length, kinds);
  }
});

test('parts that do not reach the storage go to the gateway, with what has arrived', async (t) => {
  const clock = fakeClock(t);
  const { wx, uploads, content, client } = setup({
    target: 'storage', page: 2, fail: (r) => (toStorage(r) && !/parts\/1\?/.test(r.url) ? new Error('network') : undefined),
  });
  const call = client.upload({ filePath: 'tmp/large' });
  await clock.pass(60_000);
  assert.equal((await call).data.id, 'u1');
  assert.ok(whole(uploads.get('u1')).equals(Buffer.from(content)));
  const sent = puts(wx).map((c) => (toStorage(c) ? 's' : 'g') + c.url.match(/parts\/(\d+)/)[1]);
  assert.deepEqual(sent.filter((s) => s[0] === 'g').sort(), ['g2', 'g3', 'g4', 'g5']);
  assert.ok(sent.filter((s) => s[0] === 's').length <= 5, `a part is tried twice there: ${sent}`);
  assert.ok(puts(wx).every((c) => 'X-Checksum-Crc32c' in c.header !== toStorage(c)));

  const before = puts(wx).length;
  await client.upload({ filePath: 'tmp/large' });
  assert.ok(puts(wx).slice(before).every((c) => !toStorage(c)), 'the next one goes there at once');
});

test('one failure says nothing of the storage', async (t) => {
  const clock = fakeClock(t);
  const troubles = [new Error('network')];
  const { wx, client } = setup({ target: 'storage', fail: (r) => (/parts\/2\?/.test(r.url) ? troubles.shift() : undefined) });
  const call = client.upload({ filePath: 'tmp/large' });
  await clock.pass(60_000);
  await call;
  assert.ok(puts(wx).every(toStorage));
  assert.deepEqual([puts(wx).length, detour(wx)], [6, undefined]);
});

test('an upload that is remembered is not taken for one with other readers', async (t) => {
  const clock = fakeClock(t);
  let down = true;
  const { uploads, client } = setup({ fail: (r) => (down && r.url.endsWith('/confirm') ? new Error('network') : undefined) });
  await Promise.all([assert.rejects(client.upload({ filePath: 'tmp/large', channel: 'room:1' })), clock.pass(1000)]);
  down = false;
  await client.upload({ filePath: 'tmp/large' });
  await client.upload({ filePath: 'tmp/large', channel: 'room:1' });
  assert.deepEqual([...uploads.values()].map((u) => [u.query, !!u.file]), [['channel=room%3A1', true], [undefined, true]]);
});

test('a domain that is not allowed is not tried twice for a part', async (t) => {
  const clock = fakeClock(t);
  const { wx, client } = setup({ target: 'storage', fail: (r) => (toStorage(r) ? new Error('url not in domain list') : undefined) });
  const call = client.upload({ filePath: 'tmp/large', parallel: 1 });
  await clock.pass(60_000);
  await call;
  assert.equal(puts(wx).filter(toStorage).length, 1);
});

test('a phone without a line goes on to the storage when it is back', async (t) => {
  const clock = fakeClock(t);
  let line = true;
  const s = setup({ target: 'storage', fail: (r) => (line ? undefined : new Error('network')) });
  const call = s.client.upload({ filePath: 'tmp/large', parallel: 1, onProgress: ({ sent }) => void (sent === 10 && (line = false)) });
  await clock.pass(20_000);
  assert.equal(s.uploads.get('u1').parts.size, 1);
  line = true;
  await clock.pass(60_000);
  await call;
  assert.ok(puts(s.wx).every(toStorage));
  assert.equal(detour(s.wx), undefined);
});

test('who may read is said at the beginning, in whatever way it goes', async () => {
  const { wx, uploads, client } = setup();
  await client.upload({ filePath: 'tmp/small', channel: 'room:1' });
  await client.upload({ filePath: 'tmp/large', public: true });
  assert.deepEqual([...uploads.values()].map((u) => u.query), ['channel=room%3A1', 'public=true']);
  assert.ok(wx.calls.every((c) => !('channel' in c) && !('public' in c)));
  await assert.rejects(client.upload({ filePath: 'tmp/small', name: 'f', channel: 'room:1' }), { statusCode: 404 }); // the fake has none
  assert.match(wx.calls.at(-1).url, /\/files\?size=4&channel=room%3A1$/);
});

test('abort: ends what is under way, tells the server, forgets', async (t) => {
  const clock = fakeClock(t);
  const { wx, uploads, client } = setup({ fail: (r) => (r.method === 'PUT' ? new Promise(() => {}) : undefined) });
  const call = client.upload({ filePath: 'tmp/large' });
  await clock.settle();
  assert.equal(puts(wx).length, 2);
  call.abort();
  await assert.rejects(call, { code: 'aborted' });
  await clock.settle();
  assert.ok(puts(wx).every((c) => c.aborted));
  assert.deepEqual([uploads.size, kept(wx)], [0, undefined]);
});

test('a form that fails is given up at the server', async () => {
  const { uploads, client } = setup({ target: 'storage', fail: (r) => (r.kind === 'uploadFile' ? { statusCode: 403, data: '<Error/>' } : undefined) });
  await assert.rejects(client.upload({ filePath: 'tmp/small' }), { code: 'http_403', statusCode: 403 });
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  assert.equal(uploads.size, 0);
});

test('a file that has changed since is not sent', async () => {
  const { wx, client } = setup();
  await assert.rejects(client.upload({ filePath: 'tmp/large', size: 99, parallel: 1 }), { code: 'file_unreadable' });
  assert.ok(puts(wx).length <= 4);
});
