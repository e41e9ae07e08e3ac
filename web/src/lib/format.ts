// Numbers and dates as the page shows them.
import { settings } from './settings.svelte';

const locale = () => (settings.language === 'zh' ? 'zh-CN' : 'en');

export const whole = (v: number) => Math.round(v).toLocaleString(locale());

// 4 digits; 12.35k, 4.56M above ten thousand, 4.2e-4 below a hundredth.
export function short(v: number | null | undefined, digits = 4): string {
  if (v == null || !Number.isFinite(v)) return '–';
  const a = Math.abs(v);
  if (a === 0) return '0';
  if (a < 0.01) return v.toExponential(Math.max(digits - 2, 0)).replace(/\.?0+e/, 'e');
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let u = 0;
  let s = v;
  if (a >= 9999.5) {
    while (Math.abs(s) >= 999.95 && u < units.length - 1) {
      s /= 1000;
      ++u;
    }
  }
  return Number(s.toPrecision(digits)) + units[u];
}

export function duration(s: number | null | undefined): string {
  if (s == null || !Number.isFinite(s)) return '–';
  const [hours, minutes, secs] = settings.language === 'zh' ? [' 小时 ', ' 分 ', ' 秒'] : [' h ', ' min ', ' s'];
  const two = (v: number) => String(Math.floor(v)).padStart(2, '0');
  if (s < 60) return short(s, 3) + secs;
  if (s < 3600) return Math.floor(s / 60) + minutes + two(s % 60) + secs;
  const m = Math.round(s / 60);
  return (Math.floor(m / 60) + hours + two(m % 60) + minutes).trimEnd();
}

export function seconds(ms: number): string {
  const s = ms / 1000;
  return s < 9.95 ? s.toFixed(1) : String(Math.round(s));
}

export function money(v: number, currency: string): string {
  const sign = currency === 'CNY' ? '¥' : currency === 'USD' ? '$' : `${currency} `;
  if (v === 0) return `${sign}0`;
  if (v < 0.01) return sign + v.toFixed(8).replace(/0+$/, '').slice(0, 10);
  return sign + v.toFixed(4);
}

export const dateTime = (ms: number) => new Date(ms).toLocaleString(locale(), { dateStyle: 'medium', timeStyle: 'short' });
export const monthOf = (ms: number) => new Date(ms).toLocaleDateString(locale(), { year: 'numeric', month: 'long' });

// The run of days in which a time lies, as the history groups it.
export function dayGroup(ms: number, now = Date.now()): 'today' | 'yesterday' | 'week' | 'month' | string {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const day = 86_400_000;
  if (ms >= midnight) return 'today';
  if (ms >= midnight - day) return 'yesterday';
  if (ms >= midnight - 7 * day) return 'week';
  if (ms >= midnight - 30 * day) return 'month';
  return monthOf(ms);
}
