// Markdown → safe HTML, block by block, so that a growing text redraws only its last block.
import DOMPurify from 'dompurify';
import { Marked, type Token, type Tokens, type TokenizerAndRendererExtension } from 'marked';
import { highlight } from './highlight';

const escape = (s: string) => s.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// While a text grows, a formula without its end is shown as far as it is.
let growing = false;

const mathHtml = (tex: string, display: boolean) =>
  display ? `<div class="math-block" data-tex="${escape(tex)}"></div>` : `<span class="math-inline" data-tex="${escape(tex)}"></span>`;

const mathBlock: TokenizerAndRendererExtension = {
  name: 'mathBlock',
  level: 'block',
  start: (src) => src.match(/^ {0,3}(\$\$|\\\[)/m)?.index,
  tokenizer(src) {
    const whole = /^ {0,3}(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n+|$)/.exec(src);
    if (whole) return { type: 'mathBlock', raw: whole[0], tex: (whole[1] ?? whole[2]).trim() };
    if (growing) {
      const begun = /^ {0,3}(\$\$|\\\[)([\s\S]*)$/.exec(src);
      if (begun && !begun[2].includes(begun[1] === '$$' ? '$$' : '\\]')) return { type: 'mathBlock', raw: src, tex: begun[2].trim(), open: true };
    }
  },
  renderer: (token) => (token.open ? `<pre class="math-open">${escape(token.tex)}</pre>` : mathHtml(token.tex, true)),
};

const mathInline: TokenizerAndRendererExtension = {
  name: 'mathInline',
  level: 'inline',
  start: (src) => src.match(/\$|\\\(|\\\[/)?.index,
  tokenizer(src) {
    // $...$: no space inside the dollars, no digit after them, so that prices stay prices.
    const m =
      /^\$\$([^$]+?)\$\$/.exec(src) ?? /^\\\[([\s\S]+?)\\\]/.exec(src) ?? /^\\\(([\s\S]+?)\\\)/.exec(src) ?? /^\$(?!\s)((?:\\.|[^$\\\n])+?)(?<!\s)\$(?!\d)/.exec(src);
    if (!m) return;
    const display = m[0].startsWith('$$') || m[0].startsWith('\\[');
    return { type: 'mathInline', raw: m[0], tex: m[1].trim(), display };
  },
  renderer: (token) => (token.display ? `<span class="math-inline" data-display="1" data-tex="${escape(token.tex)}"></span>` : mathHtml(token.tex, false)),
};

const marked = new Marked({
  gfm: true,
  breaks: false,
  extensions: [mathBlock, mathInline],
  renderer: {
    code({ text, lang }: Tokens.Code) {
      const name = /^[\w+#.-]+/.exec(lang ?? '')?.[0] ?? '';
      return `<div class="code" data-lang="${escape(name)}"><pre><code>${highlight(text, name)}</code></pre></div>`;
    },
    table(this: any, token: Tokens.Table) {
      const cell = (c: Tokens.TableCell, tag: string) =>
        `<${tag}${c.align ? ` align="${c.align}"` : ''}>${this.parser.parseInline(c.tokens)}</${tag}>`;
      const head = token.header.map((c) => cell(c, 'th')).join('');
      const rows = token.rows.map((r) => `<tr>${r.map((c) => cell(c, 'td')).join('')}</tr>`).join('');
      return `<div class="table" tabindex="0"><table><thead><tr>${head}</tr></thead><tbody>${rows}</tbody></table></div>`;
    },
  },
});

const purify = DOMPurify(window);
purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName === 'A' && node.hasAttribute('href')) {
    node.setAttribute('target', '_blank');
    node.setAttribute('rel', 'noopener noreferrer');
  }
  // The page loads nothing from elsewhere: a picture of another host becomes a link to it.
  if (node.tagName === 'IMG' && !/^(data|blob):/.test(node.getAttribute('src') ?? '')) {
    const a = document.createElement('a');
    const src = node.getAttribute('src') ?? '';
    a.textContent = `🖼 ${node.getAttribute('alt') || src}`;
    if (/^https?:/i.test(src)) {
      a.href = src;
      a.target = '_blank';
      a.rel = 'noopener noreferrer';
    }
    node.replaceWith(a);
  }
});
const allowed = {
  ALLOWED_TAGS: [
    'a', 'b', 'blockquote', 'br', 'code', 'del', 'details', 'div', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'i', 'img', 'input', 'kbd', 'li',
    'mark', 'ol', 'p', 'pre', 's', 'small', 'span', 'strong', 'sub', 'summary', 'sup', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'u', 'ul',
  ],
  ALLOWED_ATTR: ['align', 'alt', 'checked', 'class', 'data-display', 'data-lang', 'data-tex', 'disabled', 'href', 'open', 'src', 'start', 'tabindex', 'title', 'type'],
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true as const,
};

export interface Block {
  raw: string;
  tokens: Token[];
}

// The top-level blocks of a text. A growing text may still change its last one or two.
export function blocks(text: string, unfinished: boolean): { blocks: Block[]; links: object } {
  growing = unfinished;
  const tokens = marked.lexer(text);
  const out: Block[] = [];
  for (const token of tokens) {
    if (token.type !== 'space') out.push({ raw: token.raw, tokens: [token] });
  }
  return { blocks: out, links: tokens.links };
}

export function render(block: Block, links: object): DocumentFragment {
  const tokens = Object.assign([...block.tokens], { links });
  const fragment = purify.sanitize(marked.parser(tokens as any), allowed) as unknown as DocumentFragment;
  for (const input of fragment.querySelectorAll('input')) {
    if (input.type === 'checkbox') input.disabled = true;
    else input.remove();
  }
  return fragment;
}
