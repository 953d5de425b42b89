// What the server tells, and the stream it comes over.
export interface Sample {
  time: number;
  connections: number;
  users: number;
  channels: number;
  subscriptions: number;
  received_total: number;
  published_total: number;
  delivered_total: number;
  disconnects_total: number;
  logins_total: number;
  requests_total: number;
  transfers_total: number;
  transfers_active: number;
  upload_bytes_total: number;
  download_bytes_total: number;
  webhook_pending: number;
  webhook_dead: number;
  webhook_oldest_seconds: number;
  memory_bytes: number;
  cpu_seconds_total: number;
}

export interface Dependency {
  name: string;
  up: boolean;
  critical: boolean;
  since: string;
  error?: string;
}

export interface Connection {
  client: string;
  user: string;
  appid: string;
  ip: string;
  name?: string;
  since: string;
  channels: string[] | null;
}

export interface Node {
  uid: string;
  name: string;
  version: string;
  started: string;
  clients: number;
  users: number;
  channels: number;
  subscribers: number;
  cpu?: number; // cores; absent where the node's system does not tell
  rss?: number; // bytes; as cpu
}

// Alert is a mistake in how a mini-program is set up at WeChat.
export interface Alert {
  appid: string;
  api: string;
  code: number; // WeChat's errcode
  cause: string;
  ip?: string; // the address WeChat does not let in
  rid: string;
  since: string;
  last: string;
  count: number;
}

// Hook is a webhook of the backend, as this node met it.
export interface Hook {
  hook: string;
  host: string;
  open: boolean; // it keeps failing: calls fail at once, but for a probe now and then
  worked?: string; // last
  failed?: string; // last
  reason?: string; // of the last failure
}

export interface Session {
  signed_in: boolean;
  open: boolean; // nobody has to sign in
  name?: string;
  scope?: string;
}

export interface Lists {
  version: string;
  health: { status: string; dependencies: Dependency[] | null };
  nodes: Node[] | null;
  connections: Connection[] | null;
  alerts: Alert[] | null;
  hooks: Hook[] | null;
}

const keptFor = 300_000; // ms

// keep adds news to the samples of the last five minutes. A node that was
// restarted counts from zero again: what it said before is of no use.
export function keep(samples: Sample[], news: Sample[]): Sample[] {
  const last = samples.at(-1);
  const fresh = last ? news.filter((s) => s.time > last.time) : news;
  const again = last && fresh.some((s) => s.cpu_seconds_total < last.cpu_seconds_total);
  const all = again ? fresh : [...samples, ...fresh];
  const newest = all.at(-1)?.time ?? 0;
  return all.filter((s) => s.time > newest - keptFor);
}

// rate is how fast a total grew between two samples, per second.
export function rate(before: Sample | undefined, after: Sample | undefined, of: keyof Sample): number {
  if (!before || !after || after.time <= before.time) return 0;
  return Math.max(0, ((after[of] - before[of]) * 1000) / (after.time - before.time));
}

export interface Listener {
  samples(news: Sample[]): void;
  lists(lists: Lists): void;
  live(is: boolean): void;
  refused(): void; // the server answers, but with no stream: the sign-in may have ended
}

const retryAfter = 3000; // ms

// listen follows the server until the returned function is called. The
// browser reconnects a stream that broke by itself, but gives up where it was
// answered anything else: then it is tried again here.
export function listen(to: Listener): () => void {
  let source: EventSource;
  let timer: ReturnType<typeof setTimeout>;
  const open = () => {
    source = new EventSource('/console/events');
    source.addEventListener('samples', (e) => to.samples(JSON.parse(e.data)));
    source.addEventListener('lists', (e) => to.lists(JSON.parse(e.data)));
    source.onopen = () => to.live(true);
    source.onerror = () => {
      to.live(false);
      if (source.readyState !== EventSource.CLOSED) return;
      to.refused();
      timer = setTimeout(open, retryAfter);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
