// One streamed answer. Text is gathered as it arrives and shown once per animation frame.
import { events, request, server, ServerError } from './server.svelte';
import { settings, type Parameters } from './settings.svelte';

export interface Asked {
  model: string;
  messages: Record<string, unknown>[];
  think: boolean;
  inside?: boolean;
  prefix?: { content: string; reasoning: string; thought: number }; // go on with this
}

// Text of the parameters panel → fields of the request. What is empty or no number is left out.
export function fields(p: Parameters): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const name of ['temperature', 'top_p', 'top_k', 'min_p', 'max_tokens', 'thinking_budget', 'seed', 'presence_penalty', 'frequency_penalty'] as const) {
    const v = String(p[name] ?? '').trim();
    if (v !== '' && Number.isFinite(Number(v))) out[name] = Number(v);
  }
  const stop = p.stop.split('\n').filter((s) => s !== '');
  if (stop.length) out.stop = stop;
  return out;
}

export class AnswerState {
  content = $state.raw('');
  reasoning = $state.raw('');
  thought = $state.raw(0); // ms
  thinking = $state.raw(false); // reasoning is being written
  started = $state.raw(false); // a token has come
  tokens = $state.raw(0); // chunks with text so far
  requestId = '';
  usage: Record<string, unknown> | undefined;
  finish = '';
  firstToken = 0;
  duration = 0;
  done: Promise<void>;
  #abort = new AbortController();
  #sent = performance.now();
  #first = 0;
  #last = 0;
  #content = '';
  #reasoning = '';
  #thoughtFrom = 0;
  #thoughtBefore = 0;
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | 0 = 0;

  constructor(asked: Asked) {
    if (asked.prefix) {
      this.content = this.#content = asked.prefix.content;
      this.reasoning = this.#reasoning = asked.prefix.reasoning;
      this.thought = this.#thoughtBefore = asked.prefix.thought;
    }
    this.done = this.#run(asked);
  }

  stop() {
    this.#abort.abort();
  }

  // Hidden tabs get no animation frames: there a timer shows what has come. Very long texts are drawn less often.
  #show() {
    if (this.#frame || this.#timer) return;
    const draw = () => {
      this.#frame = this.#timer = 0;
      this.content = this.#content;
      this.reasoning = this.#reasoning;
      this.thought = this.#thoughtTime();
    };
    const length = this.#content.length + this.#reasoning.length;
    if (document.hidden || length > 20_000) this.#timer = setTimeout(draw, document.hidden ? 250 : length / 400);
    else this.#frame = requestAnimationFrame(draw);
  }

  #thoughtTime(): number {
    return this.#thoughtBefore + (this.#thoughtFrom ? this.#last - this.#thoughtFrom : 0);
  }

  #take(chunk: any) {
    if (chunk.error) throw new ServerError('http', 500, String(chunk.error.message ?? ''));
    this.requestId = chunk.id ?? this.requestId;
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const { reasoning_content: reasoning, content } = choice.delta ?? {};
    if (choice.finish_reason) this.finish = choice.finish_reason;
    if (!reasoning && !content) return;
    this.#last = performance.now();
    if (!this.#first) {
      this.#first = this.#last;
      this.firstToken = this.#first - this.#sent;
      this.started = true;
    }
    this.duration = this.#last - this.#first;
    this.tokens++;
    if (reasoning) {
      this.#thoughtFrom ||= this.#sent;
      this.thinking = true;
      this.#reasoning += reasoning;
    }
    if (content) {
      if (this.thinking) {
        this.#thoughtBefore = this.#thoughtTime();
        this.#thoughtFrom = 0;
        this.thinking = false;
      }
      this.#content += content;
    }
    this.#show();
  }

  async #run(asked: Asked) {
    const signal = this.#abort.signal;
    const system = settings.parameters.system.trim();
    const body = {
      model: asked.model,
      messages: system ? [{ role: 'system', content: settings.parameters.system }, ...asked.messages] : asked.messages,
      stream: true,
      stream_options: { include_usage: true },
      ...fields(settings.parameters),
      ...(asked.think && server.config.models.some((m) => m.id === asked.model && !m.thinking) ? { thinking: { type: 'enabled' } } : {}),
      ...(asked.inside ? { inside: true } : {}),
      ...(settings.search && server.config.search ? { search: true } : {}),
    };
    try {
      const response = await request(asked.prefix ? '/beta/chat/completions' : '/chat/completions', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', Accept: 'text/event-stream' },
        body: JSON.stringify(body),
        signal,
      });
      let whole = false;
      for await (const e of events(response, signal)) {
        if (e.data === '[DONE]') {
          whole = true;
          break;
        }
        this.#take(JSON.parse(e.data));
      }
      if (!whole && !this.finish) throw new ServerError('broken');
    } catch (e) {
      if (!signal.aborted) throw e;
      this.finish = 'stopped';
    } finally {
      cancelAnimationFrame(this.#frame);
      clearTimeout(this.#timer);
      this.thought = this.#thoughtTime();
      this.content = this.#content;
      this.reasoning = this.#reasoning;
      this.thinking = false;
    }
  }
}

export const answer = (asked: Asked) => new AnswerState(asked);
