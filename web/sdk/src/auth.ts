import { fromWx, MinigateError } from './error.js';
import type { Http } from './http.js';
import type { Sessions } from './session.js';
import type { WxCallbacks } from './wx.js';

/** What a wx API such as wx.getWeRunData hands out; of its result only this is sent. */
export interface OpenData {
  rawData?: string;
  signature?: string;
  encryptedData?: string;
  iv?: string;
}

export interface OpenDataOptions<T = any> extends OpenData, WxCallbacks<OpenedData<T>> {
  /**
   * Fetches the data, e.g. `() => wx.getWeRunData()`: at first where none is
   * given, and again after the login that `session_key_stale` asks for.
   */
  fetch?(): PromiseLike<OpenData>;
}

/** What WeChat vouches for. */
export interface OpenedData<T = any> {
  /** Parsed rawData, where the signature is right. */
  rawData?: any;
  /** Decrypted encryptedData. */
  data?: T;
  /** The same, signed by minigate: for your backend, which need not trust the phone. */
  jws: string;
}

/** The `detail` of the getPhoneNumber button's event fits. */
export interface PhoneOptions extends WxCallbacks<PhoneNumber> {
  /** Absent where the user refused. */
  code?: string;
  errMsg?: string;
}

export interface PhoneNumber {
  /** With country code where it is foreign. */
  phoneNumber: string;
  purePhoneNumber: string;
  countryCode: string;
  /** The same, signed by minigate, as of {@link OpenedData}. */
  jws: string;
}

/** What a ticket is good for: one socket, new uploads, one upload, reading one file. */
export type Scope = 'socket' | 'upload' | `upload:${string}` | `file:${string}:read`;

export interface Ticket {
  ticket: string;
  /** Seconds. It ends with the session, too. */
  expiresIn: number;
}

/** Tickets kept for fileUrl. */
const maxKept = 500;

/** What minigate tells a session about its user, and gives it. */
export class Auth {
  /** By file; each good for the session that has the token. */
  private readonly kept = new Map<string, { token: string; query: string; until: number }>();

  constructor(private readonly http: Http, private readonly sessions: Sessions) {}

  async openData<T>({ fetch, ...given }: OpenDataOptions<T>): Promise<OpenedData<T>> {
    // Login first, then fetch: the other way round wx.login makes the key
    // invalid that the data is encrypted with.
    const { token } = await this.sessions.get();
    const had = given.encryptedData || given.rawData;
    try {
      return await this.open<T>(fetch && !had ? await fetched(fetch) : given);
    } catch (error) {
      if (!(error instanceof MinigateError) || error.code !== 'session_key_stale') throw error;
      await this.sessions.renew(token);
      if (!fetch) throw error;
      return this.open<T>(await fetched(fetch));
    }
  }

  async phone({ code, errMsg }: PhoneOptions): Promise<PhoneNumber> {
    if (!code) throw fromWx({ errMsg: errMsg || 'getPhoneNumber:fail no code' }, 'authorization_refused');
    const number = await this.post('/auth/phone', { code });
    return {
      phoneNumber: number.phone_number,
      purePhoneNumber: number.pure_phone_number,
      countryCode: number.country_code,
      jws: number.jws,
    };
  }

  async ticket(scope: Scope): Promise<Ticket> {
    const { ticket, expires_in } = await this.post('/auth/ticket', { scope });
    return { ticket, expiresIn: expires_in };
  }

  /** The query that reads a file; the same one for half a ticket's life, so that pictures stay in caches. */
  async fileQuery(id: string): Promise<string> {
    const { token } = await this.sessions.get();
    const kept = this.kept.get(id);
    if (kept && kept.token === token && Date.now() < kept.until) return kept.query;
    const { ticket, expiresIn } = await this.ticket(`file:${id}:read`);
    const query = `?ticket=${encodeURIComponent(ticket)}`;
    if (this.kept.size >= maxKept) this.kept.clear();
    this.kept.set(id, { token, query, until: Date.now() + expiresIn * 500 });
    return query;
  }

  private async open<T>({ rawData, signature, encryptedData, iv }: OpenData): Promise<OpenedData<T>> {
    const opened = await this.post('/auth/opendata', {
      raw_data: rawData,
      signature,
      encrypted_data: encryptedData,
      iv,
    });
    return { rawData: opened.raw_data, data: opened.data, jws: opened.jws };
  }

  private async post(url: string, body: object): Promise<any> {
    const { data, statusCode, errMsg } = await this.http.request<any>({ url, method: 'POST', data: body });
    if (data && typeof data === 'object') return data;
    throw new MinigateError('bad_answer', 'The answer is not JSON.', { statusCode, errMsg, data });
  }
}

async function fetched(fetch: () => PromiseLike<OpenData>): Promise<OpenData> {
  try {
    return await fetch();
  } catch (failure: any) {
    throw fromWx({ errMsg: failure?.errMsg || String(failure), errno: failure?.errno }, 'fetch_failed');
  }
}
