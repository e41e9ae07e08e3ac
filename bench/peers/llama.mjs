// tokens/s of llama.cpp on a GGUF file, in the form of `wels bench infer --json`, by node-llama-cpp's prebuilt binary for
// this CPU (nothing is downloaded or compiled).
//   node llama.mjs FILE [--prompt 512] [--gen 32] [--streams 1,8] [--depth 0,4096] [--threads 2] [--repeats 3]
// A prompt is one batch of 512 after another without sampling; generation takes the most probable token, one step of all
// streams at a time, each from its second token on. The way through JavaScript and the sampler is measured too, and is most of the time of small models:
// `tiny` makes 68 tokens/s here and 172 in llama-batched-bench with the same libraries (docs/log.md).
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { getLlama } from "node-llama-cpp";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prompt: { type: "string", default: "512" },
    gen: { type: "string", default: "32" },
    streams: { type: "string", default: "1" },
    depth: { type: "string", default: "0" },
    threads: { type: "string", default: "2" },
    repeats: { type: "string", default: "3" },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node llama.mjs FILE [--prompt N] [--gen N] [--streams N,...] [--depth N,...]");
  process.exit(2);
}
const numbers = (text) => text.split(",").map(Number);
const threads = Number(flags.threads);
const llama = await getLlama({
  gpu: false, build: "never", skipDownload: true, maxThreads: threads, logLevel: "error",
});
const model = await llama.loadModel({ modelPath: positionals[0], useMmap: true });
// Which of ggml's builds for x86-64 this CPU got: the one whose library is loaded.
const isa = readFileSync("/proc/self/maps", "utf8").match(/libggml-cpu-(\w+)\.so/)?.[1] ?? "one build for all";
const common = { model: positionals[0], peer: `llama.cpp ${llama.llamaCppRelease.release}`, isa, threads };
const random_tokens = (n) => Array.from({ length: n }, () => Math.floor(Math.random() * 15000) + 100);

async function context(sequences, length) {
  return model.createContext({ contextSize: length, sequences, threads: { ideal: threads, min: threads }, batchSize: 512 });
}

async function prefill(prompt) {
  const c = await context(1, prompt + 64), s = c.getSequence(), seconds = [];
  for (let i = 0; i <= Number(flags.repeats); ++i) {
    await s.clearHistory();
    const tokens = random_tokens(prompt), begin = performance.now();
    await s.evaluateWithoutGeneratingNewTokens(tokens);
    if (i > 0) seconds.push((performance.now() - begin) / 1000);  // the first warms up
  }
  await c.dispose();
  seconds.sort((a, b) => a - b);
  return prompt / seconds[Math.floor(seconds.length / 2)];
}

async function decode(streams, depth, generated) {
  const c = await context(streams, depth + generated + 64);
  const all = Array.from({ length: streams }, () => c.getSequence());
  if (depth > 0) await Promise.all(all.map((s) => s.evaluateWithoutGeneratingNewTokens(random_tokens(depth))));
  let begun = 0, begin = 0;
  await Promise.all(all.map(async (s) => {
    let n = 0;
    for await (const token of s.evaluate(random_tokens(1), { temperature: 0, yieldEogTokens: true })) {
      void token;
      if (n++ === 0 && ++begun === streams) begin = performance.now();
      if (n > generated) break;
    }
  }));
  const seconds = (performance.now() - begin) / 1000;
  await c.dispose();
  return (streams * generated) / seconds;
}

for (const prompt of numbers(flags.prompt)) {
  if (prompt > 0) console.log(JSON.stringify({ ...common, prompt, prefill_tokens_per_s: await prefill(prompt) }));
}
for (const depth of numbers(flags.depth)) {
  for (const streams of numbers(flags.streams)) {
    const generated = Number(flags.gen);
    if (generated === 0) continue;
    const decode_tokens_per_s = await decode(streams, depth, generated);
    console.log(JSON.stringify({ ...common, generated, depth, streams, decode_tokens_per_s }));
  }
}
process.exit(0);
