import type { Usage } from './db';
import type { Prices } from './server.svelte';

// What an answer cost, in the prices' currency. Prices are for a million tokens.
export function costOf(u: Usage, p: Prices): number {
  const hit = u.prompt_cache_hit_tokens ?? 0;
  const miss = u.prompt_cache_miss_tokens ?? u.prompt_tokens - hit;
  return (hit * p.hit + miss * p.miss + u.completion_tokens * p.output) / 1e6;
}
