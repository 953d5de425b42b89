import { t } from './i18n.ts';

// post sends JSON and returns the answer, or throws what the server said was wrong.
export async function post<T>(path: string, body: object): Promise<T> {
  const res = await fetch(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const answer = await res.json().catch(() => ({}));
  if (!res.ok) throw new Error(t('failed') + (answer.error?.message ?? res.status));
  return answer;
}
