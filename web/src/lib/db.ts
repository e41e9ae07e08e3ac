// Chats and messages in IndexedDB. Where the browser forbids it, everything lives in memory until the page is closed.

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_cache_hit_tokens?: number;
  prompt_cache_miss_tokens?: number;
  completion_tokens_details?: { reasoning_tokens?: number };
}

export interface Message {
  id: string;
  chat: string;
  parent: string; // '' : the first of the chat
  role: 'user' | 'assistant';
  content: string;
  created: number; // ms since 1970
  // of answers
  reasoning?: string;
  thought?: number; // ms of reasoning
  model?: string;
  requestId?: string;
  usage?: Usage;
  finish?: string; // the server's finish_reason, or 'stopped' (by the user), 'lost' (page closed), 'error'
  error?: import('./server.svelte').StoredError;
  firstToken?: number; // ms from sending to the first token
  duration?: number; // ms from the first token to the last
  think?: boolean; // it was asked with DeepThink
}

export interface Chat {
  id: string;
  title: string;
  named: boolean; // by the user: the title stays
  created: number;
  updated: number;
  picks: Record<string, string>; // parent message → chosen child, where it isn't the newest
}

const name = 'wels';
let memory: { chats: Map<string, Chat>; messages: Map<string, Message> } | null = null;
let opened: Promise<IDBDatabase | null> | null = null;
export let storageProblem = '';

function open(): Promise<IDBDatabase | null> {
  opened ??= new Promise((resolve) => {
    const fallBack = (reason: unknown) => {
      storageProblem = String((reason as Error)?.message ?? reason ?? 'IndexedDB');
      memory = { chats: new Map(), messages: new Map() };
      resolve(null);
    };
    try {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore('chats', { keyPath: 'id' });
        request.result.createObjectStore('messages', { keyPath: 'id' }).createIndex('chat', 'chat');
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => fallBack(request.error);
    } catch (e) {
      fallBack(e);
    }
  });
  return opened;
}

const done = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const finished = (tx: IDBTransaction): Promise<void> =>
  new Promise((resolve, reject) => {
    tx.oncomplete = () => resolve();
    tx.onerror = () => reject(tx.error);
    tx.onabort = () => reject(tx.error);
  });

export async function allChats(): Promise<Chat[]> {
  const db = await open();
  if (!db) return [...memory!.chats.values()];
  return done(db.transaction('chats').objectStore('chats').getAll());
}

export async function messagesOf(chat: string): Promise<Message[]> {
  const db = await open();
  if (!db) return [...memory!.messages.values()].filter((m) => m.chat === chat);
  return done(db.transaction('messages').objectStore('messages').index('chat').getAll(chat));
}

// In one transaction. replaced: a chat that goes, with all its messages, before they are put.
export async function put(chats: Chat[], messages: Message[], replaced = ''): Promise<void> {
  const db = await open();
  if (!db) {
    if (replaced) forget(replaced);
    for (const c of chats) memory!.chats.set(c.id, c);
    for (const m of messages) memory!.messages.set(m.id, m);
    return;
  }
  const tx = db.transaction(['chats', 'messages'], 'readwrite');
  const add = () => {
    for (const c of chats) tx.objectStore('chats').put(c);
    for (const m of messages) tx.objectStore('messages').put(m);
  };
  if (replaced) remove(tx, replaced, add);
  else add();
  await finished(tx);
}

function forget(chat: string) {
  memory!.chats.delete(chat);
  for (const m of [...memory!.messages.values()]) if (m.chat === chat) memory!.messages.delete(m.id);
}

function remove(tx: IDBTransaction, chat: string, then?: () => void) {
  tx.objectStore('chats').delete(chat);
  const keys = tx.objectStore('messages').index('chat').getAllKeys(chat);
  keys.onsuccess = () => {
    for (const k of keys.result) tx.objectStore('messages').delete(k);
    then?.();
  };
}

export async function removeChat(chat: string): Promise<void> {
  const db = await open();
  if (!db) return forget(chat);
  const tx = db.transaction(['chats', 'messages'], 'readwrite');
  remove(tx, chat);
  await finished(tx);
}

// All messages, a thousand at a time, until visit returns false.
export async function eachBatch(visit: (batch: Message[]) => boolean): Promise<void> {
  const db = await open();
  if (!db) {
    visit([...memory!.messages.values()]);
    return;
  }
  let after: string | null = null;
  for (;;) {
    const range: IDBKeyRange | null = after === null ? null : IDBKeyRange.lowerBound(after, true);
    const batch: Message[] = await done(db.transaction('messages').objectStore('messages').getAll(range, 1000));
    if (batch.length === 0 || !visit(batch)) return;
    after = batch[batch.length - 1].id;
  }
}
