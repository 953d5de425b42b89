import { useEffect, useState } from 'preact/hooks';
import { post } from './api.ts';
import { ago, moment } from './format.ts';
import { t, type Word } from './i18n.ts';
import { userLink } from './link.ts';

interface UserSession {
  id: string;
  appid: string;
  device?: string;
  ip?: string;
  created: string;
  last_seen: string;
  expires: string;
}

interface User {
  user: string;
  block: { reason?: string; since: string; until?: string } | null;
  sessions: UserSession[];
}

export function Users({ openid, now }: { openid: string; now: number }) {
  const [found, setFound] = useState<User>();
  const [problem, setProblem] = useState('');

  // act does something to the user, and shows what is then.
  const act = async (verb?: 'revoke' | 'block' | 'unblock', body: object = {}) => {
    try {
      if (verb) await post(`/console/user/${verb}`, { user: openid, ...body });
      setFound(await post<User>('/console/user', { user: openid }));
      setProblem('');
    } catch (e) {
      setProblem((e as Error).message);
    }
  };
  useEffect(() => {
    setFound(undefined);
    setProblem('');
    if (openid) void act();
  }, [openid]);

  const lookUp = (e: SubmitEvent) => {
    e.preventDefault();
    const wanted = String(new FormData(e.target as HTMLFormElement).get('openid')).trim();
    if (wanted === openid) void act();
    else location.hash = userLink(wanted);
  };
  return (
    <>
      <form class="card row" onSubmit={lookUp}>
        <label>
          {t('openid')} <input name="openid" key={openid} defaultValue={openid} size={36} maxLength={64} required autofocus spellcheck={false} />
        </label>
        <button class="primary">{t('lookUp')}</button>
      </form>
      {problem && <p class="error" role="alert">{problem}</p>}
      {found?.user === openid && (
        <>
          <Blocking user={found} act={act} />
          <Sessions list={found.sessions} now={now} act={act} />
        </>
      )}
    </>
  );
}

type Act = (verb: 'revoke' | 'block' | 'unblock', body?: object) => void;

const lengths: [Word, number][] = [['hour', 3600], ['day', 86400], ['week', 7 * 86400], ['month', 30 * 86400], ['forever', 0]];

function Blocking({ user: { user, block }, act }: { user: User; act: Act }) {
  const submit = (e: SubmitEvent) => {
    e.preventDefault();
    const form = new FormData(e.target as HTMLFormElement);
    act('block', { reason: form.get('reason'), expires_in: Number(form.get('length')) });
  };
  return (
    <section class="card">
      <h2>
        {user} <span id="block" class={block ? 'pill bad' : 'pill good'}>{t(block ? 'blocked' : 'notBlocked')}</span>
      </h2>
      {block ? (
        <div class="row">
          <span>
            {t('blockedSince')} {moment(block.since)}
            {block.until && ` ${t('blockedUntil')} ${moment(block.until)}`}
            {block.reason && `: ${block.reason}`}
          </span>
          <button id="unblock" onClick={() => act('unblock')}>{t('unblock')}</button>
        </div>
      ) : (
        <form class="row" onSubmit={submit}>
          <label>{t('reason')} <input name="reason" size={36} maxLength={200} /></label>
          <label>
            {t('howLong')}{' '}
            <select name="length">
              {lengths.map(([word, seconds]) => <option value={seconds} key={word} selected={word === 'day'}>{t(word)}</option>)}
            </select>
          </label>
          <button class="danger">{t('block')}</button>
          <span class="dim">{t('blockHint')}</span>
        </form>
      )}
    </section>
  );
}

function Sessions({ list, now, act }: { list: UserSession[]; now: number; act: Act }) {
  const revoke = (s: UserSession) => confirm(t('confirmRevoke')) && act('revoke', { session: s.id });
  const revokeAll = () => confirm(t('confirmRevokeAll')) && act('revoke', { all: true });
  return (
    <section class="card">
      <h2>
        {t('sessions')} {list.length > 1 && <button id="revoke-all" onClick={revokeAll}>{t('revokeAll')}</button>}
      </h2>
      {list.length === 0 && <p class="dim">{t('noSessions')}</p>}
      {list.length > 0 && (
        <table id="sessions">
          <thead>
            <tr>
              <th>{t('device')}</th>
              <th>{t('address')}</th>
              <th>{t('app')}</th>
              <th>{t('created')}</th>
              <th>{t('expires')}</th>
              <th class="num">{t('lastSeen')}</th>
              <th />
            </tr>
          </thead>
          <tbody>
            {list.map((s) => (
              <tr key={s.id}>
                <td>{s.device || '–'}</td>
                <td>{s.ip || '–'}</td>
                <td class="dim">{s.appid}</td>
                <td>{moment(s.created)}</td>
                <td>{moment(s.expires)}</td>
                <td class="num dim" title={moment(s.last_seen)}>{ago(s.last_seen, now)}</td>
                <td class="num"><button onClick={() => revoke(s)}>{t('revoke')}</button></td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
