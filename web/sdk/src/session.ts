import { fromAnswer, fromWx, MinigateError, parse } from './error.js';
import { Call } from './task.js';
import type { WxApi } from './wx.js';

/** Who is logged in. */
export interface Session {
  token: string;
  /** Seconds the session lives without being used, as told at login. */
  expiresIn: number;
  user: { openid: string; unionid?: string; appid: string };
}

/** What a login tells besides the code. */
export interface LoginExtras {
  appid?: string;
  /** What the phone is called in lists of sessions; default brand and model, false for nothing. */
  device?: string | false;
}

const maxDevice = 64; // characters

/** Owns the login token: fetches it, keeps it in wx storage, replaces it. */
export class Sessions {
  private current?: Session;
  private pending?: Promise<Session>;

  constructor(
    private readonly wx: WxApi,
    private readonly baseUrl: string,
    private readonly storageKey: string,
    private readonly extras: LoginExtras = {},
  ) {
    this.current = this.load();
  }

  /** The session in force, undefined before the first login. */
  peek(): Session | undefined {
    return this.current;
  }

  /** The session in force; logs in where there is none. */
  async get(): Promise<Session> {
    return this.pending || this.current || this.login();
  }

  /** A session other than the one whose token was refused. */
  async renew(refused: string): Promise<Session> {
    if (this.pending) return this.pending;
    return this.current && this.current.token !== refused ? this.current : this.login();
  }

  /** Logs in anew. Callers that come while a login is under way share it. */
  login(): Promise<Session> {
    if (!this.pending) {
      const done = () => {
        this.pending = undefined;
      };
      this.pending = this.exchange();
      this.pending.then(done, done);
    }
    return this.pending;
  }

  /** Forgets the session and tells the server, which ends its sockets too. */
  async end(): Promise<void> {
    if (this.pending) await this.pending.catch(() => undefined);
    const session = this.current;
    this.save(undefined);
    if (!session) return;
    const answer = await new Call(this.wx, 'request').send({
      url: `${this.baseUrl}/auth/logout`,
      method: 'POST',
      data: {},
      header: { Authorization: `Bearer ${session.token}` },
    });
    const ended = answer.statusCode < 400 || answer.statusCode === 401;
    if (!ended) throw fromAnswer(answer, parse(answer.data));
  }

  private async exchange(): Promise<Session> {
    const code = await this.code();
    const answer = await new Call(this.wx, 'request').send({
      url: `${this.baseUrl}/auth/login`,
      method: 'POST',
      data: this.loginBody(code),
    });
    const body: any = parse(answer.data);
    if (answer.statusCode >= 400) throw fromAnswer(answer, body);
    if (!body || typeof body.token !== 'string' || !body.token) {
      const { statusCode, errMsg } = answer;
      throw new MinigateError('bad_answer', 'The login answer carries no token.', { statusCode, errMsg });
    }
    const session = { token: body.token, expiresIn: body.expires_in, user: body.user };
    this.save(session);
    return session;
  }

  private loginBody(code: string): object {
    const { appid, device = deviceOf(this.wx) } = this.extras;
    const body: Record<string, string> = { code };
    if (appid) body.appid = appid;
    if (device) body.device = Array.from(device).slice(0, maxDevice).join('');
    return body;
  }

  private code(): Promise<string> {
    return new Promise((resolve, reject) => {
      const refuse = (failure: any) => reject(fromWx(failure, 'login_failed'));
      this.wx.login({
        success: (result: any) =>
          result.code ? resolve(result.code) : refuse({ errMsg: result.errMsg || 'login:fail no code' }),
        fail: refuse,
      });
    });
  }

  private load(): Session | undefined {
    try {
      const kept = this.wx.getStorageSync(this.storageKey);
      return kept && typeof kept.token === 'string' ? kept : undefined;
    } catch {
      return undefined; // unreadable storage only costs a login
    }
  }

  private save(session?: Session): void {
    this.current = session;
    try {
      if (session) this.wx.setStorageSync(this.storageKey, session);
      else this.wx.removeStorageSync(this.storageKey);
    } catch {
      // full storage: the session lives in memory until the app ends
    }
  }
}

/** Brand and model, where wx tells them. */
function deviceOf(api: WxApi): string | undefined {
  try {
    const { brand = '', model = '' } = api.getDeviceInfo ? api.getDeviceInfo() : api.getSystemInfoSync!();
    return (model.indexOf(brand) === 0 ? model : `${brand} ${model}`).trim() || undefined;
  } catch {
    return undefined; // a login needs no label
  }
}
