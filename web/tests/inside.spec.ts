import AxeBuilder from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { expect, test } from './base.ts';

const tokens = (page: Page) => page.getByRole('listbox').getByRole('option');

async function watch(page: Page) {
  await page.goto('/#/inside');
  await page.getByRole('textbox', { name: 'Question' }).fill('What is the capital of France?');
  await page.getByRole('textbox', { name: 'Question' }).press('Enter');
  await expect(tokens(page).first()).toBeVisible();
}

test('tokens are coloured by the expert of the chosen layer', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ content: 'The capital of France is Paris, a city on the river Seine.' });
  await watch(page);
  expect(mock.requests.find((r) => r.path === '/chat/completions')!.body.inside).toBe(true);
  const paint = () => tokens(page).evaluateAll((all) => all.map((e) => getComputedStyle(e).backgroundColor));
  const first = await paint();
  expect(new Set(first).size).toBeGreaterThan(3);
  await page.getByRole('combobox', { name: 'Layer' }).selectOption('3');
  const third = await paint();
  expect(third).not.toEqual(first);
  await page.getByRole('button', { name: 'Surprise' }).click();
  expect(await paint()).not.toEqual(third);
});

test('a token shows its experts per layer, probability and draft', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ content: 'The capital of France is Paris, a city on the river Seine.' });
  await watch(page);
  const trace = await (await page.request.get('/ui/inside/chat-1')).json();
  const at = trace.tokens.findIndex((x: any) => x.part === 'answer' && x.draft === true);
  await tokens(page).nth(at).hover();
  const detail = page.getByRole('complementary', { name: 'Token' });
  await expect(detail).toContainText(`${(Math.exp(trace.tokens[at].logp) * 100).toFixed(1)} %`);
  await expect(detail).toContainText('draft accepted');
  for (const [l, list] of trace.tokens[at].experts.entries()) {
    await expect(detail.locator('tbody tr').nth(l).locator('.chip')).toHaveText(list.map(String));
  }
  // By keyboard, too.
  await page.getByRole('listbox').focus();
  await page.keyboard.press('Home');
  await expect(detail).toContainText('from the cache');
  await page.keyboard.press('End');
  await expect(tokens(page).last()).toHaveAttribute('aria-selected', 'true');
  await page.keyboard.press('ArrowLeft');
  await expect(tokens(page).nth(trace.tokens.length - 2)).toHaveAttribute('aria-selected', 'true');
});

test('drafts are marked, and their rate is told', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ content: 'one two three four five six seven eight nine ten '.repeat(4) });
  await watch(page);
  const trace = await (await page.request.get('/ui/inside/chat-1')).json();
  await expect(page.locator('.rate')).toContainText(`${Math.round((100 * trace.mtp.accepted) / trace.mtp.drafted)} %`);
  await expect(page.locator('.rate')).toContainText(`${trace.mtp.accepted} of ${trace.mtp.drafted}`);
  await expect(page.locator('.token.yes')).toHaveCount(trace.tokens.filter((x: any) => x.draft === true).length);
  await expect(page.locator('.token.no')).toHaveCount(trace.tokens.filter((x: any) => x.draft === false).length);
});

test('a cell of the expert map marks the tokens that used it', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ reasoning: 'Let me see.', content: 'one two three four five six seven eight nine ten '.repeat(4) });
  await watch(page);
  const trace = await (await page.request.get('/ui/inside/chat-1')).json();
  const map = page.getByRole('application', { name: /3 layers, 16 experts/ });
  await map.focus();
  for (const k of ['ArrowRight', 'ArrowRight', 'ArrowDown', 'Enter']) await page.keyboard.press(k);
  const used = trace.tokens.filter((x: any) => x.experts?.[1].includes(1)).length;
  await expect(page.locator('.token.marked')).toHaveCount(used);
  await expect(page.locator('.picked')).toContainText(`${used} tokens used expert 1 in layer 2`);
  const fair = (trace.tokens.filter((x: any) => x.experts).length * trace.chosen) / trace.experts;
  const times = trace.tokens.reduce((n: number, x: any) => n + (x.experts?.[1].filter((e: number) => e === 1).length ?? 0), 0);
  await expect(page.locator('.told')).toContainText(`Layer 2 · Expert 1 · Use of experts ${Number((times / fair).toPrecision(3))}`);
  await page.getByRole('button', { name: 'Clear mark' }).click();
  await expect(page.locator('.token.marked')).toHaveCount(0);
});

test('a dense model is coloured by surprise, and a server without records says so', async ({ page, mock }) => {
  mock.behaviour.config.inside = false;
  await page.goto('/#/inside');
  await expect(page.getByText('does not record')).toBeVisible();
  mock.behaviour.config.inside = true;
  await page.route('**/ui/inside/*', async (route) => {
    const trace = await (await route.fetch()).json();
    await route.fulfill({ json: { ...trace, layers: [], experts: 0, chosen: 0, shared: 0, mtp: null, tokens: trace.tokens.map((x: any) => ({ ...x, experts: [], draft: null })) } });
  });
  await page.reload();
  await watch(page);
  await expect(page.getByRole('button', { name: 'Surprise' })).toHaveAttribute('aria-pressed', 'true');
  await expect(page.getByRole('button', { name: 'Expert', exact: true })).toHaveCount(0);
  await expect(page.locator('.rate')).toContainText('No drafts');
});

test('without watching, the request and the page have no record', async ({ page, mock }) => {
  await page.goto('/#/inside');
  await page.getByRole('button', { name: 'Watch experts' }).click();
  await page.getByRole('textbox', { name: 'Question' }).fill('hm');
  await page.getByRole('button', { name: 'Ask' }).click();
  await expect(page.getByText('You said: hm')).toBeVisible();
  await expect(page.getByText('Turn on “Watch experts”')).toBeVisible();
  expect(mock.requests.at(-1)!.body.inside).toBeUndefined();
});

for (const colorScheme of ['light', 'dark'] as const) {
  test(`no serious accessibility violations, ${colorScheme}`, async ({ page, mock }) => {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    mock.behaviour.reply = () => ({ reasoning: 'Let me see.', content: 'one two three four five six seven eight nine ten '.repeat(4) });
    await watch(page);
    for (const by of ['Expert', 'Surprise', 'Drafts']) {
      await page.getByRole('button', { name: by, exact: true }).click();
      await tokens(page).nth(12).click();
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => `${by} ${v.id}: ${v.nodes.map((n) => `${n.target.join(' ')} ${n.any[0]?.message ?? ''}`).join(', ')}`)).toEqual([]);
    }
  });
}
