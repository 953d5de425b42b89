import type { WxApi, WxSocketTask } from './wx.js';

/** How long a socket that is being closed may keep the next one from opening. */
const closeWait = 1500;

/** The part of WebSocket that the centrifuge SDK uses. */
export interface SocketLike {
  onopen: (() => void) | null;
  onmessage: ((event: { data: string | ArrayBuffer }) => void) | null;
  onerror: ((event: { errMsg: string }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  send(data: string): void;
  close(): void;
}

/**
 * Makes a WebSocket constructor over wx.connectSocket. Of the sockets it
 * constructs at most one is alive: closing is asynchronous in wx, and a socket
 * opened too early counts against the limit of five, so the next one waits for
 * the last one's end. That end may never be reported (iOS after the
 * background), so the wait is bounded.
 */
export function socketConstructor(wx: WxApi): new (url: string) => SocketLike {
  let last: WxSocket | undefined;
  return class extends WxSocket {
    constructor(url: string) {
      const previous = last;
      super(wx, url, previous ? previous.end() : Promise.resolve());
      last = this;
    }
  };
}

class WxSocket implements SocketLike {
  onopen: SocketLike['onopen'] = null;
  onmessage: SocketLike['onmessage'] = null;
  onerror: SocketLike['onerror'] = null;
  onclose: SocketLike['onclose'] = null;

  private task?: WxSocketTask;
  private closing = false;
  private ended = false;
  private release!: () => void;
  private readonly released: Promise<void>;
  private timer?: ReturnType<typeof setTimeout>;

  constructor(private readonly wx: WxApi, url: string, free: Promise<void>) {
    this.released = new Promise((resolve) => {
      this.release = resolve;
    });
    free.then(() => this.open(url));
  }

  /** Closes the socket; resolves when wx has let go of it, or should have. */
  end(): Promise<void> {
    this.close();
    return this.released;
  }

  send(data: string): void {
    if (!this.task || this.closing) return;
    this.task.send({ data, fail: (failure: any) => this.broken(failure) });
  }

  close(): void {
    if (this.closing) return;
    this.closing = true;
    if (!this.task) return; // open() will find out
    // No code: phones do not carry ours, and the server does not need one.
    this.task.close({});
    this.timer = setTimeout(() => this.finish(1006, 'no close event'), closeWait);
  }

  private open(url: string): void {
    if (this.closing) return this.finish(1000, 'closed before it opened');
    const fail = (failure: any) => this.finish(1006, messageOf(failure));
    let task: WxSocketTask;
    try {
      task = this.wx.connectSocket({ url, success: () => undefined, fail });
    } catch (e) {
      return fail({ errMsg: String(e) });
    }
    if (!task || this.ended) return;
    this.task = task;
    task.onOpen(() => this.opened());
    task.onMessage((event) => {
      if (!this.closing && this.onmessage) this.onmessage(event);
    });
    task.onError((failure) => this.broken(failure));
    task.onClose((event) => this.finish(event && event.code, (event && event.reason) || ''));
  }

  private opened(): void {
    // A close() before the socket was open has no effect in wx: once more.
    if (this.closing) return void this.task!.close({});
    if (this.onopen) this.onopen();
  }

  /** An error ends a socket in practice; some platforms report no close after it. */
  private broken(failure: any): void {
    if (this.ended || this.closing) return;
    if (this.onerror) this.onerror({ errMsg: messageOf(failure) });
    this.close();
  }

  private finish(code: number | undefined, reason: string): void {
    if (this.ended) return;
    this.ended = this.closing = true;
    if (this.timer) clearTimeout(this.timer);
    this.release();
    if (this.onclose) this.onclose({ code: code || 1006, reason });
  }
}

function messageOf(failure: any): string {
  return (failure && failure.errMsg) || 'connection failed';
}
