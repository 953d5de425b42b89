import { plain } from './advice.ts';
import { moment } from './format.ts';
import { current, t } from './i18n.ts';
import type { Alert } from './stream.ts';

export function Alerts({ list }: { list: Alert[] }) {
  if (list.length === 0) return null;
  return (
    <section class="card alarm" id="alerts" role="alert">
      <h2>
        {t('alerts')} <small class="dim">{t('alertsHint')}</small>
      </h2>
      {list.map((a) => (
        <p key={`${a.appid} ${a.api} ${a.code}`}>
          <strong>{plain(a, current())}</strong>
          <br />
          <small class="dim">
            {a.appid} · {a.api} · errcode {a.code} · rid {a.rid} · {a.count}× · {t('lastTime')} {moment(a.last)}
          </small>
        </p>
      ))}
    </section>
  );
}
