// What the page remembers between visits in localStorage: language, colours, toggles, parameters.
import { en, type Key } from './text.en';
import { zh } from './text.zh';

export interface Parameters {
  system: string;
  temperature: string;
  top_p: string;
  top_k: string;
  min_p: string;
  max_tokens: string;
  thinking_budget: string;
  seed: string;
  presence_penalty: string;
  frequency_penalty: string;
  stop: string;
}
export const noParameters: Parameters = {
  system: '', temperature: '', top_p: '', top_k: '', min_p: '', max_tokens: '', thinking_budget: '', seed: '',
  presence_penalty: '', frequency_penalty: '', stop: '',
};

interface Settings {
  language: 'en' | 'zh';
  theme: 'system' | 'light' | 'dark';
  sendWith: 'enter' | 'ctrl';
  think: boolean;
  search: boolean;
  openThoughts: boolean;
  sidebar: boolean;
  model: string;
  smoothing: number;
  parameters: Parameters;
}
const defaults: Settings = {
  language: navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en',
  theme: 'system', sendWith: 'enter', think: false, search: false, openThoughts: true, sidebar: true, model: '',
  smoothing: 0.9, parameters: noParameters,
};

// localStorage may be forbidden or full: then nothing is remembered, and the page works all the same.
export function recall(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}
export function remember(key: string, value: string | null) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // see above
  }
}

function load(): Settings {
  try {
    const stored = JSON.parse(recall('wels.settings') ?? '{}');
    return { ...defaults, ...stored, parameters: { ...noParameters, ...stored.parameters } };
  } catch {
    return { ...defaults };
  }
}

export const settings = $state(load());

const dark = matchMedia('(prefers-color-scheme: dark)');
export const look = $state({ dark: false });

$effect.root(() => {
  $effect(() => remember('wels.settings', JSON.stringify(settings)));
  $effect(() => {
    const update = () => {
      look.dark = settings.theme === 'dark' || (settings.theme === 'system' && dark.matches);
      document.documentElement.dataset.theme = look.dark ? 'dark' : 'light';
    };
    update();
    dark.addEventListener('change', update);
    return () => dark.removeEventListener('change', update);
  });
  $effect(() => {
    document.documentElement.lang = settings.language === 'zh' ? 'zh-CN' : 'en';
  });
});

// The string of a key in the chosen language, with {names} filled in.
export function t(key: Key, values?: Record<string, string | number>): string {
  const s = (settings.language === 'zh' ? zh : en)[key];
  return values ? s.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? '')) : s;
}
