// Tokens/s of any server that speaks OpenAI's API, from outside: N clients, each asking for streamed completions of different prompts
// of random words one after another; an answer ends at its length only.
//   node serve.mjs URL MODEL [--streams 1,8,32] [--requests 3] [--tokens 128] [--words 128] [--ban ID,...]
// One JSON line per number of clients: tokens/s over all (prompts' time counted), first token and time between events.
// --ban: the ids of the tokens that end an answer, by logit_bias (llama.cpp's ignore_eos is asked for too).
import { parseArgs } from "node:util";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    streams: { type: "string", default: "1,8,32" },
    requests: { type: "string", default: "3" },
    tokens: { type: "string", default: "128" },
    words: { type: "string", default: "128" },
    ban: { type: "string", default: "" },
  },
});
if (positionals.length !== 2) {
  console.error("usage: node serve.mjs URL MODEL [--streams N,...] [--requests N] [--tokens N] [--words N] [--ban ID,...]");
  process.exit(2);
}
const [url, model] = positionals;
const tokens = Number(flags.tokens);
const bias = Object.fromEntries(flags.ban.split(",").filter(Boolean).map((id) => [id, -100]));
let seed = 1;
const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
const word = () => Array.from({ length: 3 }, () => String.fromCharCode(97 + random(26))).join("");

async function ask(times) {
  const prompt = Array.from({ length: Number(flags.words) }, word).join(" ");
  const begin = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model, prompt, max_tokens: tokens, temperature: 0, stream: true, ignore_eos: true, logit_bias: bias,
                           stream_options: { include_usage: true } }),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  let buffer = "", last = 0, usage;
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    buffer += decoder.decode(bytes, { stream: true });
    for (let end; (end = buffer.indexOf("\n\n")) >= 0; buffer = buffer.slice(end + 2)) {
      const data = buffer.slice(0, end).replace(/^data: /, "");
      if (!data.startsWith("{")) continue;
      const event = JSON.parse(data), now = performance.now();
      usage = event.usage ?? usage;
      if (!event.choices?.length) continue;
      if (last === 0) times.first.push(now - begin);
      else times.between.push(now - last);
      last = now;
    }
  }
  times.tokens += usage.completion_tokens;
  times.prompt += usage.prompt_tokens;
}

const quantile = (values, q) => values.sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
for (const n of flags.streams.split(",").map(Number)) {
  const times = { first: [], between: [], tokens: 0, prompt: 0 }, begin = performance.now();
  await Promise.all(Array.from({ length: n }, async () => {
    for (let i = 0; i < Number(flags.requests); ++i) await ask(times);
  }));
  const seconds = (performance.now() - begin) / 1000;
  console.log(JSON.stringify({
    streams: n, tokens_per_s: +(times.tokens / seconds).toFixed(1), completion_tokens: times.tokens, prompt_tokens: times.prompt,
    seconds: +seconds.toFixed(2), first_p50_ms: +quantile(times.first, 0.5).toFixed(1), between_p50_ms: +quantile(times.between, 0.5).toFixed(1),
    between_p99_ms: +quantile(times.between, 0.99).toFixed(1),
  }));
}
