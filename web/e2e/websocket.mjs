// A WebSocket client that plays a script: CLIENT says which one. Lines of
// standard input are steps, whose bytes are in hex, '-' for none; what comes of
// them is printed, in lines too. The Go test that writes the script has the list.
import { createInterface } from 'node:readline';

const { CLIENT = 'ws', WS_URL } = process.env;
const bytes = (hex) => Buffer.from(hex === '-' ? '' : hex, 'hex');
const hex = (data) => Buffer.from(data).toString('hex') || '-';
const print = (...words) => console.log(words.join(' '));

/** What has come, and who waits for more of it. */
function inbox() {
  const waiting = [];
  const all = [];
  return {
    all,
    put(kind, data) {
      all.push({ kind, data: Buffer.from(data) });
      waiting.splice(0).forEach((wake) => wake());
    },
    async until(found) {
      while (!all.some(found)) await new Promise((wake) => waiting.push(wake));
    },
  };
}

/** ws shows everything that is on the wire, and what lies below. */
async function openWs(protocol, box) {
  const { default: Ws } = await import('ws');
  const options = JSON.parse(process.env.OPTIONS || '{}');
  const socket = new Ws(WS_URL, protocol ? [protocol] : [], options);
  socket.on('message', (data) => box.put('message', data));
  socket.on('pong', (data) => box.put('pong', data));
  socket.on('error', (error) => print('#', error.message));
  socket.on('close', (code, reason) => box.put('closed', `${code} ${hex(reason)}`));
  await new Promise((resolve) => socket.once('open', resolve));
  const send = (binary) => (parts) => parts.forEach((part, i) => socket.send(part, { binary, fin: i === parts.length - 1 }));
  return {
    extension: socket.extensions,
    text: send(false),
    binary: send(true),
    ping: ([data]) => socket.ping(data),
    raw: ([data]) => socket._socket.write(data),
    half: () => socket._socket.end(),
    close: (code, reason) => (code ? socket.close(code, reason) : socket.close()),
  };
}

/** The WebSocket of browsers, as undici has it in Node. */
async function openUndici(protocol, box) {
  const { WebSocket: Undici } = await import('undici');
  const socket = new Undici(WS_URL, protocol ? [protocol] : []);
  socket.binaryType = 'arraybuffer';
  socket.onmessage = ({ data }) => box.put('message', data);
  socket.onclose = ({ code, reason }) => box.put('closed', `${code} ${hex(reason)}`);
  await new Promise((resolve) => (socket.onopen = resolve));
  return {
    extension: socket.extensions,
    text: ([part]) => socket.send(part.toString()),
    binary: ([part]) => socket.send(part),
    close: (code, reason) => (code ? socket.close(code, reason.toString()) : socket.close()),
  };
}

let page;
const boxes = new Map();

async function openChromium(protocol, box) {
  if (!page) {
    const { launch } = await import('./lib/browser.mjs');
    page = await (await (await launch()).newContext({ ignoreHTTPSErrors: true })).newPage();
    await page.exposeFunction('put', (id, kind, data) => boxes.get(id).put(kind, kind === 'message' ? Buffer.from(data, 'base64') : data));
  }
  const id = boxes.size;
  boxes.set(id, box);
  const extension = await page.evaluate(async ([id, url, protocol]) => {
    const socket = new WebSocket(url, protocol ? [protocol] : []);
    socket.binaryType = 'arraybuffer';
    // In order, whatever takes how long.
    let before = Promise.resolve();
    const put = (...args) => (before = before.then(() => globalThis.put(id, ...args)));
    const base64 = (data) => {
      const all = typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data);
      let text = '';
      for (let i = 0; i < all.length; i += 4096) text += String.fromCharCode(...all.subarray(i, i + 4096));
      return btoa(text);
    };
    socket.onmessage = ({ data }) => put('message', base64(data));
    socket.onclose = ({ code, reason }) => {
      const hex = [...new TextEncoder().encode(reason)].map((b) => b.toString(16).padStart(2, '0')).join('');
      put('closed', `${code} ${hex || '-'}`);
    };
    (globalThis.sockets ??= [])[id] = socket;
    await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: () => reject(new Error('not open')) }));
    return socket.extensions;
  }, [id, WS_URL, protocol]);
  const send = (binary) => ([part]) =>
    page.evaluate(([id, data, binary]) => {
      const all = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      globalThis.sockets[id].send(binary ? all : new TextDecoder().decode(all));
    }, [id, part.toString('base64'), binary]);
  return {
    extension,
    text: send(false),
    binary: send(true),
    close: (code, reason) =>
      page.evaluate(([id, code, reason]) => (code ? globalThis.sockets[id].close(code, reason) : globalThis.sockets[id].close()), [id, code, reason.toString()]),
  };
}

const opener = { ws: openWs, undici: openUndici, chromium: openChromium }[CLIENT];
let box;
let socket;
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...args] = line.split(' ');
  switch (verb) {
    case 'open':
      box = inbox();
      socket = await opener(args[0] === '-' ? '' : args[0], box);
      print('open', socket.extension || '-');
      break;
    case 'until': // a message, or the end
      await box.until(({ kind, data }) => kind === 'closed' || (kind === 'message' && data.includes(bytes(args[0]))));
      break;
    case 'pong':
      await box.until(({ kind, data }) => kind === 'closed' || (kind === 'pong' && data.equals(bytes(args[0]))));
      break;
    case 'close':
      await socket.close(Number(args[0]), bytes(args[1]));
      break;
    case 'end':
      await box.until(({ kind }) => kind === 'closed');
      for (const { kind, data } of box.all) print(kind, kind === 'closed' ? data : hex(data));
      print('end');
      break;
    default:
      await socket[verb](args.map(bytes));
  }
}
process.exit(0);
