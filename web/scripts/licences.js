// The licences of what dist/index.html contains, side by side with it.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

const inside = ['svelte', 'marked', 'dompurify', 'highlight.js', 'katex', 'uplot'];
let out = 'web/dist/index.html contains parts of these packages.\n';
for (const name of inside) {
  const folder = new URL(`../node_modules/${name}/`, import.meta.url);
  const { version, license } = JSON.parse(readFileSync(new URL('package.json', folder), 'utf8'));
  const file = readdirSync(folder).find((f) => /^licen[cs]e/i.test(f));
  if (!file) throw new Error(`${name} has no licence file`);
  out += `\n=== ${name} ${version} (${license})\n\n${readFileSync(new URL(file, folder), 'utf8').trim()}\n`;
}
writeFileSync(new URL('../dist/licences.txt', import.meta.url), out);
