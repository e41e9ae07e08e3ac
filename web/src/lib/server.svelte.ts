// The server that the page came from: what it says about itself, the key, requests, errors, event streams.
import { recall, remember, t } from './settings.svelte';

export interface ModelInfo {
  id: string;
  thinking: boolean;
}
export interface Prices {
  hit: number;
  miss: number;
  output: number;
  currency: string;
}
export interface Config {
  version: string;
  mode: 'chat' | 'training';
  models: ModelInfo[];
  name: string;
  context: number;
  auth: boolean;
  search: boolean;
  prices: Prices | null;
  inside: boolean;
  experts: number;
}

const unknown: Config = {
  version: '', mode: 'chat', models: [], name: 'wels', context: 0, auth: false, search: false, prices: null, inside: false, experts: 0,
};

export const server = $state({
  config: unknown,
  known: false, // the configuration was read
  down: false, // the last attempt to reach the server failed
  key: storedKey(),
  askKey: false,
  keyRefused: false,
});

function storedKey(): string {
  try {
    return sessionStorage.getItem('wels.key') ?? recall('wels.key') ?? '';
  } catch {
    return '';
  }
}

export function setKey(key: string, keep: boolean) {
  server.key = key;
  server.keyRefused = false;
  remember('wels.key', keep && key ? key : null);
  try {
    if (key && !keep) sessionStorage.setItem('wels.key', key);
    else sessionStorage.removeItem('wels.key');
  } catch {
    // kept in memory only
  }
}

export type ErrorKind = 'offline' | 'broken' | 'http';
export class ServerError extends Error {
  constructor(
    readonly kind: ErrorKind,
    readonly status = 0,
    reason = '',
    readonly retryAfter = 0, // seconds; 0: not said
  ) {
    super(reason);
  }
}

export interface StoredError {
  kind: ErrorKind;
  status: number;
  reason: string;
  retryAfter: number;
}
export function stored(e: unknown): StoredError {
  if (e instanceof ServerError) return { kind: e.kind, status: e.status, reason: e.message, retryAfter: e.retryAfter };
  return { kind: 'broken', status: 0, reason: String(e), retryAfter: 0 };
}

export function explain(e: StoredError): string {
  const after = e.retryAfter > 0 ? t('afterSeconds', { n: e.retryAfter }) : '';
  if (e.kind === 'offline') return t('errOffline');
  if (e.kind === 'broken') return t('errBroken');
  switch (e.status) {
    case 400:
    case 422:
      return t('err400', { reason: e.reason });
    case 401:
      return t('err401');
    case 402:
      return t('err402');
    case 404:
      return t('err404', { reason: e.reason });
    case 429:
      return t('err429', { after });
    case 503:
      return t('err503', { after });
    default:
      return t('errOther', { status: e.status, reason: e.reason });
  }
}

async function failure(response: Response): Promise<ServerError> {
  let reason = response.statusText;
  try {
    const body = await response.json();
    reason = body?.error?.message ?? reason;
  } catch {
    // not JSON: the status has to do
  }
  return new ServerError('http', response.status, reason, Number(response.headers.get('Retry-After')) || 0);
}

// A request with the key. Throws ServerError when the server can't be reached or refuses.
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (server.key) headers.set('Authorization', `Bearer ${server.key}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, cache: 'no-store' });
  } catch (e) {
    if (init.signal?.aborted) throw e;
    server.down = true;
    throw new ServerError('offline');
  }
  server.down = false;
  if (response.ok) return response;
  const error = await failure(response);
  if (response.status === 401) {
    server.keyRefused = server.key !== '';
    server.askKey = true;
  }
  throw error;
}

export async function json<T>(path: string, init: RequestInit = {}): Promise<T> {
  return (await request(path, init)).json();
}

export interface ServerEvent {
  event: string;
  id: string;
  data: string;
}

// The events of a text/event-stream. Comments (keep-alive) are passed over. Throws ServerError('broken') if the connection breaks.
export async function* events(response: Response, signal?: AbortSignal): AsyncGenerator<ServerEvent> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = '';
  let id = '';
  let data: string[] = [];
  try {
    for (;;) {
      let chunk: ReadableStreamReadResult<string>;
      try {
        chunk = await reader.read();
      } catch (e) {
        if (signal?.aborted) throw e;
        throw new ServerError('broken');
      }
      if (chunk.done) return;
      const lines = (rest + chunk.value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop()!;
      for (const line of lines) {
        if (line === '') {
          if (data.length > 0 || event) yield { event: event || 'message', id, data: data.join('\n') };
          event = '';
          data = [];
          continue;
        }
        const colon = line.indexOf(':');
        if (colon === 0) continue;
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'data') data.push(value);
        else if (field === 'event') event = value;
        else if (field === 'id') id = value;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

let timer: ReturnType<typeof setTimeout> | undefined;

// Reads the configuration; while the server is down it is asked again, less and less often.
export async function connect(delay = 1000): Promise<void> {
  clearTimeout(timer);
  try {
    const config = await json<Partial<Config>>('/ui/config.json');
    server.config = { ...unknown, ...config };
    server.known = true;
    if (server.config.auth && !server.key) server.askKey = true;
  } catch {
    timer = setTimeout(() => connect(Math.min(delay * 1.5, 15_000)), delay);
  }
}

addEventListener('online', () => connect());

// While a request has found the server gone, the page looks for it, so that the notice goes away by itself.
$effect.root(() => {
  $effect(() => {
    if (server.down && server.known) timer = setTimeout(() => connect(1500), 1500);
  });
});
