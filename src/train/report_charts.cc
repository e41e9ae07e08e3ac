// The report's drawing: numbers, axes, line charts and heat maps on canvas, in plain
// JavaScript without any library. What is drawn from which metric is in report_dashboard.cc.
#include "train/report_page.h"

namespace wels {

const char* const kReportCharts = R"JS(
// ---- small helpers ----
function el(tag, attrs, ...kids) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) {
    if (k.startsWith('on'))
      e.addEventListener(k.slice(2), v);
    else if (k === 'style' || k === 'class' || k === 'for')
      e.setAttribute(k, v);
    else
      e[k] = v;
  }
  e.append(...kids);  // strings become text nodes: nothing of a run is ever read as HTML
  return e;
}
const css = name => getComputedStyle(document.body).getPropertyValue(name).trim();
const isNum = v => v !== null && v !== undefined && Number.isFinite(v);
const clamp = (v, lo, hi) => Math.min(Math.max(v, lo), hi);

// ---- numbers ----
// 4 digits; 12.35k, 4.56M above a thousand, 4.2e-4 below a hundredth.
function num(v, digits = 4) {
  if (!isNum(v)) return '–';
  const a = Math.abs(v);
  if (a === 0) return '0';
  if (a < 0.01) return v.toExponential(Math.max(digits - 2, 0)).replace(/\.?0+e/, 'e');
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let u = 0, s = v;
  while (Math.abs(s) >= 999.95 && u < 5) {
    s /= 1000;
    ++u;
  }
  let t = s.toPrecision(digits);
  if (t.includes('.')) t = t.replace(/\.?0+$/, '');
  return Number(t).toString() + units[u];
}
function duration(s) {
  if (!isNum(s)) return '–';
  if (s < 60) return num(s, 3) + 's';
  const m = Math.round(s / 60);
  if (s < 3600) return Math.floor(s / 60) + 'm' + String(Math.floor(s % 60)).padStart(2, '0') + 's';
  if (m < 2880) return Math.floor(m / 60) + 'h' + String(m % 60).padStart(2, '0') + 'm';
  return Math.floor(m / 1440) + 'd' + String(Math.round(m % 1440 / 60)).padStart(2, '0') + 'h';
}
const AXES = {
  step: {label: 'step', text: v => Math.round(v).toLocaleString('en').replace(/,/g, ' ')},
  tokens: {label: 'tokens', text: v => num(v)},
  time: {label: 'training time', text: duration},
};

// ---- scales ----
function linearTicks(lo, hi, n) {
  const raw = (hi - lo) / Math.max(n, 1);
  if (!(raw > 0)) return [lo];
  const mag = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * mag).find(s => s >= raw * 0.999);
  const out = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; ++i) {
    out.push(Number((i * step).toPrecision(12)));
  }
  return out;
}
function timeTicks(lo, hi, n) {
  const steps = [
    1,   2,    5,    10,   15,    30,    60,    120,   300,    600,
    900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800
  ];
  const step = steps.find(s => s >= (hi - lo) / n);
  if (!step || hi - lo < 3) return linearTicks(lo, hi, n);
  const out = [];
  for (let v = Math.ceil(lo / step) * step; v <= hi; v += step) out.push(v);
  return out;
}
function logTicks(lo, hi, n) {
  if (hi / lo < 4) return linearTicks(lo, hi, n).filter(v => v > 0);
  const decades = Math.log10(hi / lo), out = [];
  const marks = decades > n ? [1] : decades > n / 2.5 ? [1, 3] : [1, 2, 5];
  const stride = Math.max(1, Math.ceil(decades / n));
  for (let d = Math.floor(Math.log10(lo)); d <= Math.ceil(Math.log10(hi)); ++d) {
    if (stride > 1 && d % stride) continue;
    for (const m of marks) {
      const v = Number((m * 10 ** d).toPrecision(3));
      if (v >= lo * 0.9999 && v <= hi * 1.0001) out.push(v);
    }
  }
  return out;
}
function makeScale(lo, hi, from, to, log) {
  const f = log ? Math.log : v => v, a = f(lo), b = f(hi) - a || 1;
  return {
    lo,
    hi,
    log,
    at: v => from + (f(v) - a) / b * (to - from),
    back: p => {
      const t = a + (p - from) / (to - from) * b;
      return log ? Math.exp(t) : t;
    }
  };
}

// Exponential moving average that starts unbiased (Adam's correction); gaps are passed over.
function ema(y, weight) {
  if (!(weight > 0)) return y;
  let sum = 0, mass = 0;
  return y.map(v => {
    if (!isNum(v)) return null;
    sum = sum * weight + v * (1 - weight);
    mass = mass * weight + (1 - weight);
    return sum / mass;
  });
}
function percentile(values, p) {
  const v = values.filter(isNum).sort((a, b) => a - b);
  return v.length ? v[clamp(Math.round(p * (v.length - 1)), 0, v.length - 1)] : NaN;
}
// The index of the number nearest to x in an ascending list.
function nearest(xs, x) {
  let lo = 0, hi = xs.length - 1;
  while (hi - lo > 1) {
    const mid = (lo + hi) >> 1;
    if (xs[mid] < x)
      lo = mid;
    else
      hi = mid;
  }
  return hi >= 0 && Math.abs(xs[hi] - x) < Math.abs(xs[lo] - x) ? hi : Math.max(lo, 0);
}

// A canvas as large as its place, in device pixels; ctx draws in CSS pixels.
function fit(canvas) {
  const r = canvas.getBoundingClientRect(), k = window.devicePixelRatio || 1;
  canvas.width = Math.round(r.width * k);
  canvas.height = Math.round(r.height * k);
  const ctx = canvas.getContext('2d');
  ctx.setTransform(k, 0, 0, k, 0, 0);
  ctx.clearRect(0, 0, r.width, r.height);
  ctx.font = '11px ' + getComputedStyle(document.body).fontFamily;
  return [ctx, r.width, r.height];
}

// What all charts share. xrange: null or the zoomed part of the x axis; hover: x under the pointer.
const view = {
  axis: 'step',
  logX: false,
  smooth: 0.9,
  hover: null,
  xrange: null,
  charts: [],
  run: 0,
  layer: 0,
  snap: 1
};
function redraw() {
  for (const c of view.charts) c.draw();
}
function hoverAt(x, source) {
  view.hover = x;
  for (const c of view.charts)
    if (c.overlay) c.overlay(c === source);
}

// ---- line chart ----
// spec: title, unit, scale (values are multiplied by it), logY, stacked, zero (y starts at 0),
//   series(): [{name, color, dash, dots, run, x (steps), y, lo, hi, smooth, thin}]
class LineChart {
  constructor(host, spec) {
    this.spec = spec;
    this.logY = !!spec.logY;
    this.hidden = new Set();
    this.base = el('canvas');
    this.over = el('canvas', {class: 'over'});
    this.tip = el('div', {class: 'tip', style: 'display:none'});
    this.legend = el('div', {class: 'legend', tabIndex: 0});
    const log =
        el('button', {
          title: 'logarithmic y axis',
          onclick: () => {
            this.logY = !this.logY;
            log.classList.toggle('on', this.logY);
            this.draw();
          }
        },
           'log');
    log.classList.toggle('on', this.logY);
    this.card = el(
        'div', {class: 'card'},
        el('div', {class: 'top'}, el('h3', {}, spec.title + ' ', el('small', {}, spec.unit || '')),
           spec.stacked ? '' : log),
        el('div', {class: 'plot'}, this.base, this.over, this.tip), this.legend);
    host.append(this.card);
    this.listen();
    view.charts.push(this);
  }
  prepare() {
    const k = this.spec.scale || 1, times = a => a && a.map(v => isNum(v) ? v * k : null);
    let below = null;
    this.all = this.spec.series().map(s => {
      const y = times(s.y), weight = s.smooth && y.length > 8 ? view.smooth : 0;
      const out = {
        ...s,
        xs: axisValues(s.run, s.x),
        y,
        lo: times(s.lo),
        hi: times(s.hi),
        line: ema(y, weight),
        smoothed: weight > 0
      };
      if (this.spec.stacked) {
        out.shown = out.line;
        out.floor = below || out.line.map(() => 0);
        out.line = out.line.map((v, i) => (isNum(v) ? v : 0) + (out.floor[i] || 0));
        if (!this.hidden.has(s.name)) below = out.line;
      }
      return out;
    });
    this.list = this.all.filter(s => !this.hidden.has(s.name));
  }
  ranges() {
    let x0 = Infinity, x1 = -Infinity, y0 = this.spec.zero && !this.logY ? 0 : Infinity,
        y1 = -Infinity;
    const [zx0, zx1] = view.xrange || [-Infinity, Infinity];
    for (const s of this.list) {
      const seen = [], firm = [];
      s.xs.forEach((x, i) => {
        if (!isNum(x) || (view.logX && x <= 0)) return;
        x0 = Math.min(x0, x);
        x1 = Math.max(x1, x);
        if (x < zx0 || x > zx1) return;
        if (isNum(s.y[i]) && !(this.logY && s.y[i] <= 0)) seen.push(s.y[i]);
        if (isNum(s.line[i]) && !(this.logY && s.line[i] <= 0)) firm.push(s.line[i]);
      });
      // Outliers of the raw values may leave the frame, the line may not.
      if (s.smoothed && !this.spec.stacked) {
        y0 = Math.min(y0, percentile(seen, 0.01));
        y1 = Math.max(y1, percentile(seen, 0.99));
      }
      for (const v of firm) {
        y0 = Math.min(y0, v);
        y1 = Math.max(y1, v);
      }
      if (this.spec.stacked) y0 = 0;
    }
    if (view.xrange) [x0, x1] = view.xrange;
    if (!(y1 >= y0)) [y0, y1] = this.logY ? [0.1, 1] : [0, 1];
    if (!(x1 >= x0)) [x0, x1] = [0, 1];
    if (x1 === x0) {
      x0 -= x0 > 1 ? 1 : 0;
      x1 += 1;
    }
    if (y1 === y0) {
      const d = Math.abs(y1) * 0.1 || 1;
      y1 += d;
      if (!this.spec.zero) y0 -= this.logY ? 0 : d;
    }
    const pad = (y1 - y0) * 0.05;
    if (this.logY) {
      y0 /= 1.05;
      y1 *= 1.05;
    } else {
      if (!(this.spec.zero || this.spec.stacked)) y0 -= pad;
      y1 += pad;
    }
    return [x0, x1, y0, y1];
  }
  draw() {
    this.prepare();
    const [ctx, w, h] = fit(this.base);
    if (w < 10) return;
    const [x0, x1, y0, y1] = this.ranges();
    const left = 50, right = w - 10, top = 8, bottom = h - 34;
    const x = this.x = makeScale(x0, x1, left, right, view.logX && x0 > 0);
    const y = this.y = makeScale(y0, y1, bottom, top, this.logY);
    this.frame = {left, right, top, bottom};
    this.drawAxes(ctx, x, y);
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top - 1, right - left, bottom - top + 2);
    ctx.clip();
    for (const s of this.list) this.drawRange(ctx, s);
    for (const s of this.list) this.drawLine(ctx, s);
    ctx.restore();
    this.drawLegend();
    this.overlay(false);
  }
  drawAxes(ctx, x, y) {
    const {left, right, top, bottom} = this.frame, soft = css('--soft');
    ctx.lineWidth = 1;
    ctx.fillStyle = soft;
    ctx.strokeStyle = css('--grid');
    ctx.textAlign = 'right';
    ctx.textBaseline = 'middle';
    for (const v of (y.log ? logTicks : linearTicks)(y.lo, y.hi, 5)) {
      const p = Math.round(y.at(v)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(left, p);
      ctx.lineTo(right, p);
      ctx.stroke();
      ctx.fillText(num(v), left - 6, p);
    }
    ctx.textAlign = 'center';
    ctx.textBaseline = 'top';
    const axis = AXES[view.axis],
          ticks = x.log      ? logTicks :
        view.axis === 'time' ? timeTicks :
                               linearTicks;
    let free = -Infinity;  // labels must not touch
    for (const v of ticks(x.lo, x.hi, Math.max(2, (right - left) / 55))) {
      const p = Math.round(x.at(v)) + 0.5, text = axis.text(v),
            half = ctx.measureText(text).width / 2;
      ctx.beginPath();
      ctx.moveTo(p, top);
      ctx.lineTo(p, bottom);
      ctx.stroke();
      const at = clamp(p, left + half - 8, right - half + 8);
      if (at - half < free) continue;
      ctx.fillText(text, at, bottom + 5);
      free = at + half + 8;
    }
    ctx.textAlign = 'right';
    ctx.fillText(axis.label, right, bottom + 20);
    ctx.strokeStyle = css('--line');
    ctx.strokeRect(left + 0.5, top + 0.5, right - left, bottom - top);
  }
  // The raw values behind a smoothed line, or the range of those that were averaged.
  drawRange(ctx, s) {
    if (this.spec.stacked) {
      ctx.globalAlpha = 0.75;
      ctx.fillStyle = css(s.color);
      ctx.beginPath();
      s.xs.forEach((v, i) => ctx[i ? 'lineTo' : 'moveTo'](this.x.at(v), this.y.at(s.line[i])));
      for (let i = s.xs.length - 1; i >= 0; --i)
        ctx.lineTo(this.x.at(s.xs[i]), this.y.at(s.floor[i] || 0));
      ctx.fill();
      ctx.globalAlpha = 1;
      return;
    }
    if (s.lo && s.smooth) {
      ctx.globalAlpha = 0.15;
      ctx.fillStyle = css(s.color);
      ctx.beginPath();
      const ok = i => isNum(s.lo[i]) && isNum(s.hi[i]) && !(this.logY && s.lo[i] <= 0);
      const idx = s.xs.map((_, i) => i).filter(ok);
      idx.forEach(i => ctx.lineTo(this.x.at(s.xs[i]), this.y.at(s.hi[i])));
      idx.reverse().forEach(i => ctx.lineTo(this.x.at(s.xs[i]), this.y.at(s.lo[i])));
      ctx.fill();
      ctx.globalAlpha = 1;
    }
    if (s.smoothed && !s.thin) this.stroke(ctx, s, s.y, 1, 0.28);
  }
  drawLine(ctx, s) {
    if (this.spec.stacked) return;
    this.stroke(ctx, s, s.line, s.thin ? 1 : 1.8, s.thin ? 0.8 : 1);
    if (!s.dots || s.xs.length > 80) return;
    ctx.fillStyle = css(s.color);
    s.xs.forEach((v, i) => {
      if (!isNum(s.y[i])) return;
      ctx.beginPath();
      ctx.arc(this.x.at(v), this.y.at(s.y[i]), 2.4, 0, 7);
      ctx.fill();
    });
  }
  stroke(ctx, s, ys, width, alpha) {
    ctx.strokeStyle = s.color.startsWith('--') ? css(s.color) : s.color;
    ctx.lineWidth = width;
    ctx.globalAlpha = alpha;
    ctx.setLineDash(s.dash || []);
    ctx.lineJoin = 'round';
    ctx.beginPath();
    let pen = false;
    s.xs.forEach((v, i) => {
      const ok = isNum(ys[i]) && isNum(v) && !(this.logY && ys[i] <= 0) && !(this.x.log && v <= 0);
      if (ok) ctx[pen ? 'lineTo' : 'moveTo'](this.x.at(v), this.y.at(ys[i]));
      pen = ok;
    });
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
  }
  drawLegend() {
    const key = this.all.map(s => s.name).join('|') + css('--c0');
    if (key !== this.legendKey && this.all.length > 1) {
      this.legendKey = key;
      if (this.all.length >
          16) {  // too many to name: the colours in order; the read-out names them
        const n = this.all.length;
        this.legend.replaceChildren(
            colorBar(0, n - 1, [this.all[0].name, this.all[n - 1].name], i => lineColor(i, n)));
        return;
      }
      this.legend.replaceChildren(...this.all.map(s => {
        const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
        svg.setAttribute('width', 18);
        svg.setAttribute('height', 8);
        const line = document.createElementNS(svg.namespaceURI, 'line');
        for (const [k, v] of Object.entries({
               x1: 0,
               x2: 18,
               y1: 4,
               y2: 4,
               'stroke-width': s.thin ? 2 : 3,
               stroke: s.color.startsWith('--') ? css(s.color) : s.color,
               'stroke-dasharray': (s.dash || []).join(' ')
             }))
          line.setAttribute(k, v);
        svg.append(line);
        const item =
            el('span', {
              title: 'show or hide',
              onclick: () => {
                if (!this.hidden.delete(s.name)) this.hidden.add(s.name);
                item.classList.toggle('off', this.hidden.has(s.name));
                this.draw();
              }
            },
               svg, s.name);
        item.classList.toggle('off', this.hidden.has(s.name));
        return item;
      }));
    }
  }
  // The line under the pointer and, in the chart that it is over, the values there.
  overlay(withTip) {
    const [ctx, w] = fit(this.over);
    this.tip.style.display = 'none';
    if (!this.frame) return;
    const {left, right, top, bottom} = this.frame;
    if (this.drag) {
      ctx.globalAlpha = 0.15;
      ctx.fillStyle = css('--accent');
      ctx.fillRect(this.drag[0], top, this.drag[1] - this.drag[0], bottom - top);
      ctx.globalAlpha = 1;
    }
    if (view.hover === null) return;
    const p = this.x.at(view.hover);
    if (!(p >= left - 1 && p <= right + 1)) return;
    ctx.strokeStyle = css('--soft');
    ctx.globalAlpha = 0.6;
    ctx.beginPath();
    ctx.moveTo(p, top);
    ctx.lineTo(p, bottom);
    ctx.stroke();
    ctx.globalAlpha = 1;
    const rows = [];
    for (const s of this.list) {
      if (!s.xs.length) continue;
      const i = nearest(s.xs, view.hover), v = (s.shown || s.line)[i];
      if (!isNum(v) || view.hover > s.xs[s.xs.length - 1] * 1.02 + 1) continue;
      rows.push({s, i, v});
      if (s.thin || this.spec.stacked) continue;
      ctx.fillStyle = css(s.color);
      ctx.beginPath();
      ctx.arc(this.x.at(s.xs[i]), this.y.at(s.line[i]), 3.2, 0, 7);
      ctx.fill();
    }
    if (withTip && rows.length) this.showTip(rows, p, w);
  }
  showTip(rows, p, w) {
    const many = rows.length > 12;
    const shown = many ?
        [...rows].sort((a, b) => b.v - a.v).filter((_, i) => i < 5 || i >= rows.length - 5) :
        rows;
    const lines = shown.map(({s, i, v}) => {
      const dot = el('i', {});
      dot.style.background = s.color.startsWith('--') ? css(s.color) : s.color;
      const raw = s.smoothed && !s.shown && isNum(s.y[i]) ? `  (raw ${num(s.y[i])})` : '';
      return el('div', {}, dot, s.name + '  ', el('b', {}, num(v, 5)), raw);
    });
    if (many) lines.splice(5, 0, el('div', {}, '…'));
    const axis = AXES[view.axis];
    this.tip.replaceChildren(el('div', {}, axis.label + ' ' + axis.text(view.hover)), ...lines);
    this.tip.style.display = 'block';
    this.tip.style.left = p < w / 2 ? p + 12 + 'px' : 'auto';
    this.tip.style.right = p < w / 2 ? 'auto' : w - p + 12 + 'px';
  }
  listen() {
    const c = this.over, where = e => e.clientX - c.getBoundingClientRect().left;
    const inside = p => this.frame && p >= this.frame.left && p <= this.frame.right;
    c.addEventListener('pointermove', e => {
      const p = where(e);
      if (this.drag) this.drag[1] = clamp(p, this.frame.left, this.frame.right);
      hoverAt(inside(p) ? this.x.back(p) : null, this);
    });
    c.addEventListener('pointerleave', () => {
      if (!this.drag) hoverAt(null);
    });
    c.addEventListener('pointerdown', e => {
      const p = where(e);
      if (!inside(p)) return;
      hoverAt(this.x.back(p), this);
      if (e.pointerType !== 'mouse') return;
      this.drag = [p, p];
      c.setPointerCapture(e.pointerId);
    });
    c.addEventListener('pointerup', () => {
      const d = this.drag;
      this.drag = null;
      if (!d || Math.abs(d[1] - d[0]) < 8) return this.frame && this.overlay(true);
      view.xrange = [Math.min(...d), Math.max(...d)].map(v => this.x.back(v));
      redraw();
    });
    c.addEventListener('dblclick', () => {
      view.xrange = null;
      redraw();
    });
  }
}

// ---- heat map ----
// spec(): {rows, cols, value(r, c), color(v), rowText(r), colText(c), rowLabel, colLabel, tip(r,
// c)}
class HeatMap {
  constructor(host, height, spec) {
    this.spec = spec;
    this.base = el('canvas', {class: 'over'});
    this.tip = el('div', {class: 'tip', style: 'display:none'});
    this.plot = el('div', {class: 'plot', style: `height:${height}px`}, this.base, this.tip);
    host.append(this.plot);
    const hover = e => this.hover(e);
    this.base.addEventListener('pointermove', hover);
    this.base.addEventListener('pointerdown', hover);
    this.base.addEventListener('pointerleave', () => {
      this.tip.style.display = 'none';
    });
    view.charts.push(this);
  }
  draw() {
    const s = this.now = this.spec(), [ctx, w, h] = fit(this.base);
    if (w < 10 || !s.rows || !s.cols) return;
    const f = this.frame = {left: 46, top: 4, width: w - 56, height: h - 38};
    const cw = f.width / s.cols, rh = f.height / s.rows;
    const gap = cw > 5 && rh > 5 ? 1 : 0;
    for (let r = 0; r < s.rows; ++r) {
      for (let c = 0; c < s.cols; ++c) {
        ctx.fillStyle = s.color(s.value(r, c));
        // Cells share their borders to the pixel, so that no seams show.
        const x0 = Math.floor(f.left + c * cw), x1 = Math.floor(f.left + (c + 1) * cw);
        const y0 = Math.floor(f.top + r * rh), y1 = Math.floor(f.top + (r + 1) * rh);
        ctx.fillRect(x0, y0, Math.max(x1 - x0 - gap, 1), Math.max(y1 - y0 - gap, 1));
      }
    }
    ctx.fillStyle = css('--soft');
    ctx.textAlign = 'right';
    ctx.textBaseline = 'middle';
    const everyRow = Math.ceil(14 / rh);
    for (let r = 0; r < s.rows; r += everyRow)
      ctx.fillText(s.rowText(r), f.left - 5, f.top + (r + 0.5) * rh);
    ctx.textAlign = 'center';
    ctx.textBaseline = 'top';
    let free = -Infinity;
    for (let c = 0; c < s.cols; ++c) {
      const text = s.colText(c), half = ctx.measureText(text).width / 2,
            p = f.left + (c + 0.5) * cw;
      if (p - half < Math.max(free, f.left - 10) || p + half > w) continue;
      ctx.fillText(text, p, f.top + f.height + 5);
      free = p + half + 14;
    }
    ctx.textAlign = 'right';
    ctx.fillText(s.colLabel, w - 10, f.top + f.height + 20);
    ctx.textAlign = 'left';
    ctx.fillText('↑ ' + s.rowLabel, 4, f.top + f.height + 20);
  }
  hover(e) {
    const f = this.frame, s = this.now, r = this.base.getBoundingClientRect();
    if (!f) return;
    const px = e.clientX - r.left, py = e.clientY - r.top;
    const col = Math.floor((px - f.left) / f.width * s.cols),
          row = Math.floor((py - f.top) / f.height * s.rows);
    const inside = col >= 0 && col < s.cols && row >= 0 && row < s.rows;
    this.tip.style.display = inside ? 'block' : 'none';
    if (!inside) return;
    this.tip.textContent = s.tip(row, col);
    this.tip.style.top = clamp(py - 34, 0, r.height) + 'px';
    this.tip.style.left = px < r.width / 2 ? px + 12 + 'px' : 'auto';
    this.tip.style.right = px < r.width / 2 ? 'auto' : r.width - px + 12 + 'px';
  }
}

// ---- colours ----
function mix(a, b, t) { return a.map((v, i) => Math.round(v + (b[i] - v) * t)); }
const rgb = c => `rgb(${c[0]},${c[1]},${c[2]})`;
function hex(s) {
  return [1, 3, 5].map(
      i => parseInt(s.length === 4 ? s[(i + 1) / 2] + s[(i + 1) / 2] : s.slice(i, i + 2), 16));
}
function along(stops, t) {
  const p = clamp(t, 0, 1) * (stops.length - 1), i = Math.min(Math.floor(p), stops.length - 2);
  return rgb(mix(stops[i], stops[i + 1], p - i));
}
// Load against the fair share: 1 neutral, a quarter deep blue, four times deep red, and none at all
// unmistakable.
function loadColor(v) {
  if (!isNum(v)) return css('--grid');
  if (v <= 0) return '#d1009f';
  const t = clamp(Math.log2(v) / 2, -1, 1), mid = hex(css('--neutral'));
  return t < 0 ? along([mid, [92, 149, 221], [28, 61, 158]], -t) :
                 along([mid, [240, 150, 80], [178, 24, 43]], t);
}
// Lines that are one of many in order (layers, experts): violet to yellow, readable on light and
// dark.
function lineColor(i, n) {
  return along(
      [[94, 60, 190], [41, 110, 200], [25, 150, 140], [110, 170, 50], [214, 150, 20]],
      n > 1 ? i / (n - 1) : 0);
}
function colorBar(low, high, labels, color) {
  const stops = Array.from({length: 21}, (_, i) => color(low + (high - low) * i / 20));
  return el(
      'div', {class: 'scale'}, labels[0], el('div', {
        style:
            `width:160px;height:9px;border-radius:4px;background:linear-gradient(to right,${stops})`
      }),
      labels[1]);
}
)JS";

}  // namespace wels
