// The stock tus-js-client: files that arrive whole over lines that break.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import * as tus from 'tus-js-client';
import { badLine } from './lib/bad-line.mjs';
import { baseUrl, login, unique } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';

const MB = 1 << 20;
const bytes = randomBytes(13 * MB + 123);
const { token } = await login(unique('tus'));
const headers = { Authorization: `Bearer ${token}` };
const line = await badLine();

/** Uploads; gives the upload and the last answer's headers. */
function upload(source, options = {}) {
  return new Promise((resolve, reject) => {
    const it = new tus.Upload(source, {
      endpoint: `${line.url}/files/tus/`,
      headers,
      metadata: { filename: '海报.bin', filetype: 'application/octet-stream' },
      retryDelays: [50, 100, 200, 500, 1000, 1000],
      ...options,
      onSuccess: ({ lastResponse }) => resolve({ it, file: lastResponse.getHeader('X-Minigate-File') }),
      onError: (error) => reject(Object.assign(error, { it })),
    });
    it.start();
  });
}

async function download(id) {
  const response = await fetch(`${baseUrl}/files/${id}`, { headers });
  assert.equal(response.status, 200);
  return { data: Buffer.from(await response.arrayBuffer()), name: response.headers.get('Content-Disposition') };
}

async function same(id) {
  const { data, name } = await download(id);
  assert.ok(data.equals(bytes), `${data.length} other bytes came back`);
  assert.match(name, /%E6%B5%B7%E6%8A%A5\.bin/);
}

await step('a file in one request', async () => {
  const { it, file } = await upload(bytes);
  assert.equal(it.url, `${line.url}/files/tus/${file}`);
  await same(file);
});

await step('a line that breaks: the client goes on by itself', async () => {
  line.breakAfter(7 * MB);
  const offsets = [];
  const { file } = await upload(bytes, { onAfterResponse: (req, res) => req.getMethod() === 'HEAD' && offsets.push(Number(res.getHeader('Upload-Offset'))) });
  assert.equal(line.broken(), 1);
  assert.ok(offsets.length >= 1 && offsets.at(-1) > 6 * MB, `it went on at ${offsets}`);
  await same(file);
});

await step('a page that was closed: another one goes on', async () => {
  line.breakAfter(4 * MB);
  const error = await upload(bytes, { retryDelays: null }).then(assert.fail, (e) => e);
  assert.equal(line.broken(), 2);
  const url = error.it.url;
  assert.ok(url, String(error));
  const { it, file } = await upload(bytes, { uploadUrl: url });
  assert.equal(it.url, url);
  await same(file);
});

await step('in pieces smaller than a part, by POST, over a line that breaks', async () => {
  line.breakAfter(6 * MB);
  const { file } = await upload(bytes, { chunkSize: 1 * MB, overridePatchMethod: true });
  assert.equal(line.broken(), 3);
  await same(file);
});

await step('a stream whose length nobody knows', async () => {
  const { file } = await upload(Readable.from([bytes.subarray(0, 6 * MB), bytes.subarray(6 * MB)], { objectMode: false }), { chunkSize: 3 * MB, uploadLengthDeferred: true });
  await same(file);
});

await step('with the bytes in the first request', async () => {
  const { file } = await upload(bytes, { uploadDataDuringCreation: true });
  await same(file);
});

await step('one that is given up is gone', async () => {
  line.breakAfter(2 * MB);
  const error = await upload(bytes, { retryDelays: null }).then(assert.fail, (e) => e);
  await error.it.abort(true);
  const response = await fetch(error.it.url, { method: 'HEAD', headers });
  assert.equal(response.status, 404);
});

line.close();
done();
