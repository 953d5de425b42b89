import type { Answer, WxFailure } from './wx.js';

/**
 * The one error of this library, as `fail` and a rejected promise receive it.
 *
 * `code` is for programs. It is the server's own code where the server gave
 * one, else one of: `login_failed` (wx.login refused), `authorization_refused`
 * (the user refused), `fetch_failed` (the `fetch` given to openData did),
 * `file_unreadable`, `file_unwritable`, `no_room` (on the phone), `bad_options`, `aborted`, `timeout`,
 * `interrupted` (cut in the background), `network_error`, `bad_answer`, `http_<status>`.
 */
export class MinigateError extends Error {
  /** The HTTP status, 0 where no server answered. */
  statusCode = 0;
  /** The id to look for in the server's log, '' where there is none. */
  requestId = '';
  /** What wx said, always present as wx users expect. */
  errMsg = '';
  /** WeChat's number for a failure of wx itself. */
  errno?: number;
  /** The body of the answer, where there was one. */
  data?: unknown;

  constructor(public code: string, message: string, more: Partial<MinigateError> = {}) {
    super(message);
    this.name = 'MinigateError';
    Object.assign(this, more);
    if (!this.errMsg) this.errMsg = message;
  }
}

/** Translates what wx handed to `fail`. */
export function fromWx(failure: WxFailure, code?: string): MinigateError {
  const { errMsg = 'unknown failure', errno } = failure || {};
  return new MinigateError(code || codeOf(errMsg), errMsg, { errMsg, errno });
}

function codeOf(errMsg: string): string {
  if (/\babort/.test(errMsg)) return 'aborted';
  if (/time ?out|timed out/i.test(errMsg)) return 'timeout';
  if (/interrupted/.test(errMsg)) return 'interrupted';
  return 'network_error';
}

/** The error of an answer with statusCode ≥ 400; `body` is parsed where it could be. */
export function fromAnswer(answer: Answer, body: any): MinigateError {
  const error = (body && body.error) || {};
  const { statusCode } = answer;
  return new MinigateError(
    typeof error.code === 'string' ? error.code : `http_${statusCode}`,
    typeof error.message === 'string' ? error.message : `The server answered ${statusCode}.`,
    {
      statusCode,
      requestId: error.request_id || headerOf(answer, 'x-request-id'),
      errMsg: answer.errMsg,
      data: body,
    },
  );
}

function headerOf(answer: Answer, name: string): string {
  const header = answer.header || {};
  const key = Object.keys(header).find((k) => k.toLowerCase() === name);
  return key ? String(header[key]) : '';
}

/** Parses JSON, gives back anything else as it came. */
export function parse(data: unknown): unknown {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
