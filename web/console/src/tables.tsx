import { ago, bytes, count } from './format.ts';
import { t } from './i18n.ts';
import { userLink } from './link.ts';
import type { Connection, Dependency, Node } from './stream.ts';

export function Dependencies({ list, now }: { list: Dependency[]; now: number }) {
  return (
    <section class="card">
      <h2>{t('dependencies')}</h2>
      {list.length === 0 && <p class="dim">{t('noDependencies')}</p>}
      <table>
        <tbody>
          {list.map((d) => (
            <tr key={d.name}>
              <td>{d.name}</td>
              <td>
                <span class={d.up ? 'pill good' : 'pill bad'}>{d.up ? t('up') : t('down')}</span>
              </td>
              <td class="dim">{ago(d.since, now)}</td>
              <td class="error">{d.error}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

export function Nodes({ list, now }: { list: Node[]; now: number }) {
  return (
    <section class="card">
      <h2>{t('nodes')}</h2>
      <table>
        <thead>
          <tr>
            <th>{t('node')}</th>
            <th>{t('version')}</th>
            <th class="num">{t('connections')}</th>
            <th class="num">{t('users')}</th>
            <th class="num">{t('subscriptions')}</th>
            <th class="num">{t('cpu')}</th>
            <th class="num">{t('memory')}</th>
            <th class="num">{t('since')}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((n) => (
            <tr key={n.uid}>
              <td>{n.name || n.uid}</td>
              <td class="dim">{n.version}</td>
              <td class="num">{count(n.clients)}</td>
              <td class="num">{count(n.users)}</td>
              <td class="num">{count(n.subscribers)}</td>
              <td class="num">{n.rss === undefined ? '' : `${Math.round(100 * (n.cpu ?? 0))} %`}</td>
              <td class="num">{n.rss === undefined ? '' : bytes(n.rss)}</td>
              <td class="num dim">{ago(n.started, now)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

interface ConnectionsProps {
  list: Connection[];
  now: number;
  kick?: (c: Connection) => void; // absent: the operator may only look
}

const name = (c: Connection, linked: boolean) => (linked ? <a href={userLink(c.user)}>{c.user}</a> : c.user);

export function Connections({ list, now, kick }: ConnectionsProps) {
  return (
    <section class="card">
      <h2>
        {t('connections')} <small class="dim">{t('newest')}</small>
      </h2>
      {list.length === 0 && <p class="dim">{t('none')}</p>}
      {list.length > 0 && (
        <table id="connections">
          <thead>
            <tr>
              <th>{t('user')}</th>
              <th>{t('address')}</th>
              <th>{t('client')}</th>
              <th>{t('channels')}</th>
              <th class="num">{t('since')}</th>
              {kick && <th />}
            </tr>
          </thead>
          <tbody>
            {list.map((c) => (
              <tr key={c.client}>
                <td title={c.appid}>{name(c, kick !== undefined)}</td>
                <td>{c.ip}</td>
                <td class="dim">{c.name}</td>
                <td class="channels">{(c.channels ?? []).join(' ')}</td>
                <td class="num dim">{ago(c.since, now)}</td>
                {kick && (
                  <td class="num">
                    <button onClick={() => kick(c)}>{t('kick')}</button>
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
