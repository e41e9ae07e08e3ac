// A server that speaks what the page expects of `wels serve` and of a run's `--ui`, with answers that a test chooses.
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const dist = new URL('../dist/', import.meta.url);

export interface Reply {
  reasoning?: string;
  content: string;
  delay?: number; // ms between pieces
  first?: number; // ms before the first
  finish?: string;
  cut?: Promise<void>; // the connection breaks in the middle, after this
}

export interface Behaviour {
  config: Record<string, unknown>;
  key: string; // '' : none needed
  status: { code: number; message: string; retryAfter?: number } | null; // of every chat request
  reply: (question: string, body: any) => Reply;
}

const defaults = (): Behaviour => ({
  config: {
    version: '1.2.3', mode: 'chat', name: 'mine', context: 8192, auth: false, search: false, inside: true, experts: 16,
    models: [{ id: 'deepseek-chat', thinking: false }, { id: 'deepseek-reasoner', thinking: true }],
    prices: { hit: 0.014, miss: 0.14, output: 0.28, currency: 'USD' },
  },
  key: '',
  status: null,
  reply: (question, body) => ({
    reasoning: body.model === 'deepseek-reasoner' ? 'Let me think about it. The question is short.' : '',
    content: `You said: ${question}`,
    delay: 5,
  }),
});

// Pieces as a tokenizer would make them.
const pieces = (s: string) => s.match(/\s*[\p{L}\p{N}]{1,5}|\s*[^\p{L}\p{N}\s]|\s+/gu) ?? [];
const sleep = (ms: number) => new Promise((r) => setTimeout(r, ms));

export class Mock {
  behaviour = defaults();
  requests: { path: string; body: any; headers: IncomingMessage['headers'] }[] = [];
  aborted = 0; // streams that the page left
  runs = new Map<string, { info: Record<string, unknown>; lines: Record<string, unknown>[]; samples: unknown[]; experts: unknown; file: number; down: boolean }>();
  #server!: Server;
  #next = 1;
  #traces = new Map<string, unknown>();

  async start() {
    this.#server = createServer((q, a) => void this.#answer(q, a).catch(() => a.destroy()));
    await new Promise<void>((r) => this.#server.listen(0, '127.0.0.1', r));
    return this;
  }
  get url() {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
  stop() {
    this.#server.closeAllConnections();
    return new Promise((r) => this.#server.close(r));
  }
  reset() {
    this.behaviour = defaults();
    this.requests = [];
    this.aborted = 0;
    this.#next = 1;
    this.runs.clear();
    this.#traces.clear();
  }

  addRun(id: string, info: Record<string, unknown>, lines: Record<string, unknown>[], samples: unknown[] = [], experts: unknown = null) {
    this.runs.set(id, { info: { id, name: id, stage: 'pretrain', step: lines.length, steps: 600, tokens: 0, running: false, seed: 1, ...info }, lines, samples, experts, file: 1, down: false });
  }
  addLine(id: string, line: Record<string, unknown>) {
    this.runs.get(id)!.lines.push(line);
  }
  // The run was begun anew, or resumed: its file is another one.
  replaceLines(id: string, lines: Record<string, unknown>[]) {
    const run = this.runs.get(id)!;
    run.lines = lines;
    run.file++;
    run.info.step = lines.length;
  }
  endRun(id: string, status: string) {
    Object.assign(this.runs.get(id)!.info, { running: false, status });
  }
  // Its numbers cannot be had for a while.
  breakRun(id: string, down: boolean) {
    this.runs.get(id)!.down = down;
  }

  async #answer(q: IncomingMessage, a: ServerResponse) {
    const url = new URL(q.url!, 'http://x');
    const path = url.pathname;
    const json = (status: number, value: unknown, headers: Record<string, string> = {}) => {
      a.writeHead(status, { 'Content-Type': 'application/json', ...headers });
      a.end(JSON.stringify(value));
    };
    const fail = (status: number, message: string, headers: Record<string, string> = {}) =>
      json(status, { error: { message, type: 'invalid_request_error', param: null, code: 'invalid_request_error' } }, headers);
    if (path === '/' || path === '/index.html') {
      a.writeHead(200, {
        'Content-Type': 'text/html; charset=utf-8', 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
        'Content-Security-Policy': readFileSync(new URL('csp.txt', dist), 'utf8').trim(),
      });
      a.end(readFileSync(new URL('index.html', dist)));
      return;
    }
    if (path === '/ui/config.json') return json(200, this.behaviour.config);
    let text = '';
    for await (const c of q) text += c;
    const body = text ? JSON.parse(text) : null;
    this.requests.push({ path: q.url!, body, headers: q.headers });
    if (this.behaviour.key && q.headers.authorization !== `Bearer ${this.behaviour.key}`) {
      return fail(401, 'Authentication Fails (no such user)');
    }
    if (path === '/chat/completions' || path === '/beta/chat/completions') {
      const s = this.behaviour.status;
      if (s) return fail(s.code, s.message, s.retryAfter ? { 'Retry-After': String(s.retryAfter) } : {});
      return this.#stream(body, a);
    }
    const inside = /^\/ui\/inside\/(.+)$/.exec(path);
    if (inside) return this.#traces.has(inside[1]) ? json(200, this.#traces.get(inside[1])) : fail(404, 'no such answer');
    if (path === '/ui/runs') return this.behaviour.config.runs === false ? fail(404, 'no such route') : json(200, [...this.runs.values()].map((r) => r.info));
    const run = /^\/ui\/runs\/([^/]+)\/(\w+)$/.exec(path);
    const r = run && this.runs.get(decodeURIComponent(run[1]));
    if (!r) return fail(404, 'no such route');
    if (run[2] === 'metrics') {
      if (r.down) return void q.socket.destroy();
      const [line, file] = (url.searchParams.get('after') ?? '0-0').split('-').map(Number);
      const reset = line > 0 && file !== r.file;
      const lines = r.lines.slice(reset ? 0 : line);
      a.writeHead(200, {
        'Content-Type': 'application/x-ndjson', 'Wels-Next': `${r.lines.length}-${r.file}`, 'Wels-Reset': reset ? '1' : '0', 'Wels-Running': r.info.running ? '1' : '0',
      });
      a.end(lines.map((l) => JSON.stringify(l) + '\n').join(''));
    } else if (run[2] === 'samples') json(200, r.samples);
    else if (run[2] === 'experts') json(200, r.experts);
    else fail(404, 'no such route');
  }

  async #stream(body: any, a: ServerResponse) {
    const last = body.messages.at(-1);
    const question = last.role === 'user' ? last.content : '';
    const reply = this.behaviour.reply(question, body);
    const id = `chat-${this.#next++}`;
    let gone = false;
    a.on('close', () => {
      if (!a.writableEnded) {
        gone = true;
        this.aborted++;
      }
    });
    a.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8' });
    const chunk = (delta: object, finish: string | null = null, usage?: object) =>
      a.write(`data: ${JSON.stringify({ id, object: 'chat.completion.chunk', created: 1, model: body.model, system_fingerprint: 'fp_x', choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }], ...(usage ? { usage } : {}) })}\n\n`);
    chunk({ role: 'assistant', content: null, reasoning_content: '' });
    a.write(': keep-alive\n\n');
    await sleep(reply.first ?? 0);
    const thoughts = pieces(reply.reasoning ?? '');
    const words = pieces(reply.content);
    for (const [i, piece] of [...thoughts, ...words].entries()) {
      if (gone) return;
      if (reply.cut && i > words.length / 2) {
        await reply.cut;
        return void a.destroy();
      }
      chunk(i < thoughts.length ? { content: null, reasoning_content: piece } : { content: piece, reasoning_content: null });
      if (reply.delay) await sleep(reply.delay);
    }
    const prompt = body.messages.reduce((n: number, m: any) => n + pieces(m.content).length + 4, 6);
    const hit = Math.floor(Math.max(0, prompt - 10) / 64) * 64;
    const out = thoughts.length + words.length;
    if (body.inside) this.#traces.set(id, trace(id, body, thoughts, words));
    chunk({ content: '', reasoning_content: null }, reply.finish ?? 'stop', {
      prompt_tokens: prompt, completion_tokens: out, total_tokens: prompt + out, prompt_tokens_details: { cached_tokens: hit },
      completion_tokens_details: { reasoning_tokens: thoughts.length }, prompt_cache_hit_tokens: hit, prompt_cache_miss_tokens: prompt - hit,
    });
    a.end('data: [DONE]\n\n');
  }
}

// A deterministic record of an answer: 3 MoE layers, 16 experts, 2 chosen per token.
function trace(id: string, body: any, thoughts: string[], words: string[]) {
  let seed = 7;
  const random = (n: number) => ((seed = (seed * 1103515245 + 12345) & 0x7fffffff) >> 8) % n;
  const layers = [1, 2, 3];
  const one = (text: string, part: string, cached: boolean) => {
    const a = random(16) % (1 + random(16));
    return {
      text, part, logp: -random(400) / 100, draft: part === 'prompt' ? null : [null, true, true, false][random(4)],
      experts: cached ? null : layers.map((_, l) => [(a + l) % 16, (a + 5 + l + random(9)) % 16]),
    };
  };
  const prompt = pieces(body.messages.at(-1).content);
  const tokens = [...prompt.map((p, i) => one(p, 'prompt', i < 2)), ...thoughts.map((p) => one(p, 'reasoning', false)), ...words.map((p) => one(p, 'answer', false))];
  return {
    id, model: body.model, layers, experts: 16, chosen: 2, shared: 1, tokens,
    mtp: { drafted: tokens.filter((x) => x.draft !== null).length, accepted: tokens.filter((x) => x.draft).length },
  };
}
