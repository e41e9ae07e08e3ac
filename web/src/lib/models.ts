// Which model a request names: the chosen one, or with DeepThink its thinking mode.
import { server } from './server.svelte';
import { settings } from './settings.svelte';

export const answeringModels = () => server.config.models.filter((m) => !m.thinking);
export const canThink = () => server.config.models.some((m) => m.thinking);
export const canAnswer = () => !server.known || answeringModels().length > 0;

export const chosenModel = () => (answeringModels().find((m) => m.id === settings.model) ?? answeringModels()[0])?.id ?? 'deepseek-chat';

export function thinkingModel(): { model: string; think: boolean } {
  const think = (settings.think && (canThink() || !server.known)) || !canAnswer();
  const chosen = chosenModel();
  if (!think) return { model: chosen, think };
  // The loaded model's thinking mode has a name of its own; others are asked to think (see answer.svelte.ts).
  const own = chosen === answeringModels()[0]?.id || chosen === server.config.name || !canAnswer();
  return { model: own ? (server.config.models.find((m) => m.thinking)?.id ?? 'deepseek-reasoner') : chosen, think };
}
