// Opens the console in headless Chromium while sockets come and go, and looks
// whether its numbers move; then looks after a user. What it needs to know is
// in lib/env.mjs; SCREENSHOT is a path that ends in .png, and optional. WeChat
// has to refuse the first login with errcode 40164 for 192.0.2.7.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { launch, picture, shows, signIn } from './lib/browser.mjs';
import { baseUrl, loginCode, opsUrl, wsUrl } from './lib/env.mjs';

const users = ['ann', 'bob', 'eve', 'joe', 'kim'];

const login = async (user, device) => {
  const res = await fetch(`${baseUrl}/auth/login`, { method: 'POST', body: JSON.stringify({ code: await loginCode(user), device }) });
  return { status: res.status, ...(await res.json()) };
};

const connect = async (user) => {
  const { token } = await login(user, `${user}'s phone`);
  const ws = new WebSocket(wsUrl, ['centrifuge-json', 'bearer.' + token]);
  ws.ended = new Promise((resolve) => ws.on('close', (code, reason) => resolve({ code, reason: String(reason) })));
  await new Promise((resolve, reject) => {
    ws.onmessage = resolve;
    ws.onerror = reject;
    ws.onopen = () => ws.send('{"id":1,"connect":{"name":"console-test"}}');
  });
  return ws;
};

const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, locale: 'en-US' });
  page.setDefaultTimeout(15_000);
  page.on('dialog', (d) => d.accept());
  const problems = [];
  page.on('pageerror', (e) => problems.push(String(e)));
  await page.goto(opsUrl + '/');
  await signIn(page, 'not the key at all');
  await page.waitForSelector('[role=alert]');
  await signIn(page);
  await page.waitForFunction(() => document.getElementById('live')?.classList.contains('good'));
  await shows(page, '#stat-connections', '0');
  console.log('ok - the page is live, nobody is connected');

  assert.equal((await login('ann')).status, 500);
  await page.waitForSelector('#alerts:has-text("192.0.2.7")');
  await picture(page, 'alerts', '下行消息');
  console.log('ok - what WeChat objects to is said, with the address to let in');

  const sockets = await Promise.all(users.map(connect));
  await shows(page, '#stat-connections', String(users.length));
  await page.waitForFunction((n) => document.querySelectorAll('#connections tbody tr').length === n, users.length);
  await page.waitForSelector('#alerts', { state: 'detached' });
  await picture(page, 'overview', '下行消息');
  console.log('ok - sockets came, and the alert went');

  await page.click('#connections button');
  await shows(page, '#stat-connections', String(users.length - 1));
  console.log('ok - one was disconnected by the button');

  const blocked = sockets.findIndex((ws) => ws.readyState === WebSocket.OPEN);
  await lookAfter(page, users[blocked], sockets[blocked]);
  await page.click('.views a'); // back to the overview
  await shows(page, '#stat-connections', String(users.length - 2));
  console.log('ok - the socket of the blocked user went');

  for (const ws of sockets) ws.close();
  await shows(page, '#stat-connections', '0');
  console.log('ok - sockets went');
  assert.deepEqual(problems, []);
} finally {
  await browser.close();
}

/** Looks a user up, ends one of two sessions, blocks and unblocks. */
async function lookAfter(page, user, socket) {
  const { user: { openid } } = await login(user, '旧手机');
  await page.click('#to-users');
  await page.fill('input[name=openid]', openid);
  await page.click('button.primary');
  const row = (device) => page.locator('#sessions tbody tr', { hasText: device });
  await row('旧手机').waitFor();
  await row(`${user}'s phone`).waitFor();
  await picture(page, 'user', '最近活跃');
  await row('旧手机').locator('button').click();
  await row('旧手机').waitFor({ state: 'detached' });
  assert.equal(await row('phone').count(), 1);
  assert.equal(socket.readyState, WebSocket.OPEN);
  console.log('ok - a user was looked up, one of two sessions ended');

  await page.fill('input[name=reason]', 'spam');
  await page.selectOption('select[name=length]', '3600');
  await page.click('button.danger');
  await shows(page, '#block', 'blocked');
  await page.waitForSelector('#sessions', { state: 'detached' });
  const { code, reason } = await socket.ended;
  assert.ok(code >= 3500, `closed with ${code} ${reason}: an SDK would come back`);
  const refused = await login(user);
  assert.deepEqual([refused.status, refused.error?.code], [403, 'user_blocked']);
  assert.match(refused.error.message, /spam/);
  await page.reload(); // the view is part of the address
  await shows(page, '#block', 'blocked');
  await picture(page, 'blocked', '已封禁');
  console.log(`ok - the user was blocked: ${code} ${reason}; ${refused.error.message}`);

  await page.click('#unblock');
  await shows(page, '#block', 'may log in');
  assert.equal((await login(user)).status, 200);
  console.log('ok - the user was unblocked, and logged in');
}
