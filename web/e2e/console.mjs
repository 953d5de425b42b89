// Opens the console in headless Chromium while sockets come and go, and looks
// whether its numbers move. OPS_URL, BASE_URL, CODES (one login code per
// socket, comma separated), API_KEY (to sign in), SCREENSHOT (optional path).
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import WebSocket from 'ws';

const { OPS_URL, BASE_URL, CODES, API_KEY, SCREENSHOT } = process.env;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, locale: 'en-US' });
  const problems = [];
  page.on('pageerror', (e) => problems.push(String(e)));
  await page.goto(OPS_URL + '/');
  if (API_KEY) {
    await page.fill('input[name=key]', 'not the key at all');
    await page.click('button.primary');
    await page.waitForSelector('[role=alert]');
    await page.fill('input[name=key]', API_KEY);
    await page.click('button.primary');
  }
  const shows = (id, value) => page.waitForFunction(([i, v]) => document.getElementById(i)?.textContent === v, [id, value], { timeout: 15000 });
  await page.waitForFunction(() => document.getElementById('live')?.classList.contains('good'));
  await shows('stat-connections', '0');
  console.log('ok - the page is live, nobody is connected');

  const codes = CODES.split(',');
  const sockets = await Promise.all(codes.map(async (code) => {
    const res = await fetch(BASE_URL + '/auth/login', { method: 'POST', body: JSON.stringify({ code }) });
    const { token } = await res.json();
    const ws = new WebSocket(BASE_URL.replace('http', 'ws') + '/connection/websocket', ['centrifuge-json', 'bearer.' + token]);
    await new Promise((resolve, reject) => {
      ws.onmessage = resolve;
      ws.onerror = reject;
      ws.onopen = () => ws.send('{"id":1,"connect":{"name":"console-test"}}');
    });
    return ws;
  }));
  await shows('stat-connections', String(sockets.length));
  await page.waitForFunction((n) => document.querySelectorAll('#connections tbody tr').length === n, sockets.length);
  console.log('ok - sockets came');

  await page.click('#language');
  await page.waitForFunction(() => document.body.textContent.includes('下行消息'));
  if (SCREENSHOT) await page.screenshot({ path: SCREENSHOT.replace('.png', '-zh.png'), fullPage: true });
  await page.click('#language');
  if (SCREENSHOT) await page.screenshot({ path: SCREENSHOT, fullPage: true });

  page.on('dialog', (d) => d.accept());
  await page.click('#connections button');
  await shows('stat-connections', String(sockets.length - 1));
  console.log('ok - one was disconnected by the button');

  for (const ws of sockets) ws.close();
  await shows('stat-connections', '0');
  console.log('ok - sockets went');
  assert.deepEqual(problems, []);
} finally {
  await browser.close();
}
