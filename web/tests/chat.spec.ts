import { answers, ask, box, done, expect, questions, send, test } from './base.ts';

test('an answer streams in, with model, usage, cost and speed', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ content: 'one two three four five six seven eight nine ten', delay: 400 });
  await page.goto('/');
  await send(page, 'count');
  await expect(answers(page).last()).toContainText('one two');
  await expect(answers(page).last()).toHaveAttribute('aria-busy', 'true');
  await expect(answers(page).last()).not.toContainText('ten', { timeout: 50 });
  await done(page);
  await expect(answers(page).last()).toContainText('nine ten');
  const stats = answers(page).last().getByRole('button', { name: 'Details of this answer' });
  await expect(stats).toContainText('deepseek-chat');
  await expect(stats).toContainText('10 out');
  await expect(stats).toContainText('tokens/s');
  await expect(stats).toContainText('$0.0000');
  await stats.click();
  await expect(page.locator('.details')).toContainText('Prompt tokens');
  const sent = mock.requests.find((r) => r.path === '/chat/completions')!.body;
  expect(sent.stream).toBe(true);
  expect(sent.stream_options).toEqual({ include_usage: true });
  expect(sent.messages).toEqual([{ role: 'user', content: 'count' }]);
});

test('the cost is that of hit, miss and output tokens', async ({ page, mock }) => {
  mock.behaviour.config.prices = { hit: 1000, miss: 10_000, output: 100_000, currency: 'USD' };
  mock.behaviour.reply = () => ({ content: 'yes' });
  await page.goto('/');
  await ask(page, 'word '.repeat(100));
  const { body } = mock.requests.at(-1)!;
  expect(body.messages[0].content).toHaveLength(499);
  // The prompt has 100 + 4 + 6 tokens, 64 of them from the cache, the answer 1: (64·1,000 + 46·10,000 + 1·100,000) / 1,000,000.
  await expect(answers(page).last()).toContainText('110 in (64 cached)');
  await expect(answers(page).last()).toContainText('$0.6240');
});

test('reasoning streams in a fold, which closes when the answer begins and opens again', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ reasoning: 'First I look. Then I weigh it. Then I decide.', content: 'The answer is **four**.', delay: 250 });
  await page.goto('/');
  await page.getByRole('button', { name: 'DeepThink' }).click();
  await send(page, 'hard?');
  const fold = answers(page).last().locator('.fold');
  await expect(fold).toContainText('Thinking');
  await expect(answers(page).last().locator('.reasoning')).toContainText('First I look');
  await done(page);
  await expect(fold).toHaveText(/Thought for \d+(\.\d)? s/);
  await expect(answers(page).last().locator('.reasoning')).toBeHidden();
  await expect(answers(page).last().locator('strong')).toHaveText('four');
  await fold.click();
  await expect(answers(page).last().locator('.reasoning')).toContainText('Then I decide.');
  expect(mock.requests.at(-1)!.body.model).toBe('deepseek-reasoner');
  // The toggle is remembered, and reasoning is not sent back.
  await page.reload();
  await expect(page.getByRole('button', { name: 'DeepThink' })).toHaveAttribute('aria-pressed', 'true');
  await ask(page, 'again');
  const sent = mock.requests.at(-1)!.body.messages;
  expect(sent).toEqual([
    { role: 'user', content: 'hard?' },
    { role: 'assistant', content: 'The answer is **four**.' },
    { role: 'user', content: 'again' },
  ]);
});

test('stop ends the stream at the server and keeps what came', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ content: 'word '.repeat(400), delay: 30 });
  await page.goto('/');
  await send(page, 'long');
  await expect(answers(page).last()).toContainText('word word');
  await page.getByRole('button', { name: 'Stop' }).click();
  await done(page);
  await expect(answers(page).last()).toContainText('Stopped.');
  await expect.poll(() => mock.aborted).toBe(1);
  await page.reload();
  await expect(answers(page).last()).toContainText('word word');
  // Escape stops too, and the answer can be gone on with.
  mock.behaviour.reply = (_, body) => ({ content: body.messages.at(-1).prefix ? ' and the end' : 'no' });
  await answers(page).last().getByRole('button', { name: 'Continue' }).click();
  await expect(answers(page).last()).toContainText('word and the end');
  expect(mock.requests.at(-1)!.path).toBe('/beta/chat/completions');
  mock.behaviour.reply = () => ({ content: 'word '.repeat(400), delay: 30 });
  await send(page, 'again');
  await expect(answers(page).last()).toContainText('word word');
  await page.keyboard.press('Escape');
  await done(page);
  await expect.poll(() => mock.aborted).toBe(2);
});

test('regenerating keeps both answers, and one can switch between them', async ({ page, mock }) => {
  let n = 0;
  mock.behaviour.reply = () => ({ content: `answer ${++n}` });
  await page.goto('/');
  await ask(page, 'q');
  await answers(page).last().getByRole('button', { name: 'Regenerate' }).click();
  await expect(answers(page).last()).toContainText('answer 2');
  await done(page);
  await expect(answers(page)).toHaveCount(1);
  await expect(answers(page).last()).toContainText('2/2');
  await answers(page).last().getByRole('button', { name: 'Previous version' }).click();
  await expect(answers(page).last()).toContainText('answer 1');
  await expect(answers(page).last()).toContainText('1/2');
  await page.reload();
  await expect(answers(page).last()).toContainText('answer 1');
  // The chosen version is what goes on.
  await ask(page, 'next');
  expect(mock.requests.at(-1)!.body.messages[1].content).toBe('answer 1');
});

test('editing a message makes a branch beside it', async ({ page, mock }) => {
  await page.goto('/');
  await ask(page, 'first');
  await ask(page, 'second');
  await questions(page).first().hover();
  await questions(page).first().getByRole('button', { name: 'Edit message' }).click();
  const edit = page.getByRole('textbox', { name: 'Edit message' });
  await expect(edit).toHaveValue('first');
  await edit.fill('changed');
  await edit.press('Enter');
  await done(page);
  await expect(questions(page)).toHaveCount(1);
  await expect(answers(page).last()).toContainText('You said: changed');
  expect(mock.requests.at(-1)!.body.messages).toEqual([{ role: 'user', content: 'changed' }]);
  await expect(questions(page).first()).toContainText('2/2');
  await questions(page).first().getByRole('button', { name: 'Previous version' }).click();
  await expect(questions(page)).toHaveCount(2);
  await expect(questions(page).first()).toContainText('first');
  await expect(answers(page).last()).toContainText('You said: second');
});

test('a reload keeps the history, also of an answer under way', async ({ page, mock }) => {
  await page.goto('/');
  await ask(page, 'remember me');
  mock.behaviour.reply = () => ({ content: 'slow '.repeat(200), delay: 40 });
  await send(page, 'slowly');
  await expect(answers(page).last()).toContainText('slow slow');
  await page.waitForTimeout(2500);
  await page.reload();
  await expect(answers(page).first()).toContainText('You said: remember me');
  await expect(answers(page).last()).toContainText('slow slow');
  await expect(answers(page).last()).toContainText('The page was closed');
  await expect(page.getByRole('navigation').getByRole('link', { name: 'remember me' })).toBeVisible();
});

test('an answer goes on while another chat is looked at', async ({ page, mock }) => {
  mock.behaviour.reply = (q) => ({ content: `${q} ${'x '.repeat(20)}end`, delay: 40 });
  await page.goto('/');
  await send(page, 'background');
  await expect(answers(page).last()).toContainText('background');
  await page.getByRole('button', { name: 'New chat' }).first().click();
  await expect(page.getByRole('heading', { name: 'What shall we think about?' })).toBeVisible();
  await page.getByRole('link', { name: 'background' }).click();
  await expect(answers(page).last()).toContainText('end');
  await done(page);
});

test('search finds messages and opens them, chats are renamed and deleted', async ({ page }) => {
  await page.goto('/');
  await ask(page, 'about zebras');
  await page.getByRole('button', { name: 'New chat' }).first().click();
  await ask(page, 'about lions');
  await page.keyboard.press('Control+k');
  await page.keyboard.type('ZEBRA');
  await page.locator('button.hit').click();
  await expect(questions(page).first()).toContainText('about zebras');
  await page.keyboard.press('Control+k');
  await page.keyboard.press('Escape');
  const item = page.locator('li.item', { hasText: 'about zebras' });
  await item.hover();
  await item.getByRole('button', { name: /Options/ }).click();
  await page.getByRole('menuitem', { name: 'Rename' }).click();
  await page.getByRole('textbox', { name: 'Name of the chat' }).fill('Stripes');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('link', { name: 'Stripes' })).toBeVisible();
  await page.reload();
  const renamed = page.locator('li.item', { hasText: 'Stripes' });
  await renamed.hover();
  await renamed.getByRole('button', { name: /Options/ }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await expect(page.getByRole('dialog')).toContainText('2 messages');
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await expect(page.getByRole('link', { name: 'Stripes' })).toHaveCount(0);
  await page.reload();
  await expect(page.locator('li.item')).toHaveCount(1);
});

test('a chat that is deleted while its answer is written stays deleted', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ content: 'word '.repeat(200), delay: 60 });
  await page.goto('/');
  await send(page, 'delete me');
  await expect(answers(page).last()).toContainText('word word');
  const item = page.locator('li.item', { hasText: 'delete me' });
  await item.hover();
  await item.getByRole('button', { name: /Options/ }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await expect(page.locator('li.item')).toHaveCount(0);
  await page.waitForTimeout(1500); // longer than what is written is saved
  await expect(page.locator('li.item')).toHaveCount(0);
  await page.reload();
  await expect(page.locator('li.item')).toHaveCount(0);
});

test('links whose targets come at the end of a streamed answer are links', async ({ page, mock }) => {
  mock.behaviour.reply = () => ({ content: 'See [docs][1] here.\n\nAnd more.\n\n[1]: https://example.com/docs\n', delay: 30 });
  await page.goto('/');
  await ask(page, 'link please');
  await expect(answers(page).last().getByRole('link', { name: 'docs' })).toHaveAttribute('href', 'https://example.com/docs');
});

test('exported chats can be imported elsewhere', async ({ page, browser, mock }) => {
  await page.goto('/');
  await ask(page, 'travels');
  await page.getByRole('button', { name: 'Settings' }).click();
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Export all chats' }).click()]);
  const file = await download.path();
  const other = await browser.newPage();
  await other.goto(mock.url);
  await other.getByRole('button', { name: 'Settings' }).click();
  await other.locator('input[type=file]').setInputFiles({ name: 'bad.json', mimeType: 'application/json', buffer: Buffer.from('{"a":1}') });
  await expect(other.getByRole('alert')).toContainText('holds no chats');
  await other.locator('input[type=file]').setInputFiles(file);
  await expect(other.getByRole('status').filter({ hasText: 'Imported 1' })).toBeVisible();
  await other.keyboard.press('Escape');
  await other.getByRole('link', { name: 'travels' }).click();
  await expect(answers(other).last()).toContainText('You said: travels');
  await other.close();
});

test('parameters go into the request, empty ones do not', async ({ page, mock }) => {
  await page.goto('/');
  await page.getByRole('button', { name: 'Parameters' }).click();
  await page.getByLabel('System prompt').fill('Be brief.');
  await page.getByLabel('Temperature').fill('0.3');
  await page.getByLabel('Seed').fill('42');
  await page.getByLabel('Thinking budget (tokens)').fill('100');
  await page.getByLabel('Stop texts (one per line)').fill('END');
  await page.getByLabel('Top p').fill('7');
  await expect(page.getByText('From 0 to 1')).toBeVisible();
  await page.getByLabel('Top p').fill('');
  await page.keyboard.press('Escape');
  await ask(page, 'hi');
  expect(mock.requests.at(-1)!.body).toEqual({
    model: 'deepseek-chat', stream: true, stream_options: { include_usage: true }, temperature: 0.3, seed: 42, thinking_budget: 100, stop: ['END'],
    messages: [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'hi' }],
  });
});

test('the search toggle is there, disabled and says why', async ({ page, mock }) => {
  await page.goto('/');
  const pill = page.getByRole('button', { name: 'Search', exact: true });
  await expect(pill).toHaveAttribute('aria-disabled', 'true');
  await pill.click({ force: true });
  await expect(page.getByRole('status').filter({ hasText: 'search back-end' })).toBeVisible();
  mock.behaviour.config.search = true;
  await page.reload();
  await expect(pill).toHaveAttribute('aria-disabled', 'false');
  await pill.click();
  await expect(pill).toHaveAttribute('aria-pressed', 'true');
  await ask(page, 'news?');
  expect(mock.requests.at(-1)!.body.search).toBe(true);
});

test('a model without thinking has no DeepThink', async ({ page, mock }) => {
  mock.behaviour.config.models = [{ id: 'deepseek-chat', thinking: false }];
  await page.goto('/');
  await expect(page.getByRole('button', { name: 'DeepThink' })).toHaveAttribute('aria-disabled', 'true');
  await page.getByRole('button', { name: 'DeepThink' }).click({ force: true });
  await ask(page, 'x');
  expect(mock.requests.at(-1)!.body.model).toBe('deepseek-chat');
});

test('of several models the chosen one is asked, and asked to think', async ({ page, mock }) => {
  mock.behaviour.config.models = [{ id: 'deepseek-chat', thinking: false }, { id: 'deepseek-reasoner', thinking: true }, { id: 'other', thinking: false }];
  await page.goto('/');
  await page.getByRole('combobox', { name: 'Model' }).selectOption('other');
  await ask(page, 'x');
  expect(mock.requests.at(-1)!.body.model).toBe('other');
  expect(mock.requests.at(-1)!.body.thinking).toBeUndefined();
  await page.getByRole('button', { name: 'DeepThink' }).click();
  await ask(page, 'y');
  expect(mock.requests.at(-1)!.body.model).toBe('other');
  expect(mock.requests.at(-1)!.body.thinking).toEqual({ type: 'enabled' });
  // A model that is gone later is not asked for.
  mock.behaviour.config.models = [{ id: 'deepseek-chat', thinking: false }, { id: 'mine', thinking: false }];
  await page.reload();
  await expect(page.getByRole('combobox', { name: 'Model' })).toHaveValue('deepseek-chat');
});

test('drafts are kept per chat and over a reload', async ({ page }) => {
  await page.goto('/');
  await ask(page, 'one');
  await box(page).fill('half a thought');
  await page.getByRole('button', { name: 'New chat' }).first().click();
  await expect(box(page)).toHaveValue('');
  await box(page).fill('another');
  await page.reload();
  await expect(box(page)).toHaveValue('another');
  await page.getByRole('link', { name: 'one' }).click();
  await expect(box(page)).toHaveValue('half a thought');
});

test('keyboard shortcuts work and are listed', async ({ page, mock }) => {
  let n = 0;
  mock.behaviour.reply = () => ({ content: `a${++n}` });
  await page.goto('/');
  await page.keyboard.press('Control+/');
  await expect(page.getByRole('dialog')).toContainText('Keyboard shortcuts');
  await page.keyboard.press('Escape');
  await ask(page, 'q');
  await page.keyboard.press('Alt+r');
  await expect(answers(page).last()).toContainText('a2');
  await done(page);
  await page.keyboard.press('Alt+t');
  await expect(page.getByRole('button', { name: 'DeepThink' })).toHaveAttribute('aria-pressed', 'true');
  await page.keyboard.press('Alt+e');
  await expect(page.getByRole('textbox', { name: 'Edit message' })).toBeFocused();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+b');
  await expect(page.getByRole('navigation')).toBeHidden();
  await page.keyboard.press('Control+Shift+O');
  await expect(questions(page)).toHaveCount(0);
  await expect(box(page)).toBeFocused();
});

test('copy gives the raw Markdown, and code blocks their code', async ({ page, context, mock }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  mock.behaviour.reply = () => ({ content: 'Here:\n\n```python\nprint("hi")\n```\n\n**done**' });
  await page.goto('/');
  await ask(page, 'code');
  await answers(page).last().getByRole('button', { name: 'Copy as Markdown' }).click();
  const copied = () => page.evaluate(() => navigator.clipboard.readText());
  await expect.poll(copied).toBe('Here:\n\n```python\nprint("hi")\n```\n\n**done**');
  await answers(page).last().getByRole('button', { name: 'Copy code' }).click();
  await expect.poll(async () => (await copied()).trim()).toBe('print("hi")');
});
