// The four wx calls made by uni-h5 in Node with jsdom.
import { randomBytes } from 'node:crypto';
import { api, baseUrl, loginCode, unique } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';
import { uniPage } from './lib/uni-jsdom.mjs';

const bytes = randomBytes(300_000);
const { e2e, readFile } = await step('uni-h5 boots in jsdom', () => uniPage(baseUrl), 30_000);
await e2e.fourCalls({
  wx: e2e.wx,
  baseUrl,
  code: await loginCode(unique('uni-node')),
  push: (openid, data) => api('push', { users: [openid], data }),
  bytes,
  dataUrl: `data:application/octet-stream;base64,${bytes.toString('base64')}`,
  read: readFile,
  step,
});
done();
