// The four wx calls made by uni-h5 in headless Chromium, normally over TLS.
//   CHROMIUM        the browser, default /usr/bin/chromium
//   CROSS_ORIGIN=1  serves the page from a loopback origin of its own: the
//                   gateway must then allow that origin (PAGE_PORT fixes its port)
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';
import { api, baseUrl, loginCode, unique } from './lib/env.mjs';
import { done, step } from './lib/steps.mjs';
import { uniBundle, uniConfig } from './lib/uni.mjs';

const args =
  '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update ' +
  '--disable-sync --ignore-certificate-errors --disable-features=LocalNetworkAccessChecks';
const bytes = randomBytes(300_000);
const script = await uniBundle();
const html =
  '<!doctype html><meta charset="utf-8"><div id="app"></div>' +
  `<script>${uniConfig}</script><script src="script.js"></script>`;
const answer = (url) =>
  url.endsWith('/script.js')
    ? { contentType: 'text/javascript; charset=utf-8', body: script }
    : { contentType: 'text/html; charset=utf-8', body: html };

const browser = await step('Chromium starts', () =>
  chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: args.split(' ') }), 60_000);
const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
page.on('pageerror', (error) => console.log(`# page: ${error.message}`));
const noise = /status of 40[14]/; // asked for by the steps
page.on('console', (m) => m.type() === 'error' && !noise.test(m.text()) && console.log(`# console: ${m.text()}`));

// The page's steps run in the page and are reported here.
const names = new Map();
await page.exposeFunction('begin', (id, name) => {
  const outcome = {};
  outcome.promise = new Promise((resolve, reject) => Object.assign(outcome, { resolve, reject }));
  names.set(id, { outcome, reported: step(name, () => outcome.promise, 30_000) });
});
await page.exposeFunction('end', (id, failure) => {
  const { outcome, reported } = names.get(id);
  if (failure) outcome.reject(failure);
  else outcome.resolve();
  return reported;
});
await page.exposeFunction('push', (openid, data) => api('push', { users: [openid], data }));

await step('uni-h5 boots in the page', async () => {
  await page.goto(await servePage());
  await page.waitForFunction(() => globalThis.e2e);
}, 60_000);
const code = await loginCode(unique('uni-chromium'));
const base64 = bytes.toString('base64');
await page.evaluate(inPage, { baseUrl, code, base64, forge: process.env.CROSS_ORIGIN ? {} : undefined });
await browser.close();
done();

/** On the gateway's own origin the page is put in by the browser's router. */
async function servePage() {
  if (process.env.CROSS_ORIGIN) {
    const server = createServer((request, response) => {
      const { contentType, body } = answer(request.url);
      response.writeHead(200, { 'Content-Type': contentType }).end(body);
    });
    await new Promise((resolve) => server.listen(Number(process.env.PAGE_PORT || 0), '127.0.0.1', resolve));
    return `http://127.0.0.1:${server.address().port}/`;
  }
  const folder = `${baseUrl}/__e2e/`;
  await page.route(`${folder}**`, (route) => route.fulfill(answer(route.request().url())));
  return folder;
}

async function inPage({ baseUrl, code, base64, forge }) {
  let ids = 0;
  const step = async (name, run) => {
    const id = ++ids;
    await begin(id, name);
    try {
      const result = await run();
      await end(id);
      return result;
    } catch (e) {
      await end(id, String((e && (e.stack || e.errMsg)) || JSON.stringify(e)));
      throw e;
    }
  };
  await globalThis.e2e.fourCalls({
    wx: globalThis.e2e.wx,
    baseUrl,
    code,
    push: globalThis.push,
    bytes: Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)),
    dataUrl: `data:application/octet-stream;base64,${base64}`,
    read: async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer()),
    step,
    forge,
  });
}
