// The stock miniprogram-file-uploader of WeChat's team: a file that arrives
// whole over lines that break.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { build } from 'esbuild';
import { badLine } from './lib/bad-line.mjs';
import { baseUrl, login, unique } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';

const MB = 1 << 20;
const bytes = randomBytes(23 * MB + 45);
const { token } = await login(unique('uploader'));
const authorization = { Authorization: `Bearer ${token}` };
const line = await badLine();
const sent = []; // indexes of chunks

// As much of wx as the uploader uses; base library 2.10.0 has all of it.
globalThis.wx = {
  getAccountInfoSync: () => ({ miniProgram: { appId: 'wx1' } }),
  getSystemInfoSync: () => ({ SDKVersion: '3.0.0' }),
  getFileSystemManager: () => ({
    readFile: ({ position, length, success }) =>
      queueMicrotask(() => success({ data: bytes.buffer.slice(bytes.byteOffset + position, bytes.byteOffset + position + length) })),
  }),
  request({ url, data, method = 'GET', header, timeout, success, fail }) {
    const stop = new AbortController();
    if (method === 'GET' && data) url += (url.includes('?') ? '&' : '?') + new URLSearchParams(data);
    else sent.push(Number(new URL(url).searchParams.get('index')));
    fetch(url, { method, headers: header, body: method === 'GET' ? undefined : data, signal: AbortSignal.any([stop.signal, AbortSignal.timeout(timeout)]) })
      .then(async (response) => success({ statusCode: response.status, data: await response.json(), errMsg: 'request:ok' }))
      .catch((error) => fail({ errMsg: `request:fail ${stop.signal.aborted ? 'abort' : error}` }));
    return { abort: () => stop.abort() };
  },
};
const bundle = await build({
  stdin: { contents: "export { default } from 'miniprogram-file-uploader'", resolveDir: import.meta.dirname },
  bundle: true,
  write: false,
  format: 'esm',
  logLevel: 'error',
});
const { default: Uploader } = await import(`data:text/javascript;base64,${Buffer.from(bundle.outputFiles[0].contents).toString('base64')}`);

async function ticket() {
  const response = await fetch(`${baseUrl}/auth/ticket`, {
    method: 'POST',
    headers: { ...authorization, 'Content-Type': 'application/json' },
    body: JSON.stringify({ scope: 'upload' }),
  });
  assert.equal(response.status, 200);
  return (await response.json()).ticket;
}

/** What `docs/files.md` shows. */
async function uploader(options = {}) {
  const base = `${line.url}/files/uploader`;
  const query = `ticket=${await ticket()}`;
  return new Uploader({
    tempFilePath: 'wxfile://tmp_1.bin',
    totalSize: bytes.length,
    fileName: '海报 & co.bin',
    verifyUrl: `${base}/verify?${query}`,
    uploadUrl: `${base}/chunk`,
    mergeUrl: `${base}/merge?${query}`,
    header: authorization,
    testChunks: true,
    timeout: 60_000,
    ...options,
  });
}

function run(it) {
  sent.length = 0;
  return new Promise((resolve, reject) => {
    it.on('success', resolve);
    it.on('fail', reject);
    it.upload();
  });
}

async function same(file) {
  assert.match(file.id, /^[A-Z2-7]{26}$/);
  const response = await fetch(`${baseUrl}${file.url}`, { headers: authorization });
  assert.equal(response.status, 200);
  const data = Buffer.from(await response.arrayBuffer());
  assert.ok(data.equals(bytes), `${data.length} other bytes came back`);
}

await step('a line that breaks ends the upload', async () => {
  line.breakAfter(9 * MB);
  const error = await run(await uploader({ maxConcurrency: 1 })).then(assert.fail, (e) => e);
  assert.equal(error.errCode, 20002);
  assert.equal(line.broken(), 1);
});

const file = await step('it goes on with the chunks that are missing', async () => {
  const answer = await run(await uploader());
  assert.deepEqual([...sent].sort(), [1, 2, 3, 4]);
  assert.equal(answer.errCode, 0);
  assert.equal(answer.size, bytes.length);
  assert.equal(answer.name, '海报 & co.bin');
  await same(answer);
  return answer;
});

await step('a file that is there is not sent again', async () => {
  const answer = await run(await uploader());
  assert.deepEqual(sent, []);
  assert.equal(answer.id, file.id);
});

await step('five chunks at once, without looking first, and with the ticket in the query', async () => {
  const answer = await run(await uploader({ testChunks: false, header: {}, query: { ticket: await ticket() } }));
  assert.equal(sent.length, 5);
  assert.notEqual(answer.id, file.id);
  await same(answer);
});

line.close();
done();
