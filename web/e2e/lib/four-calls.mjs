// The four wx network calls, as an app without any SDK makes them. Runs in
// the page (jsdom or Chromium): nothing of Node here.

/**
 * wx      the calls
 * code    what wx.login gave
 * push    asks the server to push data to a user (done by Node)
 * bytes   a data: URL of the file to upload, and its content as Uint8Array
 * read    reads a stored file as Uint8Array
 * step    runs and reports one step
 * forge   a header the app invents; {} where CORS would rightly stop it
 */
export async function fourCalls({ wx, baseUrl, code, push, bytes, dataUrl, read, step, forge = { 'X-WX-OPENID': 'someone-else' } }) {
  const call = (method, options) =>
    new Promise((resolve, reject) => wx[method]({ ...options, url: baseUrl + options.url, success: resolve, fail: reject }));

  const { token, user } = await step('request: login', async () => {
    const { statusCode, data } = await call('request', { url: '/auth/login', method: 'POST', data: { code } });
    expect(statusCode, 200, data);
    if (!data.token || !data.user.openid) throw new Error(`no token or openid: ${JSON.stringify(data)}`);
    return data;
  });
  const header = { Authorization: `Bearer ${token}` };

  await step('request: the backend is told who asks, whatever the app claims', async () => {
    const { statusCode, data } = await call('request', { url: '/api/whoami', header: { ...forge, ...header } });
    expect(statusCode, 200, data);
    if (!contains(data, user.openid) || contains(data, 'someone-else')) throw new Error(`whoami: ${JSON.stringify(data)}`);
  });

  await step('request: without a token success is called with 401 and a JSON error', async () => {
    const { statusCode, data } = await call('request', { url: '/api/whoami' });
    expect(statusCode, 401, data);
    if (!data.error || !data.error.code) throw new Error(`error body: ${JSON.stringify(data)}`);
  });

  await step('connectSocket: a push for the user arrives', () => socketPush(wx, baseUrl, token, user.openid, push));

  const file = await step(`uploadFile: ${bytes.length} bytes`, async () => {
    const { statusCode, data } = await call('uploadFile', {
      url: '/files', filePath: dataUrl, name: 'file', header, formData: { note: 'four calls' },
    });
    expect(statusCode, 201, data);
    const record = JSON.parse(data);
    expect(record.size, bytes.length, data);
    return record;
  });

  await step('downloadFile: the same bytes', async () => {
    const { statusCode, tempFilePath } = await call('downloadFile', { url: `/files/${file.id}`, header });
    expect(statusCode, 200);
    same(await read(tempFilePath), bytes);
  });

  await step('downloadFile: success is called for 404 too', async () => {
    const { statusCode } = await call('downloadFile', { url: '/files/no-such-file', header });
    expect(statusCode, 404);
  });
}

/** Speaks the protocol by hand: connect with the token, answer pings, wait for the push. */
function socketPush(wx, baseUrl, token, openid, push) {
  const nonce = `n${Math.random()}`;
  return new Promise((resolve, reject) => {
    const task = wx.connectSocket({ url: `${baseUrl.replace(/^http/, 'ws')}/connection/websocket`, success() {}, fail: reject });
    const send = (command) => task.send({ data: JSON.stringify(command), fail: reject });
    task.onOpen(() => send({ id: 1, connect: { token } }));
    task.onError((e) => reject(new Error(`socket error ${JSON.stringify(e)}`)));
    task.onClose(({ code, reason }) => reject(new Error(`closed ${code} ${reason}`)));
    const handle = (reply) => {
      if (reply.id === 1) {
        if (!reply.connect || !reply.connect.client) throw new Error(`connect: ${JSON.stringify(reply)}`);
        push(openid, { nonce }).catch(reject);
      } else if (reply.push && JSON.stringify(reply.push).includes(nonce)) {
        resolve();
        task.close({ code: 1000 });
      } else if (!Object.keys(reply).length) send({});
    };
    task.onMessage(({ data }) => {
      try {
        data.split('\n').filter(Boolean).forEach((line) => handle(JSON.parse(line)));
      } catch (e) {
        reject(e);
      }
    });
  });
}

function expect(got, want, context) {
  if (got !== want) throw new Error(`got ${got}, want ${want}: ${JSON.stringify(context)}`);
}

function same(got, want) {
  expect(got.length, want.length, 'length');
  for (let i = 0; i < want.length; i++) if (got[i] !== want[i]) throw new Error(`bytes differ at ${i}`);
}

/** Whether a value is anywhere in the answer: the sample backend's shape is its own. */
const contains = (answer, value) => JSON.stringify(answer).includes(value);
