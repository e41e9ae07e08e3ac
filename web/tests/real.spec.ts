// The page against a real server at WELS_URL: what it serves is what was built, and the routes say what the page expects. Nothing is assumed of the model's answers.
import { readFileSync } from 'node:fs';
import { expect, test as plain, type Page } from '@playwright/test';
import { answers, box, questions } from './base.ts';

const url = process.env.WELS_URL ?? '';
const key = process.env.WELS_KEY ?? '';

const test = plain.extend<{ config: any }>({
  baseURL: async ({}, use) => use(url),
  config: async ({ request }, use) => use(await (await request.get('/ui/config.json')).json()),
  page: async ({ page }, use) => {
    const errors: string[] = [];
    page.on('console', (m) => m.type() === 'error' && errors.push(m.text()));
    page.on('pageerror', (e) => errors.push(String(e)));
    if (key) await page.addInitScript((k) => sessionStorage.setItem('wels.key', k), key);
    await use(page);
    expect(errors).toEqual([]);
  },
});

async function ask(page: Page, text: string) {
  const before = await answers(page).count();
  await box(page).fill(text);
  await box(page).press('Enter');
  await expect(answers(page)).toHaveCount(before + 1);
  await finished(page);
}
async function finished(page: Page) {
  await expect(answers(page).last()).toHaveAttribute('aria-busy', 'false', { timeout: 45_000 });
  await expect(answers(page).last().getByRole('alert')).toHaveCount(0);
}
// Short answers: a model that is not trained much may go on forever.
async function limit(page: Page, tokens: number) {
  await page.getByRole('button', { name: 'Parameters' }).click();
  await page.getByLabel('Greatest length (tokens)').fill(String(tokens));
  await page.keyboard.press('Escape');
}

test('the server sends the page as it was built, with its policy', async ({ page }) => {
  const response = (await page.goto('/'))!;
  const headers = response.headers();
  expect(headers['content-type']).toMatch(/^text\/html/);
  const sent = headers['content-security-policy'].split(/;\s*/);
  const built = readFileSync(new URL('../dist/csp.txt', import.meta.url), 'utf8').trim().split(/;\s*/);
  expect(sent.sort()).toEqual(built.sort());
  expect(headers['x-content-type-options']).toBe('nosniff');
  expect(headers['referrer-policy']).toBe('no-referrer');
  expect(await response.text()).toBe(readFileSync(new URL('../dist/index.html', import.meta.url), 'utf8'));
  await expect(page.locator('#app main')).toBeVisible();
});

test('a question is answered, with usage, and the history stays', async ({ page, config }) => {
  test.skip(config.mode !== 'chat');
  await page.goto('/');
  await limit(page, 24);
  await ask(page, 'What is 2 + 3?');
  const stats = answers(page).last().getByRole('button', { name: 'Details of this answer' });
  await expect(stats).toContainText(/\d+ in/);
  await expect(stats).toContainText(/\d+ out/);
  await page.reload();
  await expect(questions(page).last()).toContainText('What is 2 + 3?');
  await ask(page, 'And 3 + 4?');
  await expect(answers(page)).toHaveCount(2);
  await answers(page).last().getByRole('button', { name: 'Regenerate' }).click();
  await expect(answers(page).last()).toContainText('2/2', { timeout: 30_000 });
  await finished(page);
});

test('a long prompt asked twice comes from the cache', async ({ page, config }) => {
  test.skip(config.mode !== 'chat');
  await page.goto('/');
  await limit(page, 8);
  await ask(page, `Say yes. ${'one two three four five six seven eight nine ten '.repeat(12)}`);
  await answers(page).last().getByRole('button', { name: 'Regenerate' }).click();
  await expect(answers(page).last()).toContainText('2/2', { timeout: 30_000 });
  await finished(page);
  await expect(answers(page).last()).toContainText(/\(\d+ cached\)/);
});

test('an answer can be stopped', async ({ page, config }) => {
  test.skip(config.mode !== 'chat');
  await page.goto('/');
  await limit(page, 2000);
  await box(page).fill('Count to a thousand, and then tell a very long story.');
  await box(page).press('Enter');
  const stop = page.getByRole('button', { name: 'Stop' });
  // A model may have ended by itself before the click.
  await stop.click({ timeout: 5000 }).catch(() => {});
  await finished(page);
  await limit(page, 8);
  await ask(page, 'Still there?');
});

test('DeepThink reasons in a fold', async ({ page, config }) => {
  test.skip(config.mode !== 'chat' || !config.models.some((m: any) => m.thinking));
  await page.goto('/');
  await limit(page, 48);
  const pill = page.getByRole('button', { name: 'DeepThink' });
  if ((await pill.getAttribute('aria-pressed')) === 'false') await pill.click();
  await ask(page, 'What is 12 + 30?');
  await expect(answers(page).last()).toContainText('deepseek-reasoner');
  await answers(page).last().getByRole('button', { name: 'Details of this answer' }).click();
  // A model may end its reasoning at once.
  const reasoned = (await answers(page).last().locator('.details').innerText()).includes('of these reasoning');
  if (reasoned) await expect(answers(page).last().locator('.fold')).toHaveText(/Thought for \d/);
  else await expect(answers(page).last().locator('.fold')).toHaveCount(0);
});

test('the inside page shows the tokens and their experts', async ({ page, config }) => {
  test.skip(config.mode !== 'chat' || !config.inside);
  await page.goto('/');
  await limit(page, 48);
  await page.goto('/#/inside');
  await page.getByRole('textbox', { name: 'Question' }).fill('What is 2 + 3?');
  await page.getByRole('button', { name: 'Ask' }).click();
  const tokens = page.getByRole('listbox').getByRole('option');
  await expect(tokens.first()).toBeVisible({ timeout: 45_000 });
  expect(await page.locator('.token:not(.part-prompt)').count()).toBeGreaterThan(0);
  await page.locator('.token:not(.part-prompt)').filter({ hasText: /\S/ }).first().hover(); // part of a character has no width
  const detail = page.getByRole('complementary', { name: 'Token' });
  await expect(detail).toContainText('log-probability');
  if (config.experts > 0) {
    await expect(detail.locator('.chip').first()).toBeVisible();
    const painted = await tokens.evaluateAll((all) => all.filter((e) => getComputedStyle(e).backgroundColor !== 'rgba(0, 0, 0, 0)').length);
    expect(painted).toBeGreaterThan(0);
  }
});

test('the training page draws the runs', async ({ page, config }) => {
  test.skip(config.mode !== 'training');
  await page.goto('/');
  await expect(page.locator('.runs li').first()).toBeVisible();
  await expect(page.locator('figure.chart').first().locator('canvas')).toHaveCount(1);
  await expect(page.locator('figure.chart .entries b').first()).toHaveText(/\d/);
  for (const tab of ['Experts', 'Samples', 'About the run']) {
    await page.getByRole('tab', { name: tab }).click();
    await page.waitForTimeout(500);
    await expect(page.locator('#panel [role=alert]')).toHaveCount(0);
    await expect(page.locator('#panel')).not.toBeEmpty();
  }
});
