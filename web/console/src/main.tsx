import 'uplot/dist/uPlot.min.css';
import './style.css';
import { render } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';
import { Alerts } from './alerts.tsx';
import { post } from './api.ts';
import { Chart } from './chart.tsx';
import { bytes, count } from './format.ts';
import { choose, current, t, type Word } from './i18n.ts';
import { linkedUser } from './link.ts';
import { SignIn } from './signin.tsx';
import { keep, type Connection, type Lists, listen, rate, type Sample, type Session } from './stream.ts';
import { Connections, Dependencies, Nodes } from './tables.tsx';
import { Tile } from './tile.tsx';
import { Users } from './users.tsx';
import { Webhooks } from './webhooks.tsx';

const green = '#07c160';
const blue = '#3b82f6';
const orange = '#f59e0b';

function Tiles({ samples }: { samples: Sample[] }) {
  const last = samples.at(-1);
  const before = samples.at(-2);
  const per = (of: keyof Sample) => rate(before, last, of);
  return (
    <div class="tiles">
      <Tile id="stat-connections" label="connections" value={count(last?.connections ?? 0)} />
      <Tile id="stat-users" label="users" value={count(last?.users ?? 0)} />
      <Tile id="stat-channels" label="channels" value={count(last?.channels ?? 0)} />
      <Tile id="stat-received" label="received" value={count(per('received_total'))} unit={t('perSecond')} />
      <Tile id="stat-delivered" label="delivered" value={count(per('delivered_total'))} unit={t('perSecond')} />
      <Tile id="stat-requests" label="requests" value={count(per('requests_total'))} unit={t('perSecond')} />
      <Tile id="stat-transfers" label="transfers" value={count(last?.transfers_active ?? 0)} unit={t('active')} />
      <Tile id="stat-memory" label="memory" value={bytes(last?.memory_bytes ?? 0)} />
    </div>
  );
}

function Charts({ samples }: { samples: Sample[] }) {
  const times = useMemo(() => samples.map((s) => s.time / 1000), [samples]);
  const gauge = (of: keyof Sample) => samples.map((s) => s[of]);
  const rates = (of: keyof Sample) => samples.map((s, i) => rate(samples[i - 1], s, of));
  const per = (format: (n: number) => string) => (n: number) => format(n) + t('perSecond');
  return (
    <div class="grid">
      <Chart title={t('connections')} times={times} format={count} lines={[
        { label: t('connections'), color: green, values: gauge('connections') },
        { label: t('users'), color: blue, values: gauge('users') },
      ]} />
      <Chart title={t('messages')} times={times} format={per(count)} lines={[
        { label: t('delivered'), color: green, values: rates('delivered_total') },
        { label: t('received'), color: blue, values: rates('received_total') },
        { label: t('published'), color: orange, values: rates('published_total') },
      ]} />
      <Chart title={t('transfers')} times={times} format={per(bytes)} lines={[
        { label: t('upload'), color: green, values: rates('upload_bytes_total') },
        { label: t('download'), color: blue, values: rates('download_bytes_total') },
      ]} />
      <Chart title={t('requests')} times={times} format={per(count)} lines={[
        { label: t('requests'), color: green, values: rates('requests_total') },
        { label: t('logins'), color: blue, values: rates('logins_total') },
      ]} />
    </div>
  );
}

async function kick(c: Connection) {
  if (!confirm(`${t('confirmKick')}\n${c.user}`)) return;
  await post('/console/kick', { user: c.user, client: c.client }).catch((e) => alert(e.message));
}

const states: Record<string, Word> = { ready: 'ready', degraded: 'degraded', starting: 'starting', stopping: 'stopping' };

function useHash(): string {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return hash;
}

function Overview({ samples, lists, now, admin }: { samples: Sample[]; lists?: Lists; now: number; admin: boolean }) {
  return (
    <>
      <Tiles samples={samples} />
      <Charts samples={samples} />
      <div class="grid">
        <Dependencies list={lists?.health.dependencies ?? []} now={now} />
        <Nodes list={lists?.nodes ?? []} now={now} />
      </div>
      <Connections list={lists?.connections ?? []} now={now} kick={admin ? kick : undefined} />
    </>
  );
}

function Dashboard({ session, refused }: { session: Session; refused: () => void }) {
  const [samples, setSamples] = useState<Sample[]>([]);
  const [lists, setLists] = useState<Lists>();
  const [live, setLive] = useState(false);
  useEffect(() => listen({ samples: (news) => setSamples((old) => keep(old, news)), lists: setLists, live: setLive, refused }), []);

  const hash = useHash();
  const admin = session.scope === 'admin';
  const view = !admin ? '' : hash.startsWith('#user') ? 'users' : hash === '#webhooks' ? 'webhooks' : '';
  const dead = samples.at(-1)?.webhook_dead ?? 0;
  const now = samples.at(-1)?.time ?? Date.now();
  const status = lists?.health.status ?? 'starting';
  return (
    <>
      <div class="status">
        <span class={`pill ${status === 'ready' ? 'good' : status === 'degraded' ? 'warn' : 'bad'}`}>{t(states[status] ?? 'unready')}</span>
        <span class={live ? 'pill good' : 'pill bad'} id="live">{live ? t('live') : t('offline')}</span>
        <span class="dim">{lists?.version}</span>
        {admin && (
          <nav class="views">
            <a href="#" aria-current={view ? undefined : 'page'}>{t('overview')}</a>
            <a href="#user=" id="to-users" aria-current={view === 'users' ? 'page' : undefined}>{t('users')}</a>
            <a href="#webhooks" id="to-webhooks" aria-current={view === 'webhooks' ? 'page' : undefined}>
              {t('webhooks')}
              {dead > 0 && <span class="pill bad">{count(dead)}</span>}
            </a>
          </nav>
        )}
      </div>
      <Alerts list={lists?.alerts ?? []} />
      {view === 'users' && <Users openid={linkedUser(hash)} now={now} />}
      {view === 'webhooks' && <Webhooks last={samples.at(-1)} hooks={lists?.hooks ?? []} now={now} />}
      {view === '' && <Overview samples={samples} lists={lists} now={now} admin={admin} />}
    </>
  );
}

function App() {
  const [session, setSession] = useState<Session>();
  const [language, setLanguage] = useState(current());
  const ask = () => void fetch('/console/session').then((res) => res.json()).then(setSession, () => {}); // the server may be away
  useEffect(ask, []);
  const signOut = async () => {
    await fetch('/console/session', { method: 'DELETE' });
    setSession({ signed_in: false, open: false });
  };
  const other = language === 'zh' ? 'en' : 'zh';
  return (
    <>
      <header>
        <h1>minigate</h1>
        <span class="dim">{t('subtitle')}</span>
        <nav>
          {session?.signed_in && !session.open && <button onClick={signOut}>{session.name} · {t('signOut')}</button>}
          <button id="language" onClick={() => (choose(other), setLanguage(other))}>{other === 'zh' ? '中文' : 'English'}</button>
        </nav>
      </header>
      <main>
        {session && (session.signed_in ? <Dashboard session={session} refused={ask} /> : <SignIn done={setSession} />)}
      </main>
    </>
  );
}

render(<App />, document.getElementById('app')!);
