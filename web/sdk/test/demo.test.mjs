// The demo mini-program over the one-file build, in a context that has only
// what every WeChat base library has: no window, URL, TextDecoder, fetch, …
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { fakeGate, fakeWx } from './fake-wx.mjs';

const demo = join(dirname(fileURLToPath(import.meta.url)), '../../demo');

function runDemo(wx) {
  let app;
  let page;
  const context = vm.createContext({
    wx,
    console,
    setTimeout,
    clearTimeout,
    App: (options) => void (app = options),
    Page: (options) => void (page = options),
    getApp: () => app,
  });
  const load = (file) => {
    const module = { exports: {} };
    const require = (name) => load(join(dirname(file), name));
    const source = `(function (module, exports, require) {${readFileSync(file, 'utf8')}\n})`;
    vm.runInContext(source, context)(module, module.exports, require);
    return module.exports;
  };
  const { pages } = JSON.parse(readFileSync(join(demo, 'app.json'), 'utf8'));
  load(join(demo, 'app.js'));
  load(join(demo, `${pages[0]}.js`));
  page.setData = (data) => Object.assign(page.data, data);
  return { app, page };
}

const settle = async () => {
  for (let i = 0; i < 60; i++) await new Promise(setImmediate);
};

test('the demo runs all four capabilities without a browser', async (t) => {
  const gate = fakeGate({
    '/api/whoami': () => ({ statusCode: 200, data: { openid: 'o-demo' } }),
    '/auth/phone': () => ({ statusCode: 200, data: { phone_number: '13800000000' } }),
    '/files/direct': () => ({
      statusCode: 201,
      data: { id: 'f1', mode: 'form', target: 'gateway', upload: { url: '/files/uploads/f1/form?ticket=t', name: 'file' } },
    }),
    '/files/uploads/f1/form': () => ({ statusCode: 201, data: JSON.stringify({ id: 'f1', type: 'image/png', size: 5 }) }),
    '/files/f1': () => ({ statusCode: 200, data: 'pixel' }),
  });
  const wx = fakeWx({ serve: gate.serve });
  wx.files.set('http://tmp/p.png', 'pixel');
  wx.chooseMedia = async () => ({ tempFiles: [{ tempFilePath: 'http://tmp/p.png', size: 5 }] });
  const { app, page } = runDemo(wx);
  t.after(() => app.client.socket().disconnect());

  page.onLoad();
  await settle();
  assert.equal(page.data.state, 'connected');
  assert.equal(wx.logins, 0, 'the code of dev stands in for wx.login');
  wx.sockets[0].push({ push: { message: { data: { text: 'hello' } } } });
  wx.sockets[0].push({ push: { channel: 'room:demo', pub: { data: { from: 'bob', text: 'hi' } } } });
  await settle();
  assert.deepEqual(page.data.messages.map((m) => m.text).join('|'), 'bob: hi|server: hello');

  page.whoami();
  await settle();
  assert.equal(page.data.who, '{"openid":"o-demo"}');

  page.phone({ detail: { errMsg: 'getPhoneNumber:fail user deny' } });
  await settle();
  assert.equal(page.data.error, 'authorization_refused: getPhoneNumber:fail user deny');
  page.phone({ detail: { errMsg: 'getPhoneNumber:ok', code: 'button-code' } });
  await settle();
  assert.equal(page.data.number, '13800000000');

  await page.upload();
  assert.equal(page.data.error, '');
  assert.equal(wx.files.get(page.data.picture), 'pixel');

  page.logout();
  await settle();
  assert.equal(wx.sockets.length, 0);
  assert.equal(gate.valid.size, 0);
});
