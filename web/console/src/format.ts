// Numbers as people read them.
const units = ['B', 'KB', 'MB', 'GB', 'TB'];

export function bytes(n: number): string {
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

export function count(n: number): string {
  if (n >= 1e6) return `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)}M`;
  if (n >= 1e4) return `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)}k`;
  return n < 10 && n % 1 !== 0 ? n.toFixed(1) : String(Math.round(n));
}

// moment is a time of day as the operator's clock shows it: 2026-01-31 09:05.
export function moment(time: string): string {
  const d = new Date(time);
  const two = (n: number) => String(n).padStart(2, '0');
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}`;
}

export const ago = (time: string, now: number): string => span((now - Date.parse(time)) / 1000);

// span is a length of time in seconds, as people say it.
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}
