// Which curves are drawn together, by the names in metrics.jsonl (src/train/metrics.h, src/rl, src/distill). What is in no group gets a chart of its own.
import { t } from '../lib/settings.svelte';
import type { Key } from '../lib/text.en';

export interface ChartPlan {
  id: string;
  title: string;
  names: string[];
  log?: boolean;
  zero?: boolean;
  exact?: boolean; // not noisy: never smoothed
  scale?: number;
  vector?: boolean;
}

interface Group {
  title: Key;
  take: RegExp;
  log?: boolean;
  zero?: boolean;
  exact?: boolean;
  scale?: number;
}

const groups: Group[] = [
  { title: 'gLoss', take: /^(main_loss|val_loss|val_loss_ema)$/ },
  { title: 'gBpb', take: /bits_per_byte$|^(val_)?bpb$/ },
  { title: 'gParts', take: /^(loss|mtp_loss)$/ },
  { title: 'gReward', take: /^reward/ },
  { title: 'gAdvantage', take: /^advantage_std$/, zero: true },
  { title: 'gAccuracy', take: /^(accuracy|greedy_accuracy|val_token_accuracy|pass)/ },
  { title: 'gLength', take: /^length|^own_length$/, zero: true },
  { title: 'gKl', take: /^kl|_kl$/ },
  { title: 'gEntropy', take: /entropy/ },
  { title: 'gShares', take: /_share$|^groups_without_variance$|^language_consistency$/, zero: true },
  { title: 'gClip', take: /^(clip_fraction|gate_open|correction_mean)/, zero: true },
  { title: 'gMismatch', take: /^logp_mismatch/, log: true },
  { title: 'gPairs', take: /^(val_)?(margin|pair_accuracy|chosen_reward|rejected_reward)$/ },
  { title: 'gLr', take: /^lr$/, zero: true, exact: true },
  { title: 'gGrad', take: /^grad_norm$/, log: true },
  { title: 'gBalance', take: /^balance_loss$/ },
  { title: 'gSpeed', take: /tokens_per_s$/, zero: true },
  { title: 'gCompute', take: /^gflops$/, zero: true },
  { title: 'gPeak', take: /^fraction_of_peak$/, zero: true },
  { title: 'gTime', take: /^ms_/, zero: true },
  { title: 'gMemory', take: /^rss_bytes$/, zero: true, exact: true, scale: 1 / 2 ** 30 },
];
const noChart = new Set(['tokens', 'elapsed_s', 'time', 'step']);

const labels: Record<string, Key> = { main_loss: 'training_', val_loss: 'validation', bits_per_byte: 'training_', val_bits_per_byte: 'validation' };
export const pretty = (name: string) => (labels[name] ? t(labels[name]) : name.replace(/^ms_/, '').replace(/_/g, ' '));
export const isValidation = (name: string) => name.startsWith('val_') || /greedy/.test(name);

export function plan(names: Set<string>, vectors: Set<string>): ChartPlan[] {
  const out: ChartPlan[] = [];
  const rest = new Set([...names].filter((n) => !noChart.has(n)));
  for (const g of groups) {
    let mine = [...rest].filter((n) => g.take.test(n));
    // Without MTP and balance loss the total is the main loss, already drawn; without a main loss it is the loss.
    if (g.title === 'gLoss' && !rest.has('main_loss') && rest.has('loss')) mine = ['loss', ...mine];
    for (const n of mine) rest.delete(n);
    if (g.title === 'gParts' && mine.length === 1 && mine[0] === 'loss') mine = [];
    if (mine.length) out.push({ ...g, id: g.title, title: t(g.title), names: mine });
  }
  for (const v of vectors) out.push({ id: v, title: v === 'maxvio' ? t('maxvio') : v === 'load_entropy' ? t('loadEntropy') : pretty(v), names: [v], vector: true, zero: true });
  for (const n of rest) out.push({ id: n, title: pretty(n), names: [n] });
  return out;
}

// Exponential moving average that starts unbiased, as Adam's correction does; gaps are passed over.
export function ema(y: (number | null)[], weight: number): (number | null)[] {
  if (!(weight > 0)) return y;
  let sum = 0;
  let mass = 0;
  return y.map((v) => {
    if (v === null) return null;
    sum = sum * weight + v * (1 - weight);
    mass = mass * weight + (1 - weight);
    return sum / mass;
  });
}
