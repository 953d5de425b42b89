// Looks into the dead deliveries in the console, replays one, sees another's
// body, and drops the rest but for one, which goes with "all". What it needs to
// know is in lib/env.mjs; there have to be 60 dead, n-0 being the oldest, and a
// backend that takes them. SCREENSHOT is a path that ends in .png, and optional.
import assert from 'node:assert/strict';
import { launch, picture, shows, signIn } from './lib/browser.mjs';
import { ops, opsUrl } from './lib/env.mjs';

const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, locale: 'en-US' });
  page.setDefaultTimeout(15_000);
  const asked = [];
  let answer = 'accept';
  page.on('dialog', (d) => (asked.push(d.message()), d[answer]()));
  const problems = [];
  page.on('pageerror', (e) => problems.push(String(e)));
  const row = (id) => page.locator('#dead tbody tr').filter({ has: page.locator(`td.id:text-is("${id}")`) });
  const rows = (n) => page.waitForFunction((n) => document.querySelectorAll('#dead td.id').length === n, n);

  await page.goto(opsUrl + '/');
  await signIn(page);
  await page.waitForSelector('#to-webhooks .pill:text-is("60")');
  await page.click('#to-webhooks');
  await shows(page, '#webhook-dead', '60');
  await shows(page, '#webhook-pending', '0');
  const hook = page.locator('#hooks tbody tr').filter({ has: page.locator('td.id:text-is("open_data")') });
  await hook.waitFor();
  assert.equal(await hook.locator('.pill.good, .pill.bad').count(), 0, 'nothing was called yet');
  await rows(50);
  const cells = await row('n-59').locator('td').allTextContents();
  assert.deepEqual(cells.slice(1, 5), ['open_data', 'webhook_unavailable: it answered HTTP 502', '502', '17']);
  assert.doesNotMatch(await page.content(), /13800138000/);
  await page.click('#older');
  await rows(10);
  await row('n-0').waitFor();
  await page.click('#pages button');
  await rows(50);
  await picture(page, 'webhooks', '重新投递');
  console.log('ok - 60 are dead, on two pages, without personal data');

  answer = 'dismiss';
  await row('n-59').locator('.replay').click();
  await row('n-58').locator('.drop').click();
  await row('n-57').locator('.show').click();
  await page.click('#replay-all');
  await page.click('#drop-all');
  assert.equal(asked.length, 5);
  assert.equal(new Set(asked).size, 5);
  assert.equal((await ops('webhooks', {})).queue.dead, 60);
  assert.doesNotMatch(await page.content(), /13800138000/);
  console.log('ok - every action asks, and does nothing after a no');

  answer = 'accept';
  await row('n-59').locator('.replay').click();
  await row('n-59').waitFor({ state: 'detached' });
  await shows(page, '#webhook-dead', '59');
  await row('n-57').locator('.show').click();
  await page.waitForSelector('pre:has-text("13800138000")');
  await row('n-57').locator('.show').click();
  await page.waitForSelector('pre', { state: 'detached' });
  console.log('ok - one was replayed, the body of another shown');

  await row('n-58').locator('.drop').click();
  await row('n-58').waitFor({ state: 'detached' });
  for (let i = 57; i > 0; i--) await ops('webhooks/drop', { delivery: `n-${i}` }); // elsewhere
  await rows(1); // the stream told
  await row('n-0').waitFor();
  await page.reload(); // the view is part of the address
  await row('n-0').waitFor();
  console.log('ok - what was dropped elsewhere went by itself');

  await page.click('#replay-all');
  await page.waitForSelector('#no-dead');
  await hook.locator('.pill.good').waitFor();
  await shows(page, '#webhook-dead', '0');
  await page.waitForSelector('#to-webhooks .pill', { state: 'detached' });
  console.log('ok - the last one was replayed');
  assert.deepEqual(problems, []);
} finally {
  await browser.close();
}
