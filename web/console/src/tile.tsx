import { t, type Word } from './i18n.ts';

export function Tile({ id, label, value, unit }: { id: string; label: Word; value: string; unit?: string }) {
  return (
    <div class="tile">
      <span class="dim">{t(label)}</span>
      <strong id={id}>{value}</strong>
      <small class="dim">{unit}</small>
    </div>
  );
}
