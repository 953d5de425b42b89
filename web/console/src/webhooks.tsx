import { useEffect, useRef, useState } from 'preact/hooks';
import { post } from './api.ts';
import { ago, count, moment, span } from './format.ts';
import { t, type Word } from './i18n.ts';
import type { Hook, Sample } from './stream.ts';
import { Tile } from './tile.tsx';

interface Delivery {
  id: string;
  hook: string;
  event: string;
  queued: string;
  died?: string; // absent where the record is damaged
  attempts: number;
  status: number; // 0: no answer came
  reason: string;
}

interface List {
  queue: { dead: number };
  deliveries: Delivery[];
}

interface Body {
  key?: string;
  body: unknown;
}

const page = 50;

type Verb = 'replay' | 'drop';
type Act = (verb: Verb, delivery?: string) => void;

const questions: Record<Verb, [Word, Word]> = { replay: ['confirmReplay', 'confirmReplayAll'], drop: ['confirmDrop', 'confirmDropAll'] };

// Webhooks shows what waits, which the stream tells, and what is dead: that
// list is asked for again whenever the stream tells another number of them.
export function Webhooks({ last, hooks, now }: { last?: Sample; hooks: Hook[]; now: number }) {
  const [list, setList] = useState<List>();
  const [problem, setProblem] = useState('');
  const [skip, setSkip] = useState(0);
  const asked = useRef(0);

  const load = async () => {
    const mine = ++asked.current; // an answer that was overtaken is not shown
    try {
      const news = await post<List>('/console/webhooks', { skip, limit: page });
      if (mine !== asked.current) return;
      setList(news);
      if (news.deliveries.length === 0 && skip > 0) setSkip(Math.max(0, skip - page));
    } catch (e) {
      if (mine === asked.current) setProblem((e as Error).message);
    }
  };
  useEffect(() => void load(), [skip, last?.webhook_dead]);

  const act: Act = async (verb, delivery) => {
    if (!confirm(t(questions[verb][delivery ? 0 : 1]))) return;
    try {
      const { failed, problem } = await post<{ failed: number; problem?: string }>(`/console/webhooks/${verb}`, delivery ? { delivery } : { all: true });
      setProblem(failed > 0 ? `${failed} ${t('stillDead')}${problem}` : '');
    } catch (e) {
      setProblem((e as Error).message);
    }
    await load();
  };
  return (
    <>
      <div class="tiles">
        <Tile id="webhook-pending" label="pending" value={count(last?.webhook_pending ?? 0)} />
        <Tile id="webhook-oldest" label="oldest" value={last?.webhook_pending ? span(last.webhook_oldest_seconds) : '–'} />
        <Tile id="webhook-dead" label="dead" value={count(list?.queue.dead ?? last?.webhook_dead ?? 0)} />
      </div>
      {hooks.length > 0 && <Hooks list={hooks} now={now} />}
      {problem && <p class="error" role="alert">{problem}</p>}
      {list && <Dead list={list} skip={skip} setSkip={setSkip} now={now} act={act} />}
    </>
  );
}

// Hooks shows how each webhook does on this node.
function Hooks({ list, now }: { list: Hook[]; now: number }) {
  const when = (time?: string) => <td class="num dim" title={time && moment(time)}>{time ? ago(time, now) : '–'}</td>;
  return (
    <section class="card">
      <h2>
        {t('hooks')} <small class="dim">{t('hooksHint')}</small>
      </h2>
      <table id="hooks">
        <thead>
          <tr>
            <th>{t('webhooks')}</th>
            <th>{t('address')}</th>
            <th>{t('state')}</th>
            <th class="num">{t('lastWorked')}</th>
            <th class="num">{t('lastFailed')}</th>
            <th>{t('why')}</th>
          </tr>
        </thead>
        <tbody>
          {list.map((h) => (
            <tr key={h.hook}>
              <td class="id">{h.hook}</td>
              <td>{h.host}</td>
              <td>
                <span class={h.open ? 'pill bad' : h.worked || h.failed ? 'pill good' : 'pill'}>
                  {t(h.open ? 'paused' : h.worked || h.failed ? 'callable' : 'unused')}
                </span>
              </td>
              {when(h.worked)}
              {when(h.failed)}
              <td class="reason">{h.reason}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

interface DeadProps {
  list: List;
  skip: number;
  setSkip: (skip: number) => void;
  now: number;
  act: Act;
}

function Dead({ list, skip, setSkip, now, act }: DeadProps) {
  return (
    <section class="card">
      <h2>
        {t('dead')} <small class="dim">{t('deadHint')}</small>
        {list.deliveries.length > 0 && (
          <>
            <button id="replay-all" onClick={() => act('replay')}>{t('replayAll')}</button>
            <button id="drop-all" class="danger" onClick={() => act('drop')}>{t('dropAll')}</button>
          </>
        )}
      </h2>
      {list.deliveries.length === 0 && <p class="dim" id="no-dead">{t('noDead')}</p>}
      {list.deliveries.length > 0 && (
        <table id="dead">
          <thead>
            <tr>
              <th>{t('delivery')}</th>
              <th>{t('event')}</th>
              <th>{t('why')}</th>
              <th class="num">{t('lastStatus')}</th>
              <th class="num">{t('attempts')}</th>
              <th class="num">{t('died')}</th>
              <th />
            </tr>
          </thead>
          <tbody>{list.deliveries.map((d) => <Row key={d.id} d={d} now={now} act={act} />)}</tbody>
        </table>
      )}
      {list.queue.dead > page && (
        <p class="row" id="pages">
          <button disabled={skip === 0} onClick={() => setSkip(Math.max(0, skip - page))}>{t('newer')}</button>
          <span class="dim">{skip + 1}–{skip + list.deliveries.length} / {list.queue.dead}</span>
          <button id="older" disabled={skip + page >= list.queue.dead} onClick={() => setSkip(skip + page)}>{t('older')}</button>
        </p>
      )}
    </section>
  );
}

function Row({ d, now, act }: { d: Delivery; now: number; act: Act }) {
  const [shown, setShown] = useState('');
  const show = async () => {
    if (shown) return setShown('');
    if (!confirm(t('confirmBody'))) return;
    try {
      const { key, body } = await post<Body>('/console/webhooks/show', { delivery: d.id, body: true });
      setShown(JSON.stringify({ key, body }, undefined, 2));
    } catch (e) {
      setShown((e as Error).message);
    }
  };
  return (
    <>
      <tr>
        <td class="id">{d.id}</td>
        <td>{d.event}</td>
        <td class="reason">{d.reason}</td>
        <td class="num">{d.status || '–'}</td>
        <td class="num">{d.attempts}</td>
        <td class="num dim" title={d.died && moment(d.died)}>{d.died ? ago(d.died, now) : '–'}</td>
        <td class="num">
          <button class="show" onClick={show}>{t(shown ? 'hideBody' : 'showBody')}</button>{' '}
          <button class="replay" onClick={() => act('replay', d.id)}>{t('replay')}</button>{' '}
          <button class="danger drop" onClick={() => act('drop', d.id)}>{t('drop')}</button>
        </td>
      </tr>
      {shown && <tr><td colSpan={7}><pre>{shown}</pre></td></tr>}
    </>
  );
}
