import assert from 'node:assert/strict';
import { test } from 'node:test';
import { build } from 'esbuild';

// The browser's code, bundled as it is for the page.
const bundle = async (file) => {
  const { outputFiles } = await build({ entryPoints: [file], bundle: true, format: 'esm', write: false });
  return import('data:text/javascript;base64,' + Buffer.from(outputFiles[0].text).toString('base64'));
};
const { keep, listen, rate } = await bundle(new URL('../src/stream.ts', import.meta.url).pathname);
const { plain } = await bundle(new URL('../src/advice.ts', import.meta.url).pathname);
const { linkedUser, userLink } = await bundle(new URL('../src/link.ts', import.meta.url).pathname);
const { bytes, count, ago, moment, span } = await bundle(new URL('../src/format.ts', import.meta.url).pathname);

const at = (time, delivered_total, cpu_seconds_total = time) => ({ time, delivered_total, cpu_seconds_total });

test('a rate is growth per second', () => {
  assert.equal(rate(at(1000, 10), at(3000, 30), 'delivered_total'), 10);
  assert.equal(rate(undefined, at(3000, 30), 'delivered_total'), 0);
  assert.equal(rate(at(3000, 30), at(4000, 5), 'delivered_total'), 0, 'a counter that restarted is no negative rate');
});

test('samples are kept in order, once, and for five minutes', () => {
  let samples = keep([], [at(1000, 1), at(2000, 2)]);
  samples = keep(samples, [at(2000, 2), at(3000, 3)]); // a reconnect repeats the last minutes
  assert.deepEqual(samples.map((s) => s.time), [1000, 2000, 3000]);
  for (let i = 4; i < 400; i++) samples = keep(samples, [at(i * 1000, i)]);
  assert.equal(samples.length, 300);
  for (let i = 40; i < 80; i++) samples = keep(samples, [at(i * 10_000, i)]); // as they come while nobody looks
  assert.equal(samples.length, 30);
});

test('a restarted node begins anew', () => {
  const samples = keep([at(1000, 500, 50)], [at(2000, 1, 0.1)]);
  assert.deepEqual(samples.map((s) => s.delivered_total), [1]);
});

test('numbers are readable', () => {
  assert.deepEqual([0, 999, 1500, 23e6, 4e9].map(bytes), ['0 B', '999 B', '1.5 KB', '23 MB', '4.0 GB']);
  assert.deepEqual([0, 0.5, 42, 12345, 3400000].map(count), ['0', '0.5', '42', '12.3k', '3.4M']);
  assert.equal(moment('2026-01-31T09:05:59'), '2026-01-31 09:05');
  assert.equal(ago('2026-01-01T00:00:00Z', Date.parse('2026-01-01T01:30:00Z')), '1 h');
  assert.deepEqual([-1, 0, 59.4, 60, 3600, 86400 * 3].map(span), ['0 s', '0 s', '59 s', '1 min', '1 h', '3 d']);
});

test('alerts say what to do, in both languages', () => {
  const refused = { code: 40164, cause: 'by the server', ip: '192.0.2.7' };
  for (const language of ['en', 'zh']) {
    assert.match(plain(refused, language), /192\.0\.2\.7/);
    assert.doesNotMatch(plain({ code: 40164, cause: '' }, language), /[{}]|undefined/);
    assert.notEqual(plain({ code: 40125, cause: 'by the server' }, language), 'by the server');
    assert.equal(plain({ code: 1, cause: 'by the server' }, language), 'by the server');
  }
});

test('a user can be linked to', () => {
  for (const openid of ['oAbc-_09', 'a b%/#?', '']) assert.equal(linkedUser(userLink(openid)), openid);
  for (const hash of ['', '#', '#user', '#user=%', '#users=x']) assert.equal(linkedUser(hash), '');
});

test('a stream that is refused is asked for again, until it is ended', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const sources = [];
  globalThis.EventSource = class {
    static CLOSED = 2;
    readyState = 0;
    constructor() {
      sources.push(this);
    }
    addEventListener() {}
    close() {
      this.closed = true;
    }
  };
  const heard = [];
  const end = listen({ live: (is) => heard.push(is), refused: () => heard.push('refused') });
  sources[0].onopen();
  sources[0].onerror(); // broke: the browser goes on by itself
  assert.deepEqual(heard, [true, false]);
  sources[0].readyState = 2;
  sources[0].onerror();
  assert.deepEqual(heard, [true, false, false, 'refused']);
  t.mock.timers.tick(3000);
  assert.equal(sources.length, 2);
  end();
  assert.ok(sources[1].closed);
});
