// What scenarios are made of: clients of the stock SDK that can be watched and
// cut, sockets without an SDK, tokens.
//   JWT_SECRET  of connection and subscription tokens, HS256
//   TRANSPORT   ws (default), or wx: the SDK over our adapter over uni-h5's wx
import { build } from 'esbuild';
import { Centrifuge } from 'centrifuge';
import { createHmac } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { api, baseUrl, unique, wsUrl } from './env.mjs';
import { within } from './steps.mjs';

const { JWT_SECRET, TRANSPORT = 'ws' } = process.env;
export const transport = TRANSPORT;
export const now = () => Math.floor(Date.now() / 1000);

export function jwt(claims) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  return `${text}.${createHmac('sha256', JWT_SECRET).update(text).digest('base64url')}`;
}

const socketConstructor = TRANSPORT === 'wx' ? await wxSockets() : () => WebSocket;

/** The adapter of our SDK, over the wx of a page of uni-h5. */
async function wxSockets() {
  const { uniPage } = await import('./uni-jsdom.mjs');
  const { e2e } = await uniPage(baseUrl);
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('../../sdk/src/adapter.ts', import.meta.url))],
    bundle: true, write: false, format: 'esm', logLevel: 'error',
  });
  const adapter = await import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);
  return () => adapter.socketConstructor(e2e.wx);
}

const clients = [];

/** A client of a user with a name of its own: the SDK's, with a few more members. */
export function person(name = 'u', { claims = {}, ...options } = {}) {
  const user = unique(name);
  const Base = socketConstructor();
  let socket;
  let hold = Promise.resolve();
  let release = () => {};
  const client = new Centrifuge(wsUrl, {
    websocket: class extends Base {
      constructor(url) {
        super(url);
        socket = this;
      }
      send(data, ...more) {
        if (client.deafMute && data === '{}') return;
        super.send(data, ...more);
      }
    },
    ...(options.getToken ? {} : { token: jwt({ sub: user, ...claims }) }),
    minReconnectDelay: 10,
    maxReconnectDelay: 100,
    // Asked before every attempt: holds a reconnect back until released.
    getData: () => hold.then(() => ({})),
    ...options,
  });
  client.on('error', () => {}); // 109 and its kin are reported here too
  clients.push(client);
  return Object.assign(client, {
    user,
    deafMute: false,
    socket: () => socket,
    /** Loses the connection, as in a tunnel. */
    cut: () => (socket.terminate ? socket.terminate() : socket.close()),
    /** Goes away by `away` and stays there while `meanwhile` happens. */
    async gone(away, meanwhile) {
      hold = new Promise((resolve) => (release = resolve));
      const connecting = next(client, 'connecting');
      await away();
      const ctx = await connecting;
      await meanwhile?.();
      const connected = next(client, 'connected');
      release();
      await connected;
      return ctx;
    },
    async ready2() {
      client.connect();
      await client.ready(10_000);
      return client;
    },
    sub(channel, options) {
      const sub = client.newSubscription(channel, options);
      sub.on('error', () => {});
      return sub;
    },
    async join(channel, options) {
      const sub = client.sub(channel, options);
      sub.subscribe();
      await sub.ready(10_000);
      return sub;
    },
  });
}

export const connected = (name, options) => person(name, options).ready2();

/** Ends every client that a group left behind. */
export const leaveAll = () => clients.forEach((client) => client.disconnect());

/** Unlike events.once it does not fail on 'error', and may wait for one that fits. */
export function next(emitter, event, fits = () => true) {
  return new Promise((resolve) => {
    const listener = (ctx) => {
      if (!fits(ctx)) return;
      emitter.off(event, listener);
      resolve(ctx);
    };
    emitter.on(event, listener);
  });
}

export function collect(emitter, n, event = 'publication', fits = () => true) {
  return new Promise((resolve) => {
    const heard = [];
    const listener = (ctx) => {
      if (!fits(ctx)) return;
      heard.push(ctx);
      if (heard.length < n) return;
      emitter.off(event, listener);
      resolve(heard);
    };
    emitter.on(event, listener);
  });
}

export const publish = (channel, data, more) => api('publish', { channel, data, ...more });
export const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
export const pick = (object, ...keys) => Object.fromEntries(keys.map((key) => [key, object[key]]));
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A socket without an SDK: lines in, lines out, and how it ended. */
export async function raw({ query = '', protocols, token = jwt({ sub: unique('raw') }), silent = false } = {}) {
  const ws = new WebSocket(wsUrl + query, protocols);
  const lines = [];
  const waiting = [];
  const give = (line) => (waiting.length ? waiting.shift()(line) : lines.push(line));
  ws.on('message', (data, binary) => {
    if (binary) return give(data);
    for (const line of String(data).split('\n')) if (self.pings || line !== '{}') give(line);
  });
  const end = new Promise((resolve) => ws.on('close', (code, reason) => resolve({ code, reason: String(reason) })));
  ws.on('error', () => {});
  await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
  const self = {
    ws,
    end,
    pings: false,
    send: (...commands) => ws.send(commands.map((c) => (typeof c === 'string' ? c : JSON.stringify(c))).join('\n')),
    line: () => within(10_000, 'a line', lines.length ? lines.shift() : new Promise((resolve) => waiting.push(resolve))),
    json: async () => JSON.parse(await self.line()),
  };
  if (!silent) {
    self.send({ id: 1, connect: { token } });
    self.hello = await self.json();
  }
  return self;
}
