// The last watched answer: its stream, and what the server recorded of it.
import { answer, type AnswerState } from '../lib/answer.svelte';
import { json, stored, explain } from '../lib/server.svelte';
import { thinkingModel } from '../lib/models';

export interface Token {
  text: string;
  part: 'prompt' | 'reasoning' | 'answer';
  logp: number | null;
  experts: number[][] | null; // per MoE layer, the heaviest first; null: from the cache, not recorded
  draft: boolean | null;
}
export interface Trace {
  id: string;
  model: string;
  layers: number[];
  experts: number;
  chosen: number;
  shared: number;
  tokens: Token[];
  mtp: { drafted: number; accepted: number } | null;
}

export const inside = $state({
  question: '',
  watch: true,
  live: null as AnswerState | null, // also after its end
  busy: false,
  trace: null as Trace | null,
  problem: '',
});

export async function askInside(question: string) {
  const { model, think } = thinkingModel();
  inside.trace = null;
  inside.problem = '';
  const state = answer({ model, think, inside: inside.watch, messages: [{ role: 'user', content: question }] });
  inside.live = state;
  inside.busy = true;
  try {
    await state.done;
  } catch (e) {
    inside.problem = explain(stored(e));
  }
  inside.busy = false;
  if (!inside.watch || !state.requestId) return;
  try {
    inside.trace = await json<Trace>(`/ui/inside/${encodeURIComponent(state.requestId)}`);
  } catch (e) {
    inside.problem ||= explain(stored(e));
  }
}

// How often each expert of each layer was chosen, divided by the fair share.
export function use(trace: Trace, part: Token['part'] | 'all'): number[][] {
  const counts = trace.layers.map(() => new Array<number>(trace.experts).fill(0));
  let n = 0;
  for (const token of trace.tokens) {
    if (!token.experts || (part !== 'all' && token.part !== part)) continue;
    ++n;
    token.experts.forEach((list, l) => list.forEach((e) => counts[l] && counts[l][e]++));
  }
  const fair = (n * trace.chosen) / trace.experts;
  return counts.map((row) => row.map((c) => (fair ? c / fair : 0)));
}
