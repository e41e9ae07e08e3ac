// Which model a request names: the chosen one, or with DeepThink its thinking mode.
import { server } from './server.svelte';
import { settings } from './settings.svelte';

export const answeringModels = () => server.config.models.filter((m) => !m.thinking);
export const canThink = () => server.config.models.some((m) => m.thinking);
export const canAnswer = () => !server.known || answeringModels().length > 0;

export function thinkingModel(): { model: string; think: boolean } {
  const think = settings.think && (canThink() || !server.known);
  if (think || !canAnswer()) return { model: server.config.models.find((m) => m.thinking)?.id ?? 'deepseek-reasoner', think: true };
  const chosen = answeringModels().find((m) => m.id === settings.model) ?? answeringModels()[0];
  return { model: chosen?.id ?? 'deepseek-chat', think: false };
}
