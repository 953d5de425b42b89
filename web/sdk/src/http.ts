import { fromAnswer, MinigateError, parse } from './error.js';
import { Files } from './files.js';
import { Lanes } from './lanes.js';
import type { Sessions } from './session.js';
import { Call, Progress, start, Task, TransferTask } from './task.js';
import { Ranges } from './ranges.js';
import type { DownloadedPart } from './ranges.js';
import { Uploads } from './uploads.js';
import type { Answer, WxApi, WxCallbacks } from './wx.js';

/** Options of one call. Whatever is not named here goes to wx as it is (enableHttp2, …). */
export interface CallOptions<R> extends WxCallbacks<R> {
  /** A path of minigate, e.g. `/api/orders`; the token is sent to no other host. */
  url?: string;
  header?: Record<string, string>;
  /** Milliseconds; wx's default is 60000. */
  timeout?: number;
  [wxOption: string]: unknown;
}

export interface RequestOptions<T = any> extends CallOptions<RequestResult<T>> {
  url: string;
  /** Default GET. PATCH, which wx lacks, travels as POST with X-HTTP-Method-Override. */
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'TRACE' | 'CONNECT';
  data?: string | object | ArrayBuffer;
}

export interface RequestResult<T = any> extends Answer {
  data: T;
}

export interface UploadOptions<T = FileRecord> extends CallOptions<UploadResult<T>> {
  filePath: string;
  /** The name the file is kept under; phones send only a temporary one. */
  fileName?: string;
  /** Bytes. Asked from the file system where left out. */
  size?: number;
  /** The media type, as the app knows it; what counts in the end is what the bytes say. */
  type?: string;
  /** One form, or parts that go on after a failure; the server chooses by the size where left out. */
  mode?: 'form' | 'parts';
  /** How many parts may be on their way at a time: 1 to 3, default 2. */
  parallel?: number;
  /** Anybody who knows its address may read it; where minigate lets users. */
  public?: boolean;
  /** A channel whose members may read it; where minigate lets users, and this one is in it. */
  channel?: string;
  /** With one of these it is one form to this URL, `/files` where left out, and nothing else. */
  url?: string;
  /** The form field, default `file`. */
  name?: string;
  formData?: Record<string, any>;
  onProgress?(progress: Progress): void;
}

/** What minigate answers to an upload. */
export interface FileRecord {
  id: string;
  name: string;
  size: number;
  /** What the content was recognized as. */
  type: string;
  /** In hexadecimal; absent where a file came in parts and it was not declared. */
  sha256?: string;
  url: string;
  /** checking: nobody but the user can read it yet; blocked: it did not pass, and nobody can. */
  state?: 'checking' | 'blocked';
}

export interface UploadResult<T = FileRecord> extends Answer {
  data: T;
}

export interface DownloadOptions extends CallOptions<DownloadResult> {
  url: string;
  /** Where to store the file; a temporary one where left out. */
  filePath?: string;
  /**
   * For files that wx.downloadFile cannot hold (200 MB): receives the pieces as
   * temporary files, in order, the next one when this is done. Remove or move
   * each, the phone has little room.
   */
  onPart?(part: DownloadedPart): void | PromiseLike<void>;
  /** Bytes of a piece; default 32 MiB, with `join` 8 MiB. */
  partSize?: number;
  /** Joins the pieces to `filePath`, which is there when it is whole; where that cannot fit, it fails with `no_room`. */
  join?: boolean;
  onProgress?(progress: Progress): void;
}

export interface DownloadResult extends Answer {
  /** The temporary file; absent where `filePath` or `onPart` was given. */
  tempFilePath?: string;
}

/** What a login cures. */
const refusals = ['token_missing', 'token_expired', 'token_invalid'];

/** Calls for files at a time. wx has ten in all, and lets the others wait: these are the app's. */
const maxTransfers = 6;

/** The three HTTP calls: token, one retry after a login, statuses as errors. */
export class Http {
  private readonly files: Files;
  private readonly lanes = new Lanes(maxTransfers);
  private readonly uploads: Uploads;
  private readonly ranges: Ranges;

  constructor(
    private readonly wx: WxApi,
    private readonly baseUrl: string,
    private readonly sessions: Sessions,
    storageKey: string,
  ) {
    this.files = new Files(wx);
    this.uploads = new Uploads(wx, baseUrl, `${storageKey}:uploads`, (call, method, path, data) => this.json(call, method, path, data));
    this.ranges = new Ranges(this.files);
  }

  request<T>(options: RequestOptions<T>): Task<RequestResult<T>> {
    const { success, fail, complete, ...rest } = options;
    const call = new Call(this.wx, 'request');
    return start<any>(call, options, () =>
      this.authorized(call, rest.url, rest.header, async (url, header) => {
        const answer = await call.send({ ...rest, ...method(rest.method, header), url });
        return accept(answer, parse(answer.data));
      }),
    );
  }

  upload<T>(options: UploadOptions<T>): TransferTask<UploadResult<T>> {
    const { success, fail, complete, onProgress, ...given } = options;
    const call = new Call(this.wx, 'uploadFile', this.lanes);
    if (onProgress) call.progress.push(onProgress);
    return start<any>(call, options, async () => {
      const { filePath, fileName, type, mode, parallel, public: open, channel, size: told, url, name, formData, header, ...wxOptions } = given;
      const found = await this.files.look(filePath);
      const size = told === undefined ? found.size : told;
      if (size === undefined || url || name || formData) return this.plainForm(call, given, size);
      const access = withQuery('', { public: open || undefined, channel }).slice(1);
      const source = { filePath, size, modified: found.modified, fileName, type, mode, parallel, access, wxOptions };
      return { data: await this.uploads.send(call, source), statusCode: 201, errMsg: 'uploadFile:ok' };
    });
  }

  /** A form that says all that there is to say. */
  private plainForm(call: Call, given: any, size?: number): Promise<any> {
    const { fileName, size: _, type, mode, parallel, public: open, channel, url = '/files', ...rest } = given;
    return this.authorized(call, withQuery(url, { size, name: fileName, public: open || undefined, channel }), rest.header, async (url, header) => {
      const answer = await call.send({ name: 'file', ...rest, url, header: without(header, 'content-type') });
      const data = parse(answer.data);
      return { ...accept(answer, data), data };
    });
  }

  download(options: DownloadOptions): TransferTask<DownloadResult> {
    const { success, fail, complete, onProgress, onPart, partSize, join, ...rest } = options;
    const call = new Call(this.wx, 'downloadFile', this.lanes);
    if (onProgress) call.progress.push(onProgress);
    return start<any>(call, options, () => {
      if (onPart || join) {
        return this.ranges.fetch(call, { ...rest, onPart, partSize, join }, (header, send) => this.authorized(call, rest.url, header, send));
      }
      return this.authorized(call, rest.url, rest.header, async (url, header) => {
        const answer = await call.send({ ...rest, url, header });
        return answer.statusCode < 400 ? answer : accept(answer, await this.files.takeErrorBody(answer));
      });
    });
  }

  /** One call of minigate within another: its answer, parsed. */
  private json(call: Call, method: string, path: string, data?: object): Promise<any> {
    return this.authorized(call, path, {}, async (url, header) => {
      const answer = await call.send({ url, method, header, data }, 'request');
      const body = parse(answer.data);
      accept(answer, body);
      return body;
    });
  }

  /** Sends with the token; if exactly that is refused, logs in and sends once more. */
  private async authorized<R>(
    call: Call,
    target: string,
    header: Record<string, string> = {},
    send: (url: string, header: Record<string, string>) => Promise<R>,
  ): Promise<R> {
    const url = target.charAt(0) === '/' ? this.baseUrl + target : target;
    if (url !== this.baseUrl && url.indexOf(`${this.baseUrl}/`) !== 0) return send(url, header);
    const attempt = (token: string) => send(url, { ...without(header, 'authorization'), Authorization: `Bearer ${token}` });
    const { token } = await this.sessions.get();
    try {
      return await attempt(token);
    } catch (error) {
      if (call.aborted || !isRefusal(error)) throw error;
      return attempt((await this.sessions.renew(token)).token);
    }
  }
}

/** A 401 that names the token, or whose body can't be read (downloads in places). */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof MinigateError) || error.statusCode !== 401) return false;
  return error.data === undefined || refusals.indexOf(error.code) >= 0;
}

function accept(answer: Answer, body: unknown): Answer {
  if (answer.statusCode >= 400) throw fromAnswer(answer, body);
  return answer;
}

function method(name: string | undefined, header: Record<string, string>) {
  if (name !== 'PATCH') return name ? { method: name, header } : { header };
  return { method: 'POST', header: { ...header, 'X-HTTP-Method-Override': 'PATCH' } };
}

/** A copy of header without the field `name`, in whatever case it is written. */
function without(header: Record<string, string>, name: string): Record<string, string> {
  const rest: Record<string, string> = {};
  for (const key of Object.keys(header)) {
    if (key.toLowerCase() !== name) rest[key] = header[key];
  }
  return rest;
}

function withQuery(url: string, query: Record<string, string | number | boolean | undefined>): string {
  const pairs = Object.keys(query)
    .filter((key) => query[key] !== undefined)
    .map((key) => `${key}=${encodeURIComponent(String(query[key]))}`);
  return pairs.length ? url + (url.indexOf('?') < 0 ? '?' : '&') + pairs.join('&') : url;
}
