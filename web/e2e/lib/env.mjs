// What the scripts are told by their environment:
//   BASE_URL   the public listener, http(s)://host:port     (default: minigate dev)
//   OPS_URL    the ops listener, where the server API is    (default: minigate dev)
//   API_KEY    of the server API                            (default: dev)
//   CODE_URL   a WeChat simulator to ask for login codes, with APPID; or
//   LOGIN_CODES  codes to use in order, comma separated; else sim:NAME is used.
//   console.mjs and sdk.mjs need CODE_URL, which minigate dev prints as WeChat;
//   its APPID is wx0000000000000dev.
import { randomUUID } from 'node:crypto';

const env = process.env;
export const baseUrl = (env.BASE_URL || 'http://127.0.0.1:8080').replace(/\/+$/, '');
export const wsUrl = `${baseUrl.replace(/^http/, 'ws')}/connection/websocket`;
export const opsUrl = (env.OPS_URL || 'http://127.0.0.1:9000').replace(/\/+$/, '');
const apiKey = env.API_KEY || 'dev';
const codes = (env.LOGIN_CODES || '').split(',').filter(Boolean);

/** Names nobody has used before, so that runs do not meet. */
export const unique = (name) => `${name}-${randomUUID().slice(0, 8)}`;

/** What wx.login would hand out on the phone of `user`. */
export async function loginCode(user) {
  if (env.CODE_URL) {
    const { code } = await post(`${env.CODE_URL}/sim/login`, { appid: env.APPID, user });
    return code;
  }
  if (!env.LOGIN_CODES) return `sim:${user}`;
  if (!codes.length) throw new Error('LOGIN_CODES are used up');
  return codes.shift();
}

/** What the simulator's phone of `user` would do: 'opendata' (wx.getWeRunData and its kin) or 'phone' (the button). */
export const onPhone = (what, user, data) => post(`${env.CODE_URL}/sim/${what}`, { appid: env.APPID, user, data });

/** Logs a user in without any client: {token, user}. */
export const login = async (user) => post(`${baseUrl}/auth/login`, { code: await loginCode(user) });

/** One call of the ops listener's own methods. */
export const ops = (method, params) => post(`${opsUrl}/api/${method}`, params, { 'X-API-Key': apiKey });

/** One call of the server API; its `error` is thrown. */
export async function api(method, params) {
  const answer = await ops(method, params);
  if (answer.error) throw new Error(`/api/${method}: ${JSON.stringify(answer.error)}`);
  return answer.result;
}

async function post(url, body, headers = {}) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`POST ${url}: ${response.status} ${text}`);
  return JSON.parse(text);
}
