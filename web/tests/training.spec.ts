import AxeBuilder from '@axe-core/playwright';
import { expect, test } from './base.ts';
import { addRuns, pretrainLine } from './runs.ts';

const figure = (page: import('@playwright/test').Page, name: string) => page.locator('figure.chart').filter({ has: page.getByRole('heading', { name, exact: true }) });

test('curves of a running run appear, grow and survive a broken connection', async ({ page, mock, expectErrors }) => {
  expectErrors.allow.push(/ERR_EMPTY_RESPONSE|ERR_CONNECTION/);
  addRuns(mock);
  await page.goto('/#/training');
  await expect(figure(page, 'Loss')).toContainText('training');
  await expect(figure(page, 'Loss')).toContainText('validation');
  await expect(figure(page, 'Loss').locator('canvas')).toHaveCount(1);
  await expect(figure(page, 'Learning rate').locator('.entries b')).toHaveText('4e-4');
  await expect(page.locator('.runs li').first()).toContainText('300 of 600 steps');
  await expect(page.locator('.runs li').nth(1)).toContainText('stopped');
  mock.addLine('base', { ...pretrainLine(301), lr: 0.000123 });
  await expect(figure(page, 'Learning rate').locator('.entries b')).toHaveText('1.23e-4');
  await expect(page.locator('.runs li').first()).toContainText('301 of 600 steps');
  mock.breakRun('base', true);
  await expect(page.locator('.runs li').first()).toContainText('trying again');
  mock.breakRun('base', false);
  mock.addLine('base', { ...pretrainLine(302), lr: 0.0002 });
  await expect(figure(page, 'Learning rate').locator('.entries b')).toHaveText('2e-4');
  expect(mock.requests.filter((r) => r.path.includes('after=301-')).length).toBeGreaterThan(0);
  mock.endRun('base', 'failed: base: the disk is full; free some space');
  await expect(page.locator('.runs li').first()).toContainText('failed');
  await expect(page.locator('.runs li').first()).toContainText('base: the disk is full; free some space');
});

test('eight running runs and a second page leave the server its connections', async ({ page, context, mock }) => {
  for (let i = 1; i <= 8; ++i) mock.addRun(`run-${i}`, { running: true }, [pretrainLine(1), pretrainLine(2)]);
  await page.addInitScript(() => localStorage.setItem('wels.runs', JSON.stringify(Array.from({ length: 8 }, (_, i) => `run-${i + 1}`))));
  await page.goto('/#/training');
  await expect(figure(page, 'Loss').locator('.entries li')).toHaveCount(8);
  const other = await context.newPage();
  await other.goto('/#/training');
  await expect(other.locator('.runs li')).toHaveCount(8);
  for (let i = 1; i <= 8; ++i) mock.addLine(`run-${i}`, { ...pretrainLine(3), lr: i / 1000 });
  const rates = figure(page, 'Learning rate').locator('.entries b');
  for (let i = 1; i <= 8; ++i) await expect(rates.nth(i - 1)).toHaveText(`${i / 1000}`.replace(/^0.00(.)$/, '$1e-3'));
});

test('a run that is begun anew shows the new numbers alone', async ({ page, mock }) => {
  mock.addRun('r', { running: true, steps: 10 }, Array.from({ length: 5 }, (_, i) => ({ step: i + 1, loss: 50, old_number: 1 })));
  await page.goto('/#/training');
  await expect(figure(page, 'Loss').locator('.entries b')).toHaveText('50');
  await expect(figure(page, 'old number')).toBeVisible();
  mock.replaceLines('r', [{ step: 1, loss: 3 }, { step: 2, loss: 2 }]);
  await expect(figure(page, 'Loss').locator('.entries b')).toHaveText('2');
  await expect(figure(page, 'old number')).toHaveCount(0);
  await expect(page.locator('.runs li').first()).toContainText('2 of 10 steps');
});

test('a run that was over when it was read is read again when it has changed', async ({ page, mock }) => {
  mock.addRun('r', { running: false, status: 'finished', started: 1 }, [{ step: 1, loss: 50 }]);
  await page.goto('/#/training');
  await expect(figure(page, 'Loss').locator('.entries b')).toHaveText('50');
  const asked = mock.requests.filter((r) => r.path.includes('/metrics')).length;
  await page.waitForTimeout(2500);
  expect(mock.requests.filter((r) => r.path.includes('/metrics')).length).toBe(asked);
  mock.replaceLines('r', [{ step: 1, loss: 4 }]);
  mock.runs.get('r')!.info.started = 2;
  await expect(figure(page, 'Loss').locator('.entries b')).toHaveText('4');
});

test('steps without a number are gaps, and a logarithmic axis without anything to show says so', async ({ page, mock }) => {
  const lines = Array.from({ length: 40 }, (_, i) => ({ step: i + 1, debt: i < 10 || i >= 30 ? -1 : null, loss: i % 7 ? 1 : undefined }));
  mock.addRun('r', { running: false }, lines);
  await page.goto('/#/training');
  await page.getByLabel('Smoothing').fill('0');
  const debt = figure(page, 'debt');
  const canvas = debt.locator('canvas');
  await expect(canvas).toHaveCount(1);
  // Ink of the curve's colour in the middle third of the columns: none.
  await expect.poll(() => canvas.evaluate((c: HTMLCanvasElement) => {
    const d = c.getContext('2d')!.getImageData(0, 0, c.width, c.height).data;
    const ink = [0, 0, 0];
    for (let i = 0; i < d.length; i += 4) {
      const grey = Math.abs(d[i] - d[i + 1]) < 12 && Math.abs(d[i + 1] - d[i + 2]) < 24;
      if (d[i + 3] > 60 && !grey) ink[Math.floor(((i / 4) % c.width) / c.width * 3)]++;
    }
    return [ink[0] > 20, ink[1] > 20, ink[2] > 20];
  })).toEqual([true, false, true]);
  await page.getByRole('button', { name: 'Logarithmic y axis: debt' }).click();
  await expect(debt).toContainText('No value above zero');
  await expect(debt.locator('.entries b')).toHaveText('-1');
  await page.getByRole('button', { name: 'Logarithmic y axis: debt' }).click();
  await expect(canvas).toHaveCount(1);
  await expect(debt).not.toContainText('No value above zero');
});

test('an empty sample can be seen and opened', async ({ page, mock }) => {
  mock.addRun('r', { running: false }, [{ step: 1, loss: 1 }], [{ step: 1, task: 'parity', prompt: 'p', text: '', reward: 0 }]);
  await page.goto('/#/training');
  await page.getByRole('tab', { name: 'Samples' }).click();
  await page.getByRole('button', { name: '(empty)' }).click();
});

test('something is drawn, raw and smoothed, and the axes can be logarithmic', async ({ page, mock }) => {
  addRuns(mock);
  await page.goto('/#/training');
  const canvas = figure(page, 'Loss').locator('canvas');
  await expect(canvas).toHaveCount(1);
  const picture = () => canvas.evaluate((c: HTMLCanvasElement) => c.toDataURL());
  const inked = () => canvas.evaluate((c: HTMLCanvasElement) => {
    const d = c.getContext('2d')!.getImageData(0, 0, c.width, c.height).data;
    let n = 0;
    for (let i = 3; i < d.length; i += 4) if (d[i]) ++n;
    return n;
  });
  await expect.poll(inked).toBeGreaterThan(1000);
  let before = await picture();
  const changes = async (act: () => Promise<unknown>) => {
    before = await picture();
    await act();
    await expect.poll(picture).not.toBe(before);
  };
  await changes(() => page.getByLabel('Smoothing').fill('0'));
  await changes(() => page.getByRole('button', { name: 'Logarithmic y axis: Loss', exact: true }).click());
  await changes(() => page.getByRole('button', { name: 'Log x' }).click());
  await changes(() => page.getByLabel('X axis').selectOption('tokens'));
  await changes(() => page.getByLabel('X axis').selectOption('elapsed_s'));
});

test('several runs are laid over each other, and the choice is kept', async ({ page, mock }) => {
  addRuns(mock);
  await page.goto('/#/training');
  await page.getByLabel('Show run base-2').check();
  await expect(figure(page, 'Loss').locator('.entries')).toContainText('base · training');
  await expect(figure(page, 'Loss').locator('.entries')).toContainText('base-2 · training');
  await page.reload();
  await expect(page.getByLabel('Show run base-2')).toBeChecked();
  await page.getByLabel('Show run base', { exact: true }).uncheck();
  await expect(figure(page, 'Loss').locator('.entries')).not.toContainText('base ·');
});

test('an RL run shows reward, length, KL and entropy, and its samples', async ({ page, mock }) => {
  addRuns(mock);
  await page.goto('/#/training');
  await page.getByLabel('Show run rl').check();
  await page.getByLabel('Show run base', { exact: true }).uncheck();
  for (const [name, entry] of [['Reward', 'reward mean'], ['Accuracy', 'accuracy greedy'], ['Length of answers, tokens', 'length p95'], ['KL divergence', 'kl reference'], ['Entropy, nats', 'entropy']]) {
    await figure(page, name).scrollIntoViewIfNeeded(); // drawn when it comes into view
    await expect(figure(page, name)).toContainText(entry);
  }
  await page.getByRole('tab', { name: 'Samples' }).click();
  await expect(page.locator('tbody tr')).toHaveCount(30);
  await expect(page.locator('tbody tr').first()).toContainText('145');
  await expect(page.locator('tbody tr').first()).toContainText('parity:20');
  await page.getByLabel('Filter').fill('101117');
  await expect(page.locator('tbody tr')).toHaveCount(1);
});

test('the expert map shows load, bias, dead experts and MaxVio', async ({ page, mock }) => {
  addRuns(mock);
  await page.goto('/#/training');
  await page.getByRole('tab', { name: 'Experts' }).click();
  const map = page.getByRole('application', { name: /3 layers, 16 experts/ });
  await map.focus();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  for (let i = 0; i < 5; ++i) await page.keyboard.press('ArrowRight');
  await expect(page.locator('.told')).toHaveText('Layer 2 · Expert 5 · Utilisation 0');
  await expect(page.locator('.bars li').nth(2)).toContainText('0.9');
  await page.getByRole('button', { name: 'Selection bias' }).click();
  await map.focus();
  await page.keyboard.press('ArrowRight');
  await expect(page.locator('.told')).toContainText('Selection bias');
  await page.getByLabel(/At step/).fill('0');
  await expect(page.getByLabel('At step 1')).toBeVisible();
});

test('a dense run says that it has no experts, and an empty one that it has no numbers', async ({ page, mock }) => {
  mock.addRun('empty', { running: true }, []);
  await page.goto('/#/training');
  await expect(page.getByText('No numbers yet')).toBeVisible();
  await page.getByRole('tab', { name: 'Experts' }).click();
  await expect(page.getByText('no experts')).toBeVisible();
  await page.getByRole('tab', { name: 'Samples' }).click();
  await expect(page.getByText('No samples yet')).toBeVisible();
});

test('a server that does not train says how to see runs, and is not asked again and again', async ({ page, mock, expectErrors }) => {
  expectErrors.allow.push(/404/);
  mock.behaviour.config.runs = false;
  await page.goto('/#/training');
  await expect(page.getByText('wels pretrain --ui')).toBeVisible();
  await page.waitForTimeout(6000);
  expect(mock.requests.filter((r) => r.path === '/ui/runs').length).toBeLessThan(3);
});

test('a server that only trains shows the training page alone', async ({ page, mock }) => {
  mock.behaviour.config.mode = 'training';
  addRuns(mock);
  await page.goto('/');
  await expect(page.getByRole('heading', { name: 'Training' })).toBeVisible();
  await expect(page.getByRole('navigation')).toHaveCount(0);
  await expect(figure(page, 'Loss').locator('canvas')).toHaveCount(1);
});

test('a resumed run replaces the steps after its checkpoint', async ({ page, mock }) => {
  mock.addRun('r', { running: false, steps: 10 }, [1, 2, 3, 4].map((step) => ({ step, loss: step * 10 })).concat([{ step: 3, loss: 7 }]));
  await page.goto('/#/training');
  await expect(figure(page, 'Loss').locator('.entries b')).toHaveText('7');
});

for (const colorScheme of ['light', 'dark'] as const) {
  test(`no serious accessibility violations, ${colorScheme}`, async ({ page, mock }) => {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    addRuns(mock);
    await page.goto('/#/training');
    await page.getByLabel('Show run rl').check();
    await expect(figure(page, 'Reward')).toBeVisible();
    for (const tab of ['Curves', 'Experts', 'Samples', 'About the run']) {
      await page.getByRole('tab', { name: tab }).click();
      await page.waitForTimeout(300);
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => `${tab} ${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`)).toEqual([]);
    }
  });
}

test.describe('on a phone', () => {
  test.use({ viewport: { width: 375, height: 667 }, isMobile: true, hasTouch: true });
  test('nothing is wider than the page', async ({ page, mock }) => {
    addRuns(mock);
    await page.goto('/#/training');
    await expect(figure(page, 'Loss').locator('canvas')).toHaveCount(1);
    for (const tab of ['Curves', 'Experts', 'Samples', 'About the run']) {
      await page.getByRole('tab', { name: tab }).click();
      await page.waitForTimeout(200);
      expect(await page.evaluate(() => document.querySelector('main')!.scrollWidth <= innerWidth)).toBe(true);
    }
  });
});
