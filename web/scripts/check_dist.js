// Fails if dist is not what the sources build, or if the page has grown beyond its limit.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const limit = 600_000; // bytes, compressed
const fresh = mkdtempSync(join(tmpdir(), 'wels-web-'));
let bad = false;
try {
  execFileSync('npx', ['vite', 'build', '--outDir', fresh, '--logLevel', 'warn'], { stdio: 'inherit' });
  for (const name of ['index.html', 'csp.txt']) {
    if (!readFileSync(join(fresh, name)).equals(readFileSync(join('dist', name)))) {
      console.error(`web/dist/${name} is not what the sources build: run "npm run build" in web/ and commit dist`);
      bad = true;
    }
  }
  const bytes = gzipSync(readFileSync(join(fresh, 'index.html')), { level: 9 }).length;
  console.log(`index.html: ${bytes} bytes compressed, at most ${limit}`);
  if (bytes > limit) bad = true;
} finally {
  rmSync(fresh, { recursive: true });
}
process.exit(bad ? 1 : 0);
