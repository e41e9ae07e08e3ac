// Runs as the server tells of them: the lines of metrics.jsonl as columns, followed while the run goes on.
import { events, json, request, ServerError, explain, stored } from '../lib/server.svelte';

export interface RunInfo {
  id: string;
  folder_name?: string;
  stage?: string;
  preset?: string;
  model?: Record<string, unknown> | string;
  step?: number;
  steps?: number;
  tokens?: number;
  running?: boolean;
  status?: string; // running, finished, stopped, failed
  seed?: number;
}

export interface Sample {
  step: number;
  prompt?: string;
  text: string;
  reward?: number;
  task?: string;
}

export interface Table {
  n: number; // how many came before it
  step: number;
  rows: (number | null)[][];
}

const mostTables = 400; // kept of each kind; of a longer run every other one is dropped, again and again

export class Run {
  info = $state.raw<RunInfo>({ id: '' });
  version = $state(0); // grows when lines have come
  loaded = $state(false);
  problem = $state('');
  lost = $state(false); // the live connection is being tried again
  steps: number[] = [];
  columns = new Map<string, (number | null)[]>(); // may be shorter than steps: nothing since
  vectors = new Map<string, Table[]>(); // one row per table
  tables = new Map<string, Table[]>();
  samples: Sample[] = []; // texts that the lines carry
  layers: number[] | null = null;
  #lines = 0; // of the file that are here
  #strides = new Map<Table[], number>();
  #abort: AbortController | null = null;
  #fresh = false;

  constructor(info: RunInfo) {
    this.info = info;
  }

  get name() {
    return this.info.folder_name || this.info.id;
  }

  #keep(list: Table[], t: Omit<Table, 'n'>) {
    const stride = this.#strides.get(list) ?? 1;
    const last = list.at(-1);
    // The newest is always there; the one before it goes if it is out of step.
    if (last && last.n % stride !== 0) list.pop();
    list.push({ ...t, n: last ? last.n + 1 : 0 });
    if (list.length > mostTables) {
      this.#strides.set(list, stride * 2);
      list.splice(0, list.length, ...list.filter((x, i) => x.n % (stride * 2) === 0 || i === list.length - 1));
    }
  }

  add(line: Record<string, unknown>) {
    const step = Number(line.step);
    if (!Number.isFinite(step)) return;
    let at = this.steps.length - 1;
    // A resumed run repeats the steps after its checkpoint; an evaluation may write a line of its own for a step.
    while (at >= 0 && this.steps[at] > step) at--;
    if (at < this.steps.length - 1) {
      this.steps.length = at + 1;
      for (const c of this.columns.values()) c.length = Math.min(c.length, at + 1);
      for (const list of [...this.tables.values(), ...this.vectors.values()]) while (list.length && list.at(-1)!.step >= step) list.pop();
    }
    if (at < 0 || this.steps[at] !== step) {
      this.steps.push(step);
      at = this.steps.length - 1;
    }
    for (const [key, v] of Object.entries(line)) {
      if (key === 'step') continue;
      if (typeof v === 'number' || v === null) {
        let c = this.columns.get(key);
        if (!c) this.columns.set(key, (c = []));
        while (c.length < at) c.push(null);
        c[at] = v as number | null;
      } else if (typeof v === 'string') {
        if (key === 'sample') this.samples.push({ step, text: v });
        if (this.samples.length > 200) this.samples.shift();
      } else if (Array.isArray(v)) {
        if (key === 'layers') {
          this.layers = v as number[];
          continue;
        }
        const table = Array.isArray(v[0]);
        const kind = table ? this.tables : this.vectors;
        let list = kind.get(key);
        if (!list) kind.set(key, (list = []));
        this.#keep(list, { step, rows: table ? (v as (number | null)[][]) : [v as (number | null)[]] });
      }
    }
  }

  // Many lines may come at once: the page draws them a few times a second.
  #changed() {
    if (this.#fresh) return;
    this.#fresh = true;
    setTimeout(() => {
      this.#fresh = false;
      this.version++;
    }, 250);
  }

  #path = (what: string) => `/ui/runs/${encodeURIComponent(this.info.id)}/${what}`;

  // Reads what is there and, of a run that goes on, what comes. Ends with stop().
  async follow() {
    if (this.#abort) return;
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        await this.#read(signal);
        this.problem = '';
        this.lost = false;
        if (!this.info.running) break;
        await this.#listen(signal);
        this.info = { ...this.info, running: false };
        break;
      } catch (e) {
        if (signal.aborted) return;
        if (e instanceof ServerError && e.kind === 'http') {
          this.problem = explain(stored(e));
          break;
        }
        this.lost = true;
        await new Promise((r) => setTimeout(r, 1500));
      }
    }
    this.#abort = null;
  }

  async #read(signal: AbortSignal) {
    const text = await (await request(`${this.#path('metrics')}?after=${this.#lines}`, { signal })).text();
    for (const line of text.split('\n')) {
      if (!line) continue;
      this.#lines++;
      try {
        this.add(JSON.parse(line));
      } catch {
        // cut off by a crash
      }
    }
    this.loaded = true;
    this.version++;
  }

  async #listen(signal: AbortSignal) {
    const response = await request(`${this.#path('events')}?after=${this.#lines}`, { signal });
    for await (const e of events(response, signal)) {
      this.lost = false;
      if (e.event === 'end') return;
      if (e.id && Number(e.id) <= this.#lines) continue;
      this.#lines = Number(e.id) || this.#lines + 1;
      try {
        this.add(JSON.parse(e.data));
      } catch {
        continue;
      }
      const tokens = this.columns.get('tokens')?.at(-1) ?? this.info.tokens;
      this.info = { ...this.info, step: this.steps.at(-1), tokens: tokens ?? undefined };
      this.#changed();
    }
    throw new ServerError('broken');
  }

  stop() {
    this.#abort?.abort();
    this.#abort = null;
  }

  async readSamples(): Promise<Sample[]> {
    let told: Sample[] = [];
    try {
      told = (await json<Sample[]>(this.#path('samples'))) ?? [];
    } catch (e) {
      if (!(e instanceof ServerError && e.status === 404)) throw e;
    }
    const seen = new Set(told.map((s) => `${s.step} ${s.text}`));
    return [...told, ...this.samples.filter((s) => !seen.has(`${s.step} ${s.text}`))].sort((a, b) => b.step - a.step);
  }

  readExperts = () => json<{ layers: number[]; experts: number; load: number[][] | null; bias: number[][] | null } | null>(this.#path('experts'));
}

export const runs = $state({ all: [] as Run[], loaded: false, problem: '', refused: 0 }); // refused: the status with which the server refuses to list runs

export async function readRuns() {
  try {
    const infos = await json<RunInfo[]>('/ui/runs');
    const known = new Map(runs.all.map((r) => [r.info.id, r]));
    runs.all = infos.map((info) => {
      const r = known.get(info.id);
      if (!r) return new Run(info);
      r.info = { ...info, step: Math.max(info.step ?? 0, r.info.step ?? 0) };
      return r;
    });
    runs.problem = '';
    runs.refused = 0;
    runs.loaded = true;
  } catch (e) {
    runs.refused = stored(e).status;
    runs.problem = explain(stored(e));
  }
}
