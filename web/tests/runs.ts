// Runs as the stages write them, made of formulas.
import type { Mock } from './mock.ts';

export function pretrainLine(step: number, seed = 1): Record<string, unknown> {
  const noise = Math.sin(step * 12.9898 * seed) * 0.08;
  const load = [1, 2, 3].map((l) => Array.from({ length: 16 }, (_, e) => (l === 2 && e === 5 ? 0 : 1 + Math.sin(e * l + step / 40) * 0.5)));
  const line: Record<string, unknown> = {
    step, time: 1.76e9 + step, loss: 1.1 + 3.3 * Math.exp(-step / 150) + noise, balance_loss: 0.001, lr: Math.min(step / 50, 1) * 4e-4, grad_norm: 0.4 + Math.abs(noise) * 4,
    tokens_per_s: 8000 + noise * 2000, gflops: 55 + noise * 20, fraction_of_peak: 0.41 + noise / 10, rss_bytes: 1.2e9 + step * 1e5, tokens: step * 4096, elapsed_s: step * 0.5,
    ms_forward: 120 + noise * 50, ms_backward: 240, ms_update: 30, main_loss: 1 + 3.3 * Math.exp(-step / 150) + noise, mtp_loss: 1.5 + 3.3 * Math.exp(-step / 150), bits_per_byte: 0.6 + 2 * Math.exp(-step / 150),
    maxvio: [0.21, 0.18, 0.9], layers: [1, 2, 3], load, bias: load.map((r) => r.map((v) => (1 - v) * 0.02)),
  };
  if (step % 50 === 0) Object.assign(line, { val_loss: 1.1 + 3.3 * Math.exp(-step / 150), val_bits_per_byte: 0.65 + 2 * Math.exp(-step / 150), sample: `Once upon a time at step ${step}` });
  return line;
}

export function rlLine(step: number): Record<string, unknown> {
  const noise = Math.sin(step * 78.233) * 0.05;
  return {
    step, time: 1.76e9 + step, loss: 0.02 + noise / 10, lr: 1e-5, grad_norm: 0.2 + Math.abs(noise), tokens_per_s: 900, tokens: step * 9000, elapsed_s: step * 9,
    reward_mean: 0.9 - 0.8 * Math.exp(-step / 60) + noise, reward_std: 0.4, accuracy_sampled: 0.9 - 0.85 * Math.exp(-step / 60) + noise, length_mean: 60 + step * 0.9 + noise * 100, length_p95: 120 + step,
    long_share: 0.02, ended_share: 0.97, format_share: 0.95, entropy: 0.8 * Math.exp(-step / 200) + 0.2, groups_without_variance: 0.3, clip_fraction: 0.01, kl_start: step * 1e-4, kl_reference: step * 8e-5,
    logp_mismatch_max: 1e-5, logp_mismatch_mean: 1e-6, rollout_tokens_per_s: 1500, ...(step % 20 === 0 ? { accuracy_greedy: 0.92 - 0.85 * Math.exp(-step / 60) } : {}),
  };
}

export function addRuns(mock: Mock) {
  const count = (n: number, line: (s: number) => Record<string, unknown>) => Array.from({ length: n }, (_, i) => line(i + 1));
  mock.addRun('base', { stage: 'pretrain', tokens: 300 * 4096, running: true, model: { preset: 'nano', layers: 4, hidden: 256 } }, count(300, pretrainLine));
  mock.addRun('base-2', { stage: 'pretrain', steps: 250, status: 'stopped' }, count(250, (s) => pretrainLine(s, 3)));
  mock.addRun('rl', { stage: 'rl', steps: 200, running: false }, count(200, rlLine), Array.from({ length: 30 }, (_, i) => ({
    step: i * 5, task: 'parity:20', prompt: `Parity of 1011${i}?`, text: `<think>The ones are counted: ${i}.</think>${i % 2 ? 'odd' : 'even'}`, reward: i % 3 ? 1 : 0,
  })));
}
