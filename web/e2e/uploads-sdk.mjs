// Large files with our own SDK on uni-h5's wx in jsdom.
//   RESTART_URL  a POST kills minigate (-9) and answers when it is back
//   PART_SIZE    bytes of its parts
//   TARGET       where uploads have to go: gateway or storage
import { createClient } from '@minigate/sdk';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { baseUrl, loginCode, unique } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';
import { uniPage } from './lib/uni-jsdom.mjs';

const { e2e, readFile, bufferOf } = await step('uni-h5 boots in jsdom', () => uniPage(baseUrl), 60_000);
const partSize = Number(process.env.PART_SIZE);
const files = new Map();
let written = 1; // when all of them were
let logins = 0;
let onPut = async () => {};
const puts = [];
const targets = new Set();
// The browser has no wx.login and no files: the simulator and a Map stand in.
const wx = Object.assign({}, e2e.wx, {
  login({ success, fail }) {
    logins++;
    loginCode(user).then((code) => success({ code, errMsg: 'login:ok' }), (e) => fail({ errMsg: `login:fail ${e.message}` }));
  },
  getDeviceInfo: () => ({ brand: 'Node', model: 'jsdom' }),
  getFileSystemManager: () => ({
    stat: ({ path, success, fail }) =>
      files.has(path) ? success({ stats: { size: files.get(path).length, lastModifiedTime: written } }) : fail({ errMsg: 'stat:fail no such file' }),
    readFile: ({ filePath, position, length, success }) =>
      success({ data: bufferOf(files.get(filePath).subarray(position, position + length)) }),
  }),
  request(options) {
    const succeed = (answer) => {
      if (answer.data && answer.data.target) targets.add(answer.data.target);
      options.success(answer);
    };
    if (options.method !== 'PUT') return e2e.wx.request({ ...options, success: succeed });
    puts.push(Number(new URL(options.url).searchParams.get('partNumber') || options.url.match(/parts\/(\d+)/)[1]));
    let task;
    onPut(puts.length).then(() => {
      task = e2e.wx.request(options);
    });
    return { abort: () => task && task.abort() };
  },
});
const user = unique('uploads');
const client = createClient({ baseUrl, wx });
const count = 12;
files.set('tmp/film', randomBytes((count - 1) * partSize + 1234));
files.set('tmp/other', randomBytes(5 * partSize));

const fetched = async (id, want) => {
  const got = [];
  await client.download({
    url: `/files/${id}`,
    partSize: 2 * partSize,
    onPart: async ({ tempFilePath }) => void got.push(Buffer.from(await readFile(tempFilePath))),
  });
  assert.equal(got.length, Math.ceil(want.length / (2 * partSize)));
  assert.ok(Buffer.concat(got).equals(want), 'bytes differ');
};

await step('an upload in parts, during which minigate is killed', async () => {
  let restarting;
  onPut = async (n) => {
    if (n === 5) restarting = fetch(process.env.RESTART_URL, { method: 'POST' }); // under the others
  };
  const seen = [];
  const { data } = await client.upload({
    filePath: 'tmp/film', fileName: '电影.bin', mode: 'parts', onProgress: ({ sent, total }) => seen.push([sent, total]),
  });
  assert.equal((await restarting).status, 200);
  onPut = async () => {};
  const want = files.get('tmp/film');
  assert.deepEqual([data.name, data.size], ['电影.bin', want.length]);
  assert.deepEqual(seen.at(-1), [want.length, want.length]);
  assert.equal(seen.length, count + 1, 'one for each part, and one before');
  assert.deepEqual([...new Set(puts)].sort((a, b) => a - b), Array.from({ length: count }, (_, i) => i + 1));
  assert.equal(logins, 1);
  await fetched(data.id, want);
}, 90_000);

/** An app that dies when two parts of a file have arrived. */
async function killed(filePath) {
  let left = 2;
  const dying = Object.assign({}, wx, {
    request: (o) => (o.method === 'PUT' && left-- <= 0 ? { abort() {} } : wx.request(o)), // nothing comes back from it any more
  });
  await new Promise((half) =>
    createClient({ baseUrl, wx: dying }).upload({ filePath, mode: 'parts', onProgress: (p) => p.sent === 2 * partSize && half() }),
  );
  puts.length = 0;
}

await step('an app that is killed, and goes on with what is missing', async () => {
  await killed('tmp/other');
  const { data } = await createClient({ baseUrl, wx }).upload({ filePath: 'tmp/other', mode: 'parts' });
  assert.equal(puts.length, 3);
  await fetched(data.id, files.get('tmp/other'));
}, 60_000);

await step('an app that is killed, and a file that is another when it is back', async () => {
  await killed('tmp/other');
  files.set('tmp/other', randomBytes(5 * partSize));
  written++;
  const { data } = await createClient({ baseUrl, wx }).upload({ filePath: 'tmp/other', mode: 'parts' });
  assert.equal(puts.length, 5);
  await fetched(data.id, files.get('tmp/other'));
}, 60_000);

await step('a small file as a form', async () => {
  const bytes = randomBytes(5000);
  const seen = [];
  const { data } = await client.upload({
    filePath: `data:application/octet-stream;base64,${bytes.toString('base64')}`, size: bytes.length, fileName: 'a.bin', onProgress: (p) => seen.push(p.progress),
  });
  assert.deepEqual([data.name, data.size, seen.at(-1)], ['a.bin', bytes.length, 100]);
  await fetched(data.id, bytes);
});

if (process.env.TARGET === 'storage') {
  await step('a phone that may not speak to the storage: through minigate', async () => {
    const tried = [];
    const fenced = (method) => (o) => {
      if (o.url.startsWith(baseUrl)) return wx[method](o);
      tried.push(method);
      setTimeout(() => o.fail({ errMsg: `${method}:fail url not in domain list`, errno: 600002 }));
      return { abort() {}, onProgressUpdate() {} };
    };
    const kept = new Map();
    const behind = createClient({
      baseUrl,
      wx: {
        ...wx,
        request: fenced('request'), uploadFile: fenced('uploadFile'),
        getStorageSync: (key) => kept.get(key) ?? '', setStorageSync: (key, value) => kept.set(key, value), removeStorageSync: (key) => kept.delete(key),
      },
    });
    const { data } = await behind.upload({ filePath: 'tmp/other', mode: 'parts' });
    assert.ok(tried.length === 1 || tried.length === 2, `tried by ${tried}`); // two workers
    await fetched(data.id, files.get('tmp/other'));
    const bytes = randomBytes(5000);
    const filePath = `data:application/octet-stream;base64,${bytes.toString('base64')}`;
    for (const key of kept.keys()) if (key.endsWith(':detour')) kept.delete(key);
    tried.length = 0;
    for (let i = 0; i < 2; i++) {
      const small = await behind.upload({ filePath, size: bytes.length });
      await fetched(small.data.id, bytes);
    }
    assert.deepEqual(tried, ['uploadFile'], 'the second one knows');
  }, 60_000);
  targets.delete('gateway');
}

await step('all of it went where it should', async () => assert.deepEqual([...targets], [process.env.TARGET]));

done();
