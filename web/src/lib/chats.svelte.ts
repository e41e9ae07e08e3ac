// Chats: the list, the open chat with its branches, and answers being written.
import { SvelteMap } from 'svelte/reactivity';
import { allChats, eachBatch, messagesOf, put, removeChat, type Chat, type Message, type Usage } from './db';
import { answer, type AnswerState } from './answer.svelte';
import { stored } from './server.svelte';
import { t } from './settings.svelte';
import { thinkingModel } from './models';

const newId = () => crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');

export const list = $state({ chats: [] as Chat[], ready: false, problem: '' });
// Answers being written, of any chat, by message id.
export const writing = new SvelteMap<string, AnswerState>();

const others = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel('wels');
others?.addEventListener('message', (e: MessageEvent<{ deleted?: string }>) => {
  if (e.data.deleted) close(e.data.deleted);
  void refresh();
});

async function keep(chats: Chat[], messages: Message[]) {
  try {
    await put($state.snapshot(chats) as Chat[], messages);
    others?.postMessage({});
  } catch (e) {
    list.problem = String((e as Error)?.message ?? e);
  }
}

export async function refresh() {
  try {
    list.chats = (await allChats()).sort((a, b) => b.updated - a.updated);
  } catch (e) {
    list.problem = String((e as Error)?.message ?? e);
  }
  list.ready = true;
}

// A chat with all its messages, and the path through its branches that is shown.
export class OpenChat {
  chat: Chat;
  messages = new Map<string, Message>();
  children = new Map<string, string[]>(); // parent → children, oldest first
  version = $state(0); // grows with every change of messages
  gone = false; // deleted, here or in another tab: nothing of it is kept any more
  #path = $derived.by(() => {
    this.version;
    const path: Message[] = [];
    for (let at = ''; ; ) {
      const kids = this.children.get(at);
      if (!kids?.length || path.length >= this.messages.size) return path; // an imported file may hold circles
      const pick = this.chat.picks[at];
      at = pick && this.messages.has(pick) ? pick : kids[kids.length - 1];
      path.push(this.messages.get(at)!);
    }
  });
  get path() {
    return this.#path;
  }

  constructor(chat: Chat, messages: Message[]) {
    this.chat = chat;
    for (const m of messages.sort((a, b) => a.created - b.created)) this.#insert(m);
  }

  #insert(m: Message) {
    this.messages.set(m.id, m);
    const kids = this.children.get(m.parent);
    if (kids) kids.push(m.id);
    else this.children.set(m.parent, [m.id]);
  }

  siblings(m: Message): string[] {
    return this.children.get(m.parent) ?? [m.id];
  }

  pick(id: string) {
    const m = this.messages.get(id)!;
    this.chat.picks[m.parent] = id;
    this.version++;
    void this.#keep([this.chat], []);
  }

  // Chooses the branches that lead to a message.
  reveal(id: string) {
    for (const m of this.#pathTo(id)) this.chat.picks[m.parent] = m.id;
    this.version++;
  }

  #add(m: Message) {
    this.#insert(m);
    delete this.chat.picks[m.parent]; // the newest is shown
    this.version++;
  }

  #pathTo(id: string): Message[] {
    const path: Message[] = [];
    // An imported file may hold circles.
    for (let m = this.messages.get(id); m && path.length < this.messages.size; m = this.messages.get(m.parent)) path.push(m);
    return path.reverse();
  }

  async #keep(chats: Chat[], messages: Message[]) {
    if (!this.gone) await keep(chats, messages);
  }

  #touch() {
    if (this.gone) return;
    this.chat.updated = Date.now();
    if (!this.chat.named) this.chat.title = titleOf(this.path);
    const at = list.chats.findIndex((c) => c.id === this.chat.id);
    if (at !== 0) {
      if (at > 0) list.chats.splice(at, 1);
      list.chats.unshift(this.chat);
    }
    this.chat = list.chats[0];
  }

  // A new user message after parent (where the path ends, or beside an edited one), and its answer.
  ask(content: string, parent = this.path.at(-1)?.id ?? ''): Promise<void> {
    const m: Message = { id: newId(), chat: this.chat.id, parent, role: 'user', content, created: Date.now() };
    this.#add(m);
    this.#touch();
    void this.#keep([this.chat], [m]);
    return this.answerTo(m.id);
  }

  // Another answer beside this one. An answer that is nothing but an error is written again in its place.
  regenerate(id: string): Promise<void> {
    const m = this.messages.get(id)!;
    if (!m.error || m.content || m.reasoning) return this.answerTo(m.parent);
    const { model, think } = thinkingModel();
    delete m.error;
    Object.assign(m, { model, think, created: Date.now() });
    return this.#write(m, this.#asked(m.parent), think);
  }

  #asked(parent: string): Record<string, unknown>[] {
    return this.#pathTo(parent)
      .filter((p) => p.role === 'user' || p.content)
      .map((p) => ({ role: p.role, content: p.content }));
  }

  async answerTo(parent: string): Promise<void> {
    const { model, think } = thinkingModel();
    const m: Message = {
      id: newId(), chat: this.chat.id, parent, role: 'assistant', content: '', reasoning: '', created: Date.now(), model, think, finish: 'lost',
    };
    this.#add(m);
    this.#touch();
    await this.#write(m, this.#asked(parent), think);
  }

  // Goes on with an answer that was cut off or stopped: its text is the beginning of the completion.
  async continue(id: string): Promise<void> {
    const m = this.messages.get(id)!;
    const asked = this.#asked(m.parent);
    asked.push({ role: 'assistant', content: m.content, prefix: true, ...(m.reasoning ? { reasoning_content: m.reasoning } : {}) });
    await this.#write(m, asked, Boolean(m.think), true);
  }

  async #write(m: Message, asked: Record<string, unknown>[], think: boolean, prefix = false) {
    const before = prefix ? { content: m.content, reasoning: m.reasoning ?? '', thought: m.thought ?? 0 } : undefined;
    const state = answer({ model: m.model!, messages: asked, think, prefix: before });
    writing.set(m.id, state);
    const copy = () => {
      m.content = state.content;
      m.reasoning = state.reasoning;
      m.thought = state.thought;
      m.usage = state.usage as Usage | undefined;
      m.requestId = state.requestId;
      m.firstToken = state.firstToken;
      m.duration = state.duration;
    };
    // What is there is saved every second: closing the page loses at most that.
    m.finish = 'lost';
    this.version++;
    void this.#keep([this.chat], [{ ...m }]);
    const saver = setInterval(() => {
      copy();
      void this.#keep([], [{ ...m }]);
    }, 1000);
    try {
      await state.done;
      m.finish = state.finish;
      delete m.error;
    } catch (e) {
      m.finish = 'error';
      m.error = stored(e);
    } finally {
      clearInterval(saver);
      copy();
      this.#touch();
      await this.#keep([this.chat], [{ ...m }]);
      writing.delete(m.id);
      this.version++;
    }
  }

  writingHere(): AnswerState | undefined {
    for (const m of this.path) {
      const w = writing.get(m.id);
      if (w) return w;
    }
  }
}

function titleOf(path: Message[]): string {
  const first = path.find((m) => m.role === 'user')?.content ?? '';
  const line = first.replace(/```[\s\S]*?(```|$)/g, ' ').replace(/[#*_`>$]+/g, '').replace(/\s+/g, ' ').trim() || first.trim().slice(0, 60);
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

// Open chats with an answer under way stay here, so that leaving and coming back finds the same objects.
const open = new Map<string, OpenChat>();

export function createChat(): OpenChat {
  const now = Date.now();
  const c: Chat = { id: newId(), title: '', named: false, created: now, updated: now, picks: {} };
  list.chats.unshift(c);
  const chat = new OpenChat(list.chats[0], []);
  open.set(c.id, chat);
  return chat;
}

export async function openChat(id: string): Promise<OpenChat | null> {
  const there = open.get(id);
  if (there) return there;
  if (!list.ready) await refresh();
  const chat = list.chats.find((c) => c.id === id);
  if (!chat) return null;
  const loaded = new OpenChat(chat, await messagesOf(id));
  for (const [key, o] of open) if (!o.writingHere() && open.size > 3) open.delete(key);
  open.set(id, loaded);
  return loaded;
}

export async function renameChat(chat: Chat, title: string) {
  chat.title = title.trim() || chat.title;
  chat.named = true;
  await keep([chat], []);
}

// Stops its answers; what they still write is not kept.
function close(id: string) {
  const o = open.get(id);
  if (!o) return;
  o.gone = true;
  for (const m of o.messages.keys()) writing.get(m)?.stop();
  open.delete(id);
}

export async function deleteChat(id: string) {
  close(id);
  list.chats = list.chats.filter((c) => c.id !== id);
  try {
    await removeChat(id);
    others?.postMessage({ deleted: id });
  } catch (e) {
    list.problem = String((e as Error)?.message ?? e);
  }
}

export const countMessages = async (id: string) => (open.get(id)?.messages.size ?? (await messagesOf(id)).length);

export interface Hit {
  chat: string;
  message: string; // '' : the title
  excerpt: string;
  at: number; // where the words begin in the excerpt
}

// Chats whose title or messages contain the words, newest first, one hit per chat.
export async function search(words: string, current: () => boolean): Promise<Hit[]> {
  const needle = words.toLowerCase();
  const hits = new Map<string, Hit>();
  for (const c of list.chats) {
    if (c.title.toLowerCase().includes(needle)) hits.set(c.id, { chat: c.id, message: '', excerpt: '', at: 0 });
  }
  await eachBatch((batch) => {
    for (const m of batch) {
      if (hits.has(m.chat)) continue;
      const at = m.content.toLowerCase().indexOf(needle);
      if (at < 0) continue;
      const from = Math.max(0, at - 24);
      const excerpt = (from > 0 ? '…' : '') + m.content.slice(from, at + 90).replace(/\s+/g, ' ');
      hits.set(m.chat, { chat: m.chat, message: m.id, excerpt, at: 0 });
    }
    return current();
  });
  return list.chats.flatMap((c) => hits.get(c.id) ?? []);
}

interface Exported {
  format: 'wels-chats';
  version: 1;
  chats: (Chat & { messages: Message[] })[];
}

export async function exportChats(ids?: string[]): Promise<void> {
  const chosen = list.chats.filter((c) => !ids || ids.includes(c.id));
  const chats = [];
  for (const c of chosen) chats.push({ ...($state.snapshot(c) as Chat), messages: await messagesOf(c.id) });
  const out: Exported = { format: 'wels-chats', version: 1, chats };
  const url = URL.createObjectURL(new Blob([JSON.stringify(out, null, 1)], { type: 'application/json' }));
  const a = document.createElement('a');
  a.href = url;
  a.download = `wels-chats-${new Date().toISOString().slice(0, 10)}.json`;
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const text = (v: unknown): v is string => typeof v === 'string';

// Adds the chats of an exported file; chats that are here already are replaced. Throws if the file is something else.
export async function importChats(file: Blob): Promise<number> {
  const data = JSON.parse(await file.text()) as Exported;
  if (data?.format !== 'wels-chats' || !Array.isArray(data.chats)) throw new Error('format');
  let count = 0;
  for (const c of data.chats) {
    if (!text(c.id) || !text(c.title) || !Array.isArray(c.messages)) throw new Error(`chat ${count + 1}`);
    const { messages, ...rest } = c;
    const chat: Chat = {
      id: rest.id, title: rest.title, named: Boolean(rest.named), created: Number(rest.created) || Date.now(),
      updated: Number(rest.updated) || Date.now(), picks: { ...rest.picks },
    };
    for (const m of messages) {
      if (!text(m.id) || !m.id || !text(m.parent) || !text(m.content) || (m.role !== 'user' && m.role !== 'assistant')) throw new Error(`chat ${count + 1}`);
      m.chat = chat.id;
    }
    close(chat.id);
    await put([chat], messages, chat.id);
    ++count;
  }
  await refresh();
  others?.postMessage({});
  return count;
}

export const titleText = (c: Chat) => c.title || t('untitled');
export const draftKey = (chat: string) => `wels.draft.${chat || 'new'}`;
