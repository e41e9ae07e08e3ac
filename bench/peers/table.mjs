// node table.mjs NAME WELS.jsonl LLAMA.jsonl: what both measured, a line each, with the ratio.
import { readFileSync } from "node:fs";

const [name, ...files] = process.argv.slice(2);
const [wels, llama] = files.map((f) => readFileSync(f, "utf8").trim().split("\n").map((line) => JSON.parse(line)));
const line = (what, ours, theirs) =>
  console.log(`${name}, ${what}: wels ${ours.toFixed(1)}, ${llama[0].peer} (${llama[0].isa}) ${theirs.toFixed(1)} tokens/s: ${(ours / theirs).toFixed(2)} x`);
const ours = wels.find((r) => r.prefill_tokens_per_s), theirs = llama.find((r) => r.prefill_tokens_per_s);
if (ours && theirs) line(`prompt of ${theirs.prompt}`, ours.prefill_tokens_per_s, theirs.prefill_tokens_per_s);
for (const r of wels) {
  const peer = llama.find((p) => p.streams && p.streams === r.streams && p.depth === r.depth);
  if (peer) line(`${r.streams} streams behind ${r.depth}`, r.decode_tokens_per_s, peer.decode_tokens_per_s);
}
