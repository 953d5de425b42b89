import { Centrifuge, Options, Subscription, SubscriptionOptions, UnauthorizedError } from 'centrifuge';
import { socketConstructor } from './adapter.js';
import { MinigateError } from './error.js';
import { Notices } from './notices.js';
import type { Sessions } from './session.js';
import type { WxApi } from './wx.js';

/** Options of the centrifuge SDK, and ours. Those that carry the connection can't be set. */
export interface SocketOptions extends Partial<Omit<Options, 'websocket' | 'token' | 'getToken' | 'networkEventTarget'>> {
  /** Milliseconds a probed socket has to answer before it counts as dead; default 3000. */
  probeTimeout?: number;
}

/** Close code of a token the server does not take. */
const invalidToken = 3500;

/** The one socket of a client. */
export class Live {
  readonly notices = new Notices();
  private centrifuge?: Centrifuge;
  private readonly network = new NetworkEvents();
  private probeTimeout = 3000;
  private probing = false;
  /** The token last given to the SDK. */
  private offered = '';
  private retried = false;

  constructor(private readonly wx: WxApi, private readonly url: string, private readonly sessions: Sessions) {}

  open({ probeTimeout, ...options }: SocketOptions = {}): Centrifuge {
    if (probeTimeout) this.probeTimeout = probeTimeout;
    if (!this.centrifuge) {
      this.centrifuge = this.create(options);
      this.watch();
    }
    this.retried = false;
    this.centrifuge.connect();
    return this.centrifuge;
  }

  close(): void {
    if (!this.centrifuge) return;
    this.centrifuge.disconnect();
    this.centrifuge.setToken('');
  }

  /** Reconnects at once if the socket is waiting to, or no longer answers. */
  probe(): void {
    const c = this.centrifuge;
    if (!c || this.probing) return;
    if (c.state !== 'connected') return this.network.emit('online');
    this.probing = true;
    this.alive(c).then((alive) => {
      this.probing = false;
      if (alive || c.state !== 'connected') return;
      this.network.emit('offline');
      this.network.emit('online');
    });
  }

  private create(options: Partial<Options>): Centrifuge {
    const c = new Heard(this.url, {
      name: 'minigate',
      ...options,
      websocket: socketConstructor(this.wx),
      networkEventTarget: this.network as any,
      getToken: () => this.token(c),
    });
    c.notices = this.notices;
    c.on('publication', (ctx) => this.notices.hear(ctx));
    c.on('connected', () => {
      this.retried = false;
    });
    c.on('disconnected', ({ code }) => {
      if (code !== invalidToken || this.retried) return;
      this.retried = true;
      c.setToken(''); // so that token() is asked, and finds the old one refused
      c.connect();
    });
    return c;
  }

  /**
   * The SDK asks only when it has no token or the server refused it. Asked
   * again while not connected, the token it was given last is the refused one.
   */
  private async token(c: Centrifuge): Promise<string> {
    try {
      let session = await this.sessions.get();
      if (session.token === this.offered && c.state !== 'connected') session = await this.sessions.renew(this.offered);
      this.offered = session.token;
      return session.token;
    } catch (error) {
      const refused = error instanceof MinigateError && (error.statusCode === 401 || error.statusCode === 403);
      throw refused ? new UnauthorizedError(error.message) : error;
    }
  }

  /** Any answer proves life, a refusal too: the server need not know the method. */
  private alive(c: Centrifuge): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), this.probeTimeout);
      const settle = (alive: boolean) => {
        clearTimeout(timer);
        resolve(alive);
      };
      c.rpc('minigate.probe', null).then(
        () => settle(true),
        (error) => settle(error.code >= 100),
      );
    });
  }

  private watch(): void {
    const { wx } = this;
    if (wx.onAppShow) wx.onAppShow(() => this.probe());
    if (wx.onNetworkStatusChange) {
      wx.onNetworkStatusChange((status) => {
        if (status.isConnected) this.probe();
      });
    }
  }
}

/** The stock client, and what comes in its subscriptions is heard. */
class Heard extends Centrifuge {
  notices?: Notices;

  newSubscription(channel: string, options?: Partial<SubscriptionOptions>): Subscription {
    const sub = super.newSubscription(channel, options);
    sub.on('publication', (ctx) => this.notices!.hear(ctx));
    return sub;
  }
}

/** The event target through which the SDK is told about the network. */
class NetworkEvents {
  private readonly listeners: Record<string, Array<() => void>> = {};

  addEventListener(type: string, listener: () => void): void {
    (this.listeners[type] = this.listeners[type] || []).push(listener);
  }

  removeEventListener(type: string, listener: () => void): void {
    this.listeners[type] = (this.listeners[type] || []).filter((l) => l !== listener);
  }

  emit(type: 'offline' | 'online'): void {
    for (const listener of this.listeners[type] || []) listener();
  }
}
