// Runs as the server tells of them: the lines of metrics.jsonl as columns. What is new is asked for again and again, of one run after
// the other: a stream for each would use up the few connections that a browser has for a server.
import { json, request, ServerError, explain, stored } from '../lib/server.svelte';
import { t } from '../lib/settings.svelte';

export interface RunInfo {
  id: string;
  name?: string; // differs from those of the other runs
  stage?: string;
  preset?: string;
  model?: Record<string, unknown> | string;
  step?: number;
  steps?: number;
  tokens?: number;
  running?: boolean;
  status?: string; // running, finished, stopped, "failed: why"
  started?: number; // seconds since 1970
  updated?: number;
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

const points = 1500; // of a long file: more than a screen has columns
const pause = 1000; // ms between questions
const mostTables = 400; // kept of each kind; of a longer run every other one is dropped, again and again

// The entropy of how a layer's tokens are spread over its experts, in parts of the greatest possible: 1 even, 0 one expert alone.
function evenness(load: (number | null)[]): number | null {
  const sum = load.reduce<number>((s, x) => s + (x ?? NaN), 0);
  const h = load.reduce<number>((s, x) => s - (x ? (x / sum) * Math.log(x / sum) : 0), 0) / Math.log(load.length);
  return Number.isFinite(h) ? h : null;
}

export class Run {
  info = $state.raw<RunInfo>({ id: '' });
  version = $state(0); // grows when lines have come
  loaded = $state(false);
  problem = $state('');
  lost = $state(false); // the server is being tried again
  followed = false; // its numbers are asked for
  steps: number[] = [];
  columns = new Map<string, (number | null | undefined)[]>(); // null: not finite; undefined: not said. May be shorter than steps: nothing since
  vectors = new Map<string, Table[]>(); // one row per table
  tables = new Map<string, Table[]>();
  samples: Sample[] = []; // texts that the lines carry
  layers: number[] | null = null;
  #next = ''; // the place in the file behind the lines that are here
  #strides = new Map<Table[], number>();
  #told = ''; // how the list of runs had it when it was last told, and
  #asked: string | null = null; // when the numbers were last asked for: then they need no asking again
  #refused = false;

  constructor(info: RunInfo) {
    this.info = info;
    this.tell(info);
  }

  get name() {
    return this.info.name || this.info.id;
  }
  get state() {
    return this.info.status?.split(':')[0] ?? '';
  }
  get reason() {
    return this.info.status?.slice(this.state.length + 1).trim() ?? '';
  }

  // What the list says of it. The numbers of a run that is followed may be ahead of it.
  tell(info: RunInfo) {
    this.#told = JSON.stringify([info.status, info.step, info.started, info.updated]);
    const ahead = this.followed && info.running ? this.info : undefined;
    this.info = { ...info, step: Math.max(info.step ?? 0, ahead?.step ?? 0), tokens: Math.max(info.tokens ?? 0, ahead?.tokens ?? 0) };
  }

  get #stale() {
    if (this.#refused) return this.#asked !== this.#told;
    return !this.loaded || this.lost || Boolean(this.info.running) || this.#asked !== this.#told;
  }
  again() {
    this.#asked = null;
  }

  #clear() {
    this.steps = [];
    for (const kept of [this.columns, this.vectors, this.tables, this.#strides]) kept.clear();
    this.samples = [];
    this.layers = null;
    this.info = { ...this.info, step: 0, tokens: 0 };
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
        while (c.length < at) c.push(undefined);
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
    // The server says it of lines that it has thinned out.
    if (Array.isArray(line.load) && Array.isArray(line.load[0]) && line.load[0].length > 1 && !line.load_entropy) {
      let list = this.vectors.get('load_entropy');
      if (!list) this.vectors.set('load_entropy', (list = []));
      this.#keep(list, { step, rows: [(line.load as number[][]).map(evenness)] });
    }
  }

  #path = (what: string) => `/ui/runs/${encodeURIComponent(this.info.id)}/${what}`;

  // Asks for what is new, where there may be something. True: there was, and the page is to draw it.
  async read(signal: AbortSignal): Promise<boolean> {
    if (!this.#stale) return false;
    const told = this.#told;
    try {
      const response = await request(`${this.#path('metrics')}?points=${points}${this.#next && `&after=${this.#next}`}`, { signal });
      const says = (name: string) => response.headers.get(`Wels-${name}`);
      const lines = (await response.text()).split('\n');
      this.#asked = told;
      this.#next = says('Next') ?? '';
      this.#refused = this.lost = false;
      this.problem = '';
      const news = this.#take(lines, says('Reset') === '1');
      if (this.info.running && says('Running') === '0') {
        this.info = { ...this.info, running: false };
        void readRuns(); // how it ended
      }
      return news;
    } catch (e) {
      if (signal.aborted) return false;
      this.#refused = e instanceof ServerError && e.kind === 'http';
      if (this.#refused) {
        this.#asked = told;
        this.problem = explain(stored(e));
      } else this.lost = true;
      return false;
    }
  }

  #take(lines: string[], reset: boolean): boolean {
    if (reset) this.#clear();
    let news = reset || !this.loaded;
    for (const line of lines) {
      if (!line) continue;
      try {
        this.add(JSON.parse(line));
        news = true;
      } catch {
        // damaged by a crash
      }
    }
    this.loaded = true;
    const step = Math.max(this.info.step ?? 0, this.steps.at(-1) ?? 0);
    const tokens = Math.max(this.info.tokens ?? 0, this.columns.get('tokens')?.at(-1) ?? 0);
    if (news) this.info = { ...this.info, step, tokens };
    return news;
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

export const explainRuns = (e: unknown) => (stored(e).kind === 'http' ? explain(stored(e)) : t('runsOffline'));

export async function readRuns() {
  try {
    const infos = await json<RunInfo[]>('/ui/runs');
    const known = new Map(runs.all.map((r) => [r.info.id, r]));
    runs.all = infos.map((info) => {
      const r = known.get(info.id);
      if (!r) return new Run(info);
      r.tell(info);
      return r;
    });
    runs.problem = '';
    runs.refused = 0;
    runs.loaded = true;
  } catch (e) {
    runs.refused = stored(e).status;
    runs.problem = explainRuns(e);
  }
}

let wake = () => {};
// The runs that are followed have changed: they are asked for at once.
export const followNow = () => wake();

// Keeps the numbers of the runs that chosen() names as they are on the server, over one connection.
export async function follow(chosen: () => Run[], signal: AbortSignal) {
  for (const r of runs.all) r.again();
  signal.addEventListener('abort', () => wake());
  while (!signal.aborted) {
    let changed = false;
    const rest = new Promise<void>((r) => (wake = () => ((changed = true), r())));
    const now = chosen();
    for (const r of runs.all) r.followed = now.includes(r);
    const grown: Run[] = [];
    for (const r of now) {
      const first = !r.loaded;
      if (!(await r.read(signal))) continue;
      if (first) r.version++;
      else grown.push(r);
    }
    for (const r of grown) r.version++; // all at once: every picture is drawn once
    if (!changed) await Promise.race([rest, new Promise((r) => setTimeout(r, pause))]);
  }
}
