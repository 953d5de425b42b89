import { fromAnswer, MinigateError, parse } from './error.js';
import type { Sessions } from './session.js';
import { Call, Progress, start, Task, TransferTask } from './task.js';
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
  /** Default `/files`. */
  url?: string;
  /** The form field, default `file`. */
  name?: string;
  /** The name the file is kept under; phones send only a temporary one. */
  fileName?: string;
  /** Bytes. Asked from the file system where left out. */
  size?: number;
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
  sha256: string;
  url: string;
}

export interface UploadResult<T = FileRecord> extends Answer {
  data: T;
}

export interface DownloadOptions extends CallOptions<DownloadResult> {
  url: string;
  /** Where to store the file; a temporary one where left out. */
  filePath?: string;
  onProgress?(progress: Progress): void;
}

export interface DownloadResult extends Answer {
  /** The temporary file; absent where `filePath` was given. */
  tempFilePath?: string;
}

/** What a login cures. */
const refusals = ['token_missing', 'token_expired', 'token_invalid'];

/** The three HTTP calls: token, one retry after a login, statuses as errors. */
export class Http {
  constructor(private readonly wx: WxApi, private readonly baseUrl: string, private readonly sessions: Sessions) {}

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
    const { success, fail, complete, onProgress, fileName, size, url = '/files', ...rest } = options;
    const call = new Call(this.wx, 'uploadFile');
    if (onProgress) call.progress.push(onProgress);
    return start<any>(call, options, async () => {
      const known = size === undefined ? await this.sizeOf(rest.filePath) : size;
      const target = withQuery(url, { size: known, name: fileName });
      return this.authorized(call, target, rest.header, async (url, header) => {
        const answer = await call.send({ name: 'file', ...rest, url, header: without(header, 'content-type') });
        const data = parse(answer.data);
        return { ...accept(answer, data), data };
      });
    });
  }

  download(options: DownloadOptions): TransferTask<DownloadResult> {
    const { success, fail, complete, onProgress, ...rest } = options;
    const call = new Call(this.wx, 'downloadFile');
    if (onProgress) call.progress.push(onProgress);
    return start<any>(call, options, () =>
      this.authorized(call, rest.url, rest.header, async (url, header) => {
        const answer = await call.send({ ...rest, url, header });
        if (answer.statusCode < 400) return answer;
        return accept(answer, await this.takeErrorBody(answer));
      }),
    );
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

  /** The size of a local file, undefined where the platform does not tell. */
  private sizeOf(filePath: string): Promise<number | undefined> {
    const fs = this.wx.getFileSystemManager && this.wx.getFileSystemManager();
    return new Promise((resolve) => {
      if (!fs || !fs.stat) return resolve(undefined);
      fs.stat({ path: filePath, success: (r: any) => resolve(r.stats.size), fail: () => resolve(undefined) });
    });
  }

  /** Where wx stored an error's body as if it were the file: reads and removes it. */
  private takeErrorBody(answer: Answer): Promise<unknown> {
    const fs = this.wx.getFileSystemManager && this.wx.getFileSystemManager();
    const filePath = answer.filePath || answer.tempFilePath;
    return new Promise((resolve) => {
      if (!fs || !filePath) return resolve(undefined);
      const done = (body: unknown) => {
        fs.unlink({ filePath, complete: () => resolve(body) });
      };
      fs.readFile({
        filePath,
        encoding: 'utf8',
        success: (r: any) => done(parse(r.data)),
        fail: () => done(undefined),
      });
    });
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

function withQuery(url: string, query: Record<string, string | number | undefined>): string {
  const pairs = Object.keys(query)
    .filter((key) => query[key] !== undefined)
    .map((key) => `${key}=${encodeURIComponent(String(query[key]))}`);
  return pairs.length ? url + (url.indexOf('?') < 0 ? '?' : '&') + pairs.join('&') : url;
}
