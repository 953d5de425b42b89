import { useState } from 'preact/hooks';
import { t } from './i18n.ts';
import type { Session } from './stream.ts';

export function SignIn({ done }: { done: (s: Session) => void }) {
  const [problem, setProblem] = useState('');
  const submit = async (e: SubmitEvent) => {
    e.preventDefault();
    const key = new FormData(e.target as HTMLFormElement).get('key');
    const res = await fetch('/console/session', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ key }),
    });
    if (res.ok) return done(await res.json());
    setProblem(res.status === 401 ? t('wrongKey') : t('failed') + res.status);
  };
  return (
    <form class="card signin" onSubmit={submit}>
      <h2>{t('signIn')}</h2>
      <label>
        {t('apiKey')}
        <input name="key" type="password" autocomplete="current-password" required autofocus />
      </label>
      <p class="dim">{t('signInHint')}</p>
      {problem && <p class="error" role="alert">{problem}</p>}
      <button class="primary">{t('signIn')}</button>
    </form>
  );
}
