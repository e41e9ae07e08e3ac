// Vite plugin: writes dist as one index.html with script, style and fonts inside, and csp.txt with the policy that allows exactly these.
import { createHash } from 'node:crypto';
import type { Plugin } from 'vite';

const sha = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

// KaTeX offers each font in three formats; every browser that can run the page reads woff2.
function woff2Only(css: string): string {
  return css.replace(/,\s*url\([^)]*\.woff\)\s*format\(["']woff["']\)/g, '').replace(/,\s*url\([^)]*\.ttf\)\s*format\(["']truetype["']\)/g, '');
}

export function oneFile(): Plugin {
  return {
    name: 'one-file',
    enforce: 'pre',
    apply: 'build',
    transform(code, id) {
      if (/katex[^?]*\.css/.test(id)) return { code: woff2Only(code), map: null };
    },
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        const of = (end: string): any[] => Object.values(bundle).filter((f) => f.fileName.endsWith(end));
        const [html] = of('.html');
        const scripts = of('.js');
        const styles = of('.css');
        if (!html || scripts.length !== 1 || styles.length !== 1) {
          this.error(`expected one page, script and style, not ${Object.keys(bundle).join(', ')}`);
        }
        const script = scripts[0].code.replace(/<\/(script)/gi, '<\\/$1').replace(/<!--/g, '<\\!--').trim();
        const style = String(styles[0].source).replace(/<\/(style)/gi, '<\\/$1').trim();
        const policy = [
          `default-src 'none'`,
          `script-src ${sha(script)}`,
          `style-src ${sha(style)}`,
          `connect-src 'self'`,
          `img-src 'self' data: blob:`,
          `font-src data:`,
          `base-uri 'none'`,
          `form-action 'none'`,
        ].join('; ');
        html.source = String(html.source)
          .replace(/\s*<script type="module"[^>]*><\/script>/, '')
          .replace(/\s*<link rel="stylesheet"[^>]*>/, '')
          .replace('<meta charset="utf-8" />', () => `<meta charset="utf-8" />\n    <meta http-equiv="Content-Security-Policy" content="${policy}" />`)
          .replace('</head>', () => `  <style>${style}</style>\n  </head>`)
          .replace('</body>', () => `  <script type="module">${script}</script>\n  </body>`);
        for (const name of Object.keys(bundle)) if (bundle[name] !== html) delete bundle[name];
        this.emitFile({ type: 'asset', fileName: 'csp.txt', source: `${policy}; frame-ancestors 'none'\n` });
      },
    },
  };
}
