// What the tests share: the mock server, a page that fails the test on any error in the console, and the steps that many tests take.
import { expect, test as plain, type Page } from '@playwright/test';
import { Mock } from './mock.ts';

export { expect };

interface Fixtures {
  mock: Mock;
  expectErrors: { allow: RegExp[] };
}

export const test = plain.extend<Fixtures, { mockServer: Mock }>({
  mockServer: [
    async ({}, use) => {
      const m = await new Mock().start();
      await use(m);
      await m.stop();
    },
    { scope: 'worker' },
  ],
  mock: async ({ mockServer }, use) => {
    mockServer.reset();
    await use(mockServer);
  },
  baseURL: async ({ mockServer }, use) => use(mockServer.url),
  // Errors that a test means to cause are named in allow.
  expectErrors: async ({}, use) => use({ allow: [] }),
  page: async ({ page, expectErrors }, use) => {
    const errors: string[] = [];
    page.on('console', (m) => m.type() === 'error' && errors.push(m.text()));
    page.on('pageerror', (e) => errors.push(String(e)));
    await use(page);
    expect(errors.filter((e) => !expectErrors.allow.some((a) => a.test(e)))).toEqual([]);
  },
});

export const box = (page: Page) => page.getByRole('textbox', { name: 'Message', exact: true });
export const answers = (page: Page) => page.locator('section.answer');
export const questions = (page: Page) => page.locator('section.question');

export async function send(page: Page, text: string) {
  await box(page).fill(text);
  await box(page).press('Enter');
}

// Sends and waits until the answer is there.
export async function ask(page: Page, text: string) {
  await send(page, text);
  await done(page);
}
export async function done(page: Page) {
  await expect(page.getByRole('button', { name: 'Send', exact: true })).toBeVisible({ timeout: 30_000 });
  await expect(answers(page).last()).toHaveAttribute('aria-busy', 'false');
}
