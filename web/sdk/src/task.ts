import { fromWx, MinigateError } from './error.js';
import type { Lanes } from './lanes.js';
import type { Answer, WxApi, WxCallbacks, WxTask } from './wx.js';

/** A running call: a promise that can be aborted like a wx task. */
export interface Task<T> extends Promise<T> {
  /** Ends the call; it fails with code `aborted`. */
  abort(): void;
}

/** A running transfer. */
export interface TransferTask<T> extends Task<T> {
  /** Reports progress until the transfer ends; may be called at any time. */
  onProgressUpdate(listener: (progress: Progress) => void): void;
}

/** `total` is 0 while it is unknown. */
export interface Progress {
  /** Per cent, 0 to 100. */
  progress: number;
  sent: number;
  total: number;
}

type Method = 'request' | 'uploadFile' | 'downloadFile';

/** What belongs to one call over all its attempts (login, first try, retry). */
export class Call {
  /** Set once: nothing new may start for this call. */
  aborted?: MinigateError;
  readonly progress: Array<(p: Progress) => void> = [];
  /** What ends that which is under way. */
  private readonly stops = new Set<() => void>();

  /** With `lanes`, each of its wx calls waits for one. */
  constructor(private readonly wx: WxApi, private readonly method: Method, private readonly lanes?: Lanes) {}

  /**
   * One wx call, of several at a time maybe; resolves on any HTTP status, like wx
   * itself. Options that cost much are a function, called when it is their turn.
   */
  send(options: object, method: Method = this.method, as: (p: Progress) => Progress = (p) => p): Promise<Answer> {
    if (this.aborted) return Promise.reject(this.aborted);
    let leave = () => {};
    let stop!: () => void;
    const answer = new Promise<Answer>((success, reject) => {
      let task: WxTask | undefined;
      stop = () => {
        reject(this.aborted);
        if (task) task.abort();
      };
      const go = async () => {
        try {
          const given: object = typeof options === 'function' ? await options() : options;
          if (this.aborted) return;
          task = this.wx[method]({ ...given, success, fail: (failure: any) => reject(fromWx(failure)) });
          if (task && method === this.method && task.onProgressUpdate) task.onProgressUpdate((p) => this.tell(as(progressOf(p))));
        } catch (error) {
          reject(error);
        }
      };
      if (this.lanes) leave = this.lanes.enter(go);
      else go();
    });
    this.stops.add(stop);
    const over = () => {
      this.stops.delete(stop);
      leave();
    };
    answer.then(over, over);
    return answer;
  }

  /** Does not wait for wx, which does not always say that it has ended a call. */
  abort(): MinigateError {
    this.aborted = fromWx({ errMsg: `${this.method}:fail abort` });
    for (const stop of Array.from(this.stops)) stop();
    return this.aborted;
  }

  /** A call that nobody can abort, for what has to be said after the end. */
  detached(): Call {
    return new Call(this.wx, this.method, this.lanes);
  }

  /** Reports progress that wx does not know of. */
  tell(p: Progress): void {
    for (const listener of this.progress) listener(p);
  }

  /** A pause that ends when the call is aborted. */
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const over = () => {
        clearTimeout(timer);
        this.stops.delete(over);
        resolve();
      };
      const timer = setTimeout(over, ms);
      this.stops.add(over);
    });
  }
}

function progressOf(p: any): Progress {
  const sent = p.totalBytesSent ?? p.totalBytesWritten ?? 0;
  const total = p.totalBytesExpectedToSend ?? p.totalBytesExpectedToWrite ?? 0;
  return { progress: p.progress, sent, total };
}

/**
 * Runs a call and reports its end twice, as promise and as callbacks. Whoever
 * passes a callback has been told of a failure: the promise then never causes
 * an unhandled rejection.
 */
export function start<T>(call: Call, callbacks: WxCallbacks<T>, run: () => Promise<T>): TransferTask<T> {
  let stop!: (reason: MinigateError) => void;
  const promise = new Promise<T>((resolve, reject) => {
    stop = reject;
    run().then(resolve, reject);
  });
  notify(promise, callbacks);
  return Object.assign(promise, {
    abort: () => stop(call.abort()),
    onProgressUpdate: (listener: (p: Progress) => void) => void call.progress.push(listener),
  });
}

/** Calls success or fail, then complete, once the promise has settled. */
export function notify<T>(promise: Promise<T>, { success, fail, complete }: WxCallbacks<T>): void {
  if (!success && !fail && !complete) return;
  promise.then(
    (result) => {
      later(success, result);
      later(complete, result);
    },
    (error) => {
      later(fail, error);
      later(complete, error);
    },
  );
}

/** An exception in an app's callback is the app's: it surfaces there, not as our failure. */
export function later<T>(callback: ((value: T) => void) | undefined, value: T): void {
  if (!callback) return;
  try {
    callback(value);
  } catch (e) {
    setTimeout(() => {
      throw e;
    });
  }
}
