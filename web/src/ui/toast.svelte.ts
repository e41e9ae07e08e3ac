// Short notices at the bottom of the page, and text for screen readers.
import { t } from '../lib/settings.svelte';

export const notices = $state({ items: [] as { id: number; text: string; bad: boolean }[], spoken: '' });
let next = 1;

export function notify(text: string, bad = false) {
  const id = next++;
  notices.items.push({ id, text, bad });
  setTimeout(() => (notices.items = notices.items.filter((n) => n.id !== id)), bad ? 8000 : 2200);
}

export function speak(text: string) {
  notices.spoken = '';
  setTimeout(() => (notices.spoken = text), 50);
}

export async function copyText(text: string) {
  try {
    // navigator.clipboard is there in secure contexts only: over plain http the old way has to do.
    if (navigator.clipboard && isSecureContext) {
      await navigator.clipboard.writeText(text);
    } else {
      const area = document.createElement('textarea');
      area.value = text;
      area.className = 'visually-hidden';
      document.body.append(area);
      area.select();
      const ok = document.execCommand('copy');
      area.remove();
      if (!ok) throw new Error('copy');
    }
    notify(t('copied'));
  } catch {
    notify(t('copyFailed'), true);
  }
}
