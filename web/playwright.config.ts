import { existsSync } from 'node:fs';
import { defineConfig } from '@playwright/test';

// Debian's Chromium, or the browser at CHROMIUM. Its sandbox is not to be had as root, nor in many containers.
const chromium = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);

export default defineConfig({
  testDir: 'tests',
  // WELS_URL=http://127.0.0.1:8080 (and WELS_KEY) tests a running `wels serve`, `wels ui` or `--ui` instead of the mock server.
  testMatch: process.env.WELS_URL ? 'real.spec.ts' : '*.spec.ts',
  testIgnore: process.env.WELS_URL ? [] : 'real.spec.ts',
  outputDir: 'test-results',
  workers: 1,
  retries: 1, // of a machine that is busy; what passes only then is named "flaky"
  timeout: 60_000,
  expect: { timeout: 10_000 },
  reporter: [['list']],
  use: {
    locale: 'en-US',
    viewport: { width: 1280, height: 800 },
    actionTimeout: 10_000,
    launchOptions: { executablePath: chromium, args: ['--no-sandbox'] },
  },
});
