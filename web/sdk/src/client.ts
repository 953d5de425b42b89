import type { Centrifuge } from 'centrifuge';
import { Auth } from './auth.js';
import type { OpenDataOptions, OpenedData, PhoneNumber, PhoneOptions, Scope, Ticket } from './auth.js';
import { fromWx } from './error.js';
import { Http } from './http.js';
import type {
  DownloadOptions,
  DownloadResult,
  RequestOptions,
  RequestResult,
  UploadOptions,
  UploadResult,
  FileRecord,
} from './http.js';
import type { FileListener } from './notices.js';
import { Session, Sessions } from './session.js';
import { Live, SocketOptions } from './socket.js';
import { notify, Task, TransferTask } from './task.js';
import type { WxApi, WxCallbacks } from './wx.js';

export interface ClientOptions {
  /** Where minigate is, e.g. `https://gate.example.com`; no port, not even :443. */
  baseUrl: string;
  /** Which mini-program this is; needed only where one minigate serves several. */
  appid?: string;
  /** The wx to call; default the global one. uni-app passes `uni`. */
  wx?: WxApi;
  /** The storage key of the session; default one per base URL and appid. */
  storageKey?: string;
  /**
   * What this phone is called in the operator's list of sessions, at most 64
   * characters; default its brand and model. false tells nothing.
   */
  device?: string | false;
}

export interface AuthorizeOptions extends WxCallbacks<{ errMsg: string }> {
  /** E.g. `scope.userLocation`. */
  scope: string;
}

export interface Client {
  /** The session in force, without asking anybody; undefined before the first login. */
  readonly session: Session | undefined;
  /**
   * Logs in anew. Not required: every other call logs in where no session is
   * kept, and once more when the server refuses the one it has. Logins that
   * overlap are one login.
   */
  login(callbacks?: WxCallbacks<Session>): Promise<Session>;
  /** Ends the session here and at the server and closes the socket. A later call logs in again. */
  logout(callbacks?: WxCallbacks<void>): Promise<void>;
  /** wx.request with the token; a status ≥ 400 fails. PATCH works. */
  request<T = any>(options: RequestOptions<T>): Task<RequestResult<T>>;
  /**
   * Uploads a file: small ones as one form, large ones in parts that go on after
   * a failure of the line or a restart of the app, each straight to the storage
   * where that is possible. Aborting gives the upload up for good.
   */
  upload<T = FileRecord>(options: UploadOptions<T>): TransferTask<UploadResult<T>>;
  /**
   * wx.downloadFile with the token; a status ≥ 400 fails and leaves no file.
   * With `onPart` or `join` the file comes in pieces, and may have any size.
   */
  download(options: DownloadOptions): TransferTask<DownloadResult>;
  /**
   * The live connection: a `Centrifuge` of the stock SDK, connecting. There is
   * one per client; a second call returns it, and connects it if it was closed.
   */
  socket(options?: SocketOptions): Centrifuge;
  /**
   * Calls `listener` for each file that the server tells of while the `socket` is
   * open, or that it recovers: one of this user that became ready or was blocked,
   * or one that is shared with a channel this client is in. Returns what ends that.
   */
  onFile(listener: FileListener): () => void;
  /** Asks the user for a scope; a refusal fails with `authorization_refused`. */
  authorize(options: AuthorizeOptions): Promise<{ errMsg: string }>;
  /**
   * Has open data verified and decrypted. Login first, then fetch: data fetched
   * before a login can no longer be opened after it. Where the server has no
   * key that fits (`session_key_stale`), this logs in and, with `fetch`, tries
   * once more with fresh data; without `fetch` it fails with that code, logged
   * in, and the app fetches again.
   */
  openData<T = any>(options: OpenDataOptions<T>): Promise<OpenedData<T>>;
  /** The phone number, for the `detail` of the getPhoneNumber button's event. */
  phone(options: PhoneOptions): Promise<PhoneNumber>;
  /** A short-lived ticket, sent as `?ticket=` where no header can be. One for `socket` works once. */
  ticket(scope: Scope, callbacks?: WxCallbacks<Ticket>): Promise<Ticket>;
  /** The URL of a file for `<image src>`, `<video src>`, …; good for at least half a ticket's life. */
  fileUrl(file: string | { id: string }, callbacks?: WxCallbacks<string>): Promise<string>;
  /**
   * For App.onShow: probes the socket, which the system may have cut without a
   * word while the app was in the background, and reconnects a dead one. Called
   * by itself where wx.onAppShow exists; calling it twice does no harm.
   */
  onShow(): void;
}

/** Makes the client of one minigate. Nothing is sent before the first call. */
export function createClient(options: ClientOptions): Client {
  const api: WxApi | undefined = options.wx || (typeof wx === 'undefined' ? undefined : wx);
  if (!api) throw new TypeError('There is no global wx: pass one as options.wx.');
  const baseUrl = normalize(options.baseUrl);
  const storageKey = options.storageKey || `minigate:${options.appid || ''}@${baseUrl}`;
  const sessions = new Sessions(api, baseUrl, storageKey, options);
  const http = new Http(api, baseUrl, sessions, storageKey);
  const auth = new Auth(http, sessions);
  const live = new Live(api, `${baseUrl.replace(/^http/, 'ws')}/connection/websocket`, sessions);

  return {
    get session() {
      return sessions.peek();
    },
    login: (callbacks = {}) => told(sessions.login(), callbacks),
    logout: (callbacks = {}) => {
      live.close();
      return told(sessions.end(), callbacks);
    },
    request: (o) => http.request(o),
    upload: (o) => http.upload(o),
    download: (o) => http.download(o),
    socket: (o) => live.open(o),
    onFile: (listener) => live.notices.add(listener),
    authorize: (o) => told(authorize(api, o.scope), o),
    openData: (o) => told(auth.openData(o), o),
    phone: (o) => told(auth.phone(o), o),
    ticket: (scope, callbacks = {}) => told(auth.ticket(scope), callbacks),
    fileUrl: (file, callbacks = {}) => {
      const id = encodeURIComponent(typeof file === 'string' ? file : file.id);
      return told(auth.fileQuery(id).then((query) => `${baseUrl}/files/${id}${query}`), callbacks);
    },
    onShow: () => live.probe(),
  };
}

function told<T>(promise: Promise<T>, callbacks: WxCallbacks<T>): Promise<T> {
  notify(promise, callbacks);
  return promise;
}

function authorize(api: WxApi, scope: string): Promise<{ errMsg: string }> {
  return new Promise((resolve, reject) => {
    const fail = (failure: any) => reject(fromWx(failure, 'authorization_refused'));
    if (api.authorize) api.authorize({ scope, success: resolve, fail });
    else fail({ errMsg: 'authorize:fail not supported here' });
  });
}

/** WeChat refuses even the default port in a URL. */
function normalize(baseUrl: string): string {
  if (!/^https?:\/\/[^/]/.test(baseUrl)) throw new TypeError('baseUrl must start with https:// (http:// in development).');
  return baseUrl.replace(/\/+$/, '').replace(/^(https:\/\/[^/]+?):443(?=\/|$)/, '$1');
}
