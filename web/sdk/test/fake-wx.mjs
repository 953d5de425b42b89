// A wx as the documentation describes it, without a network: `serve` answers
// the three HTTP calls, `live` speaks for the server on sockets.
//  - success on any status; fail only where no server answered
//  - nothing is answered in the call itself
//  - at most five sockets, each counted until its close has been reported
//  - a close before the socket is open has no effect
const maxSockets = 5;
const soon = (f) => setImmediate(f);

export function fakeWx({ serve, live = centrifugeServer() } = {}) {
  const wx = {
    calls: [],
    logins: 0,
    storage: new Map(),
    files: new Files(),
    temps: 0,
    room: Infinity, // bytes the app may keep
    sockets: [],
    opened: 0,
    most: 0, // sockets at one time
    showListeners: [],
    loginFailure: undefined,
    live,

    login({ success, fail }) {
      const failure = wx.loginFailure;
      const code = `code-${++wx.logins}`;
      soon(() => (failure ? fail(failure) : success({ code, errMsg: 'login:ok' })));
    },
    getStorageSync: (key) => structuredClone(wx.storage.get(key) ?? ''),
    setStorageSync: (key, data) => void wx.storage.set(key, structuredClone(data)),
    removeStorageSync: (key) => void wx.storage.delete(key),
    onAppShow: (listener) => void wx.showListeners.push(listener),
    show: () => wx.showListeners.forEach((l) => l({})),

    request: (o) => http('request', o, (answer) => answer),
    uploadFile: (o) =>
      http('uploadFile', o, ({ header, cookies, ...answer }) => ({ ...answer, data: text(answer.data) })),
    downloadFile: (o) =>
      http('downloadFile', o, ({ data, header, cookies, ...answer }) => {
        const path = o.filePath ?? `http://tmp/${wx.temps++}`;
        wx.files.set(path, data instanceof ArrayBuffer ? data : text(data)); // an error's body too
        return { ...answer, [o.filePath ? 'filePath' : 'tempFilePath']: path };
      }),
    getFileSystemManager: () => ({
      stat: ({ path, recursive, success, fail }) =>
        soon(() => {
          const below = [...wx.files.keys()].filter((p) => p.startsWith(`${path}/`));
          if (recursive && below.length) return success({ stats: [{ path: '/', stats: folder }, ...below.map((path) => ({ path, stats: wx.files.stat(path) }))] });
          return wx.files.has(path) ? success({ stats: wx.files.stat(path) }) : fail({ errMsg: 'stat:fail no such file or directory' });
        }),
      readFile: ({ filePath, encoding, position = 0, length, success, fail }) =>
        soon(() => {
          if (!wx.files.has(filePath)) return fail({ errMsg: 'readFile:fail' });
          const file = wx.files.get(filePath);
          if (encoding) return success({ data: file });
          const piece = bytesOf(file).subarray(position, length === undefined ? undefined : position + length);
          return success({ data: Uint8Array.from(piece).buffer });
        }),
      writeFile: (o) => soon(() => keep(o, new Uint8Array())),
      appendFile: (o) =>
        soon(() => (wx.files.has(o.filePath) ? keep(o, bytesOf(wx.files.get(o.filePath))) : o.fail({ errMsg: 'appendFile:fail no such file' }))),
      unlink: ({ filePath, success, fail }) =>
        soon(() => (wx.files.delete(filePath) ? success({}) : fail({ errMsg: 'unlink:fail no such file or directory' }))),
      rename: ({ oldPath, newPath, success, fail }) =>
        soon(() => {
          if (!wx.files.has(oldPath) || wx.files.has(newPath)) return fail({ errMsg: 'rename:fail' });
          wx.files.set(newPath, wx.files.get(oldPath));
          wx.files.delete(oldPath);
          return success({});
        }),
    }),

    connectSocket({ url, success, fail }) {
      if (wx.sockets.length >= maxSockets) {
        soon(() => fail({ errMsg: 'createSocketTask:fail exceed max concurrent count' }));
        return undefined;
      }
      const socket = new FakeSocket(wx, url);
      wx.sockets.push(socket);
      wx.opened++;
      wx.most = Math.max(wx.most, wx.sockets.length);
      soon(() => {
        success({ errMsg: 'connectSocket:ok' });
        wx.live.accept(socket);
      });
      return socket;
    },
  };

  function keep({ filePath, data, success, fail }, before) {
    if (before.length + data.byteLength > wx.room) return fail({ errMsg: 'appendFile:fail the maximum size of the file storage limit is exceeded', errno: 1300202 });
    wx.files.set(filePath, Uint8Array.from([...before, ...new Uint8Array(data)]).buffer);
    return success({});
  }

  function http(kind, options, shape) {
    const call = { kind, ...options, aborted: false };
    wx.calls.push(call);
    let done = false;
    let progress = () => {};
    const end = (callback, result) => {
      if (done) return;
      done = true;
      callback?.(result);
      options.complete?.(result);
    };
    soon(async () => {
      const answer = await serve({ kind, ...options });
      if (answer instanceof Error) return end(options.fail, { errMsg: `${kind}:fail ${answer.message}`, errno: 600001 });
      progress({ progress: 50, totalBytesSent: 5, totalBytesExpectedToSend: 10 });
      progress({ progress: 100, totalBytesSent: 10, totalBytesExpectedToSend: 10 });
      end(options.success, shape({ errMsg: `${kind}:ok`, header: {}, cookies: [], ...answer }));
    });
    return {
      abort: () => {
        call.aborted = true;
        soon(() => end(options.fail, { errMsg: `${kind}:fail abort`, errno: 600003 }));
      },
      onProgressUpdate: (listener) => void (progress = listener),
    };
  }
  return wx;
}

/** What is on the phone: path to text, or to an ArrayBuffer; and when it was written. */
class Files extends Map {
  times = new Map();
  writes = 0;
  set(path, content) {
    this.times.set(path, ++this.writes);
    return super.set(path, content);
  }
  stat(path) {
    return { size: bytesOf(this.get(path)).length, lastModifiedTime: this.times.get(path), isDirectory: () => false };
  }
}
const folder = { size: 4096, isDirectory: () => true };

const bytesOf = (file) => (typeof file === 'string' ? Buffer.from(file) : new Uint8Array(file));
const text = (data) => (typeof data === 'string' ? data : JSON.stringify(data ?? ''));

export class FakeSocket {
  state = 'connecting';
  listeners = {};
  received = [];
  /** The system cut it: nothing arrives any more, and no close is reported. */
  dead = false;

  constructor(wx, url) {
    this.wx = wx;
    this.url = url;
  }
  onOpen = (f) => void (this.listeners.open = f);
  onMessage = (f) => void (this.listeners.message = f);
  onError = (f) => void (this.listeners.error = f);
  onClose = (f) => void (this.listeners.close = f);

  send({ data, fail }) {
    if (this.state !== 'open') return soon(() => fail?.({ errMsg: 'SocketTask.send:fail SocketTask.readyState is not OPEN' }));
    this.received.push(data);
    if (!this.dead) soon(() => this.wx.live.message(this, data));
  }
  close({ code = 1000 }) {
    if (this.state !== 'open' || this.dead) return;
    this.state = 'closing';
    soon(() => this.closed(code, 'normal closure'));
  }

  // What the other side does.
  open() {
    this.state = 'open';
    this.listeners.open?.({ header: {} });
  }
  push(message) {
    if (this.state === 'open' && !this.dead) this.listeners.message?.({ data: JSON.stringify(message) });
  }
  fail(errMsg) {
    this.listeners.error?.({ errMsg });
  }
  closed(code, reason) {
    this.state = 'closed';
    this.wx.sockets = this.wx.sockets.filter((s) => s !== this);
    this.listeners.close?.({ code, reason });
  }
}

/** Just enough of the Centrifuge protocol; `tokens` decides what connect answers. */
export function centrifugeServer({ tokens = () => ({}) } = {}) {
  return {
    connects: [],
    accept: (socket) => socket.open(),
    message(socket, data) {
      for (const line of data.split('\n').filter(Boolean)) this.command(socket, JSON.parse(line));
    },
    command(socket, { id, connect, subscribe, rpc }) {
      if (connect) {
        this.connects.push(connect);
        const { error, close } = tokens(connect.token, this.connects.length);
        if (close) return socket.closed(close.code, close.reason);
        socket.push(error ? { id, error } : { id, connect: { client: `c${this.connects.length}`, version: 'fake' } });
      } else if (subscribe) socket.push({ id, subscribe: {} });
      else if (rpc) socket.push({ id, error: { code: 108, message: 'not available' } });
    },
  };
}

/** A minigate: logs in any code, takes the tokens it gave out and did not revoke. */
export function fakeGate(routes = {}) {
  const gate = {
    valid: new Set(),
    given: 0,
    serve(request) {
      const path = request.url.replace(/^https?:\/\/[^/]+/, '').replace(/\?.*/, '');
      if (path === '/auth/login') return gate.login(request);
      const token = (request.header?.Authorization ?? '').replace('Bearer ', '');
      if (!gate.valid.has(token) && !/[?&]ticket=/.test(request.url)) return refusal(401, 'token_expired');
      if (path === '/auth/logout') {
        gate.valid.delete(token);
        return { statusCode: 204, data: '' };
      }
      const route = routes[path];
      return route ? route(request) : refusal(404, 'not_found');
    },
    login(request) {
      const token = `token-${++gate.given}`;
      gate.valid.add(token);
      return { statusCode: 200, data: { token, expires_in: 600, user: { openid: `o-${request.data.code}`, appid: 'wx1' } } };
    },
  };
  return gate;
}

export function refusal(statusCode, code) {
  return { statusCode, data: { error: { code, message: `Because of ${code}.`, request_id: 'r1' } } };
}
