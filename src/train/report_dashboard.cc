// The report's contents: which metrics are drawn together, in what units, and the
// controls. Drawing: report_charts.cc.
#include "train/report_page.h"

namespace wels {

const char* const kReportDashboard = R"JS(
const DATA = JSON.parse(document.getElementById('data').textContent);
const RUNS = DATA.runs, MULTI = RUNS.length > 1;
const PALETTE = [0, 1, 2, 3, 4, 5, 6, 7].map(i => '--c' + i);
const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]];

// The metrics that belong in one picture (names: train/metrics.h). Whatever is in none of them gets
// its own.
const CHARTS = [
  {title: 'Loss', unit: 'nats per token', names: ['main_loss', 'val_loss']},
  {title: 'Bits per byte', unit: 'of text', names: ['bits_per_byte', 'val_bits_per_byte']},
  {title: 'Loss with its parts', unit: 'nats per token', names: ['loss', 'mtp_loss']},
  {title: 'Balance loss', unit: 'weighted', names: ['balance_loss']},
  {title: 'Learning rate', unit: '', names: ['lr'], zero: true},
  {title: 'Gradient norm', unit: 'before clipping', names: ['grad_norm'], logY: true},
  {title: 'Throughput', unit: 'tokens per second', names: ['tokens_per_s'], zero: true},
  {title: 'Compute', unit: 'GFLOP/s', names: ['gflops'], zero: true},
  {title: 'Of measured peak', unit: '%', names: ['fraction_of_peak'], scale: 100, zero: true},
  {title: 'Memory', unit: 'GiB resident', names: ['rss_bytes'], scale: 1 / 2 ** 30, zero: true},
];
const LABELS = {
  main_loss: 'training',
  val_loss: 'validation',
  bits_per_byte: 'training',
  val_bits_per_byte: 'validation',
  loss: 'total',
  mtp_loss: 'MTP'
};
const NO_CHART = new Set(['tokens', 'elapsed_s', 'time']);
const EXACT = new Set(['lr', 'rss_bytes']);  // not noisy: never smoothed
const pretty = name => LABELS[name] || name.replace(/_/g, ' ');

// Steps of a run as values of the chosen x axis, by interpolation between the lines that say both.
function axisValues(run, steps) {
  if (view.axis === 'step') return steps;
  const s = RUNS[run].scalars[view.axis === 'tokens' ? 'tokens' : 'elapsed_s'];
  if (!s || !s.x.length) return steps.map(() => null);
  let j = 0;
  return steps.map(step => {
    while (j + 1 < s.x.length && s.x[j + 1] < step) ++j;
    const k = Math.min(j + 1, s.x.length - 1), span = s.x[k] - s.x[j];
    if (!span) return s.y[k];
    return s.y[j] + (s.y[k] - s.y[j]) * (step - s.x[j]) / span;
  });
}

// ---- scalars ----
function scalarSeries(names) {
  const out = [];
  RUNS.forEach((run, r) => names.forEach((name, n) => {
    const s = run.scalars[name];
    if (!s) return;
    const val = name.startsWith('val_');
    out.push({
      run: r,
      x: s.x,
      y: s.y,
      lo: s.lo,
      hi: s.hi,
      smooth: !val && !EXACT.has(name),
      dots: val,
      name: MULTI ? run.name : pretty(name),
      color: PALETTE[(MULTI ? r : n) % 8],
      dash: MULTI ? DASHES[Math.floor(r / 8) % 4] : []
    });  // more than 8 runs: colours come again
  }));
  return out;
}
function stepTimeNames() {
  return [...new Set(RUNS.flatMap(r => Object.keys(r.scalars).filter(n => n.startsWith('ms_'))))];
}
function addScalars(host) {
  const has = name => RUNS.some(r => r.scalars[name]);
  const used = new Set(NO_CHART);
  for (const chart of CHARTS) {
    chart.names.forEach(n => used.add(n));
    let names = chart.names.filter(has);
    // Without MTP and balance loss the total is the main loss, already drawn.
    if (names.length === 1 && names[0] === 'loss' && has('main_loss')) names = [];
    // One run: the curves of a picture together. Several: one picture per curve, with all runs in
    // it.
    for (const group of MULTI ? names.map(n => [n]) : names.length ? [names] : []) {
      const title = chart.title + (MULTI && names.length > 1 ? ', ' + pretty(group[0]) : '');
      new LineChart(host, {...chart, title, series: () => scalarSeries(group)});
    }
  }
  const parts = stepTimeNames();
  parts.forEach(n => used.add(n));
  if (parts.length) {
    new LineChart(host, {
      title: 'Where a step goes',
      unit: 'milliseconds',
      stacked: true,
      series: () =>
          parts.filter(n => RUNS[view.run].scalars[n]).map((n, i) => ({
                                                             ...RUNS[view.run].scalars[n],
                                                             run: view.run,
                                                             smooth: true,
                                                             name: n.slice(3).replace(/_/g, ' '),
                                                             color: PALETTE[i % 8]
                                                           }))
    });
  }
  const rest = [...new Set(RUNS.flatMap(r => Object.keys(r.scalars)))].filter(n => !used.has(n));
  for (const n of rest) {
    new LineChart(host, {title: pretty(n), unit: '', series: () => scalarSeries([n])});
  }
}

// ---- per layer, per expert ----
function rowNumbers(run) {
  const v = RUNS[run].vectors.layers;
  return v && v.v.length ? v.v[v.v.length - 1] : null;
}
const layerName = (run, r) => {
  const n = rowNumbers(run);
  return n && isNum(n[r]) ? n[r] : r;
};

function vectorSeries(name) {
  if (MULTI) {
    const worst = v => v.length ? Math[name === 'load_entropy' ? 'min' : 'max'](...v) : null;
    return RUNS
        .map((run, r) => ({run: r, name: run.name, color: PALETTE[r % 8], s: run.vectors[name]}))
        .filter(o => o.s)
        .map(o => ({...o, x: o.s.x, y: o.s.v.map(v => worst(v.filter(isNum)))}));
  }
  const s = RUNS[0].vectors[name];
  const n = Math.max(...s.v.map(v => v.length));
  return Array.from({length: n}, (_, i) => ({
                                   run: 0,
                                   x: s.x,
                                   y: s.v.map(v => v[i]),
                                   thin: n > 3,
                                   color: n > 3 ? lineColor(i, n) : PALETTE[i],
                                   name: 'layer ' + layerName(0, i),
                                   smooth: true
                                 }));
}
function addVectors(host) {
  const names = [...new Set(RUNS.flatMap(r => Object.keys(r.vectors)))].filter(n => n !== 'layers');
  for (const n of names) {
    const title = {maxvio: 'MaxVio', load_entropy: 'Entropy of load'}[n] || pretty(n);
    const what = {
      maxvio: 'most loaded expert / mean − 1',
      load_entropy: '1 even, 0 one expert alone'
    }[n] || '';
    const unit = MULTI ? 'worst layer' + (what && ', ' + what) : what;
    new LineChart(host, {title, unit, zero: n === 'maxvio', series: () => vectorSeries(n)});
  }
}

// The snapshot that the slider stands at, as a position in the table's list.
const snapOf = t => clamp(Math.round(view.snap * (t.x.length - 1)), 0, t.x.length - 1);
// Load as a multiple of the fair share, whether the run wrote that or token counts.
function fairShare(table, i, r) {
  let sum = 0;
  for (let c = 0; c < table.cols; ++c) sum += table.v[i][r * table.cols + c] || 0;
  return sum / table.cols || 1;
}
function addLoad(host) {
  const table = () => RUNS[view.run].tables.load;
  const first = RUNS.map(r => r.tables.load).find(Boolean);
  if (!first) return;
  const value = (t, i, r, c) => t.v[i][r * t.cols + c] / fairShare(t, i, r);
  const show = v => num(v, 3) + '× fair share';
  const legend = () => el(
      'div', {class: 'scale'},
      el('span',
         {style: 'width:10px;height:10px;background:#d1009f;outline:1px solid var(--line)'}),
      'dead', colorBar(-2, 2, ['¼×', '4×'], t => loadColor(2 ** t)), 'neutral: exactly its share');
  const at = el('b'), range = el('input', {
                        type: 'range',
                        min: 0,
                        max: 1,
                        step: 0.002,
                        value: view.snap,
                        oninput: e => {
                          view.snap = Number(e.target.value);
                          save();
                          redraw();
                        }
                      });
  const card = el(
      'div', {class: 'card'},
      el('h3', {}, 'Expert load ', el('small', {}, 'layers × experts, tokens routed / fair share')),
      el('div', {class: 'pick'}, el('label', {}, 'at step', range, at)));
  host.append(card);
  new HeatMap(card, clamp(first.rows * 22 + 42, 120, 420), () => {
    const t = table();
    if (!t) {
      at.textContent = 'no data in this run';
      return {rows: 0, cols: 0};
    }
    const i = snapOf(t);
    at.textContent = AXES.step.text(t.x[i]);
    return {
      rows: t.rows,
      cols: t.cols,
      value: (r, c) => value(t, i, r, c),
      color: loadColor,
      rowText: r => 'L' + layerName(view.run, r),
      colText: c => String(c),
      rowLabel: 'layer',
      colLabel: 'expert',
      tip: (r, c) => `layer ${layerName(view.run, r)}, expert ${c}: ${show(value(t, i, r, c))}`
    };
  });
  card.append(legend());
  const over =
      el('div', {class: 'card'},
         el('h3', {}, 'Expert load over time ', el('small', {}, 'one layer: experts × steps')),
         layerPicker('load'));
  host.append(over);
  new HeatMap(over, clamp(first.cols * 7 + 42, 160, 420), () => {
    const t = table();
    if (!t) return {rows: 0, cols: 0};
    const r = Math.min(view.layer, t.rows - 1);
    return {
      rows: t.cols,
      cols: t.x.length,
      value: (e, i) => value(t, i, r, e),
      color: loadColor,
      rowText: e => String(e),
      colText: i => AXES.step.text(t.x[i]),
      rowLabel: 'expert',
      colLabel: 'step',
      tip: (e, i) => `step ${AXES.step.text(t.x[i])}, expert ${e}: ${show(value(t, i, r, e))}`
    };
  });
  over.append(legend());
}

function layerPicker(name) {
  const rows = Math.max(...RUNS.map(r => r.tables[name] ? r.tables[name].rows : 0));
  const pick =
      el('select', {
        class: 'layer',
        onchange: e => {
          view.layer = Number(e.target.value);
          document.querySelectorAll('select.layer').forEach(s => {
            s.value = view.layer;
          });
          save();
          redraw();
        }
      },
         ...Array.from(
             {length: rows}, (_, r) => el('option', {value: r}, String(layerName(view.run, r)))));
  pick.value = view.layer;
  return el('div', {class: 'pick'}, el('label', {}, 'layer', pick));
}

// Tables other than the load: one line per column of the chosen row (a layer's experts).
function addTables(host) {
  const names = [...new Set(RUNS.flatMap(r => Object.keys(r.tables)))].filter(n => n !== 'load');
  for (const n of names) {
    const title = n === 'bias' ? 'Selection bias' : pretty(n);
    const chart = new LineChart(host, {
      title,
      unit: 'one line per expert of the layer',
      series: () => {
        const t = RUNS[view.run].tables[n];
        if (!t) return [];
        const r = Math.min(view.layer, t.rows - 1);
        return Array.from({length: t.cols}, (_, c) => ({
                                              run: view.run,
                                              x: t.x,
                                              thin: true,
                                              y: t.v.map(v => v[r * t.cols + c]),
                                              color: lineColor(c, t.cols),
                                              name: 'expert ' + c
                                            }));
      }
    });
    chart.card.insertBefore(layerPicker(n), chart.card.children[1]);
  }
}

// ---- samples ----
function addTexts(host) {
  const names = [...new Set(RUNS.flatMap(r => Object.keys(r.texts)))];
  for (const n of names) {
    const lists = RUNS.map(r => r.texts[n] || []);
    const last = Math.max(...lists.map(l => l.length ? l[l.length - 1][0] : 0));
    const steps = [...new Set(lists.flat().map(t => t[0]))].sort((a, b) => a - b);
    if (!steps.length) continue;
    const at = el('b'), cards = el('div', {class: 'samples'});
    const show = i => {
      at.textContent = AXES.step.text(steps[i]);
      cards.replaceChildren(...RUNS.map((run, r) => {
        const upTo = lists[r].filter(t => t[0] <= steps[i]);
        if (!upTo.length) return '';
        const [step, text] = upTo[upTo.length - 1];
        return el(
            'div', {class: 'card'},
            el('h3', {}, (MULTI ? run.name + ' ' : ''),
               el('small', {}, 'step ' + AXES.step.text(step))),
            el('pre', {}, text));
      }));
    };
    const range = el('input', {
      type: 'range',
      min: 0,
      max: steps.length - 1,
      step: 1,
      value: steps.length - 1,
      style: 'width:220px',
      oninput: e => show(Number(e.target.value))
    });
    host.append(
        el('h2', {}, n === 'sample' ? 'What the model writes' : pretty(n)),
        el('div', {class: 'pick'}, el('label', {}, 'at step', range, at)), cards);
    show(steps.length - 1);
  }
}

// ---- controls; they outlive the reload of a running run's page ----
function save() {
  const {axis, logX, smooth, run, layer, snap} = view;
  try {
    sessionStorage.setItem('wels' + location.pathname, JSON.stringify({
      axis,
      logX,
      smooth,
      run,
      layer,
      snap,
      dark: document.documentElement.className,
      live: view.live
    }));
  } catch (e) { /* pages from disk may not store: then the controls start afresh */
  }
}
function load() {
  try {
    const s = JSON.parse(sessionStorage.getItem('wels' + location.pathname) || '{}');
    const dark = s.dark;
    delete s.dark;
    Object.assign(view, s);
    view.run = clamp(view.run, 0, RUNS.length - 1);
    return dark;
  } catch (e) { return undefined; }
}
function addControls(host) {
  const change = set => e => {
    set(e.target);
    save();
    view.xrange = null;
    redraw();
  };
  const axes = ['step', 'tokens', 'time'].filter(
      a => a === 'step' || RUNS.some(r => r.scalars[a === 'tokens' ? 'tokens' : 'elapsed_s']));
  if (!axes.includes(view.axis)) view.axis = 'step';
  const axis =
      el('select', {
        onchange: change(t => {
          view.axis = t.value;
        })
      },
         ...axes.map(a => el('option', {value: a}, AXES[a].label)));
  axis.value = view.axis;
  const smooth = el('input', {
    type: 'range',
    min: 0,
    max: 0.99,
    step: 0.01,
    value: view.smooth,
    oninput: change(t => {
      view.smooth = Number(t.value);
    })
  });
  const log = el('input', {
    type: 'checkbox',
    checked: view.logX,
    onchange: change(t => {
      view.logX = t.checked;
    })
  });
  const tools =
      el('div', {class: 'tools'}, el('label', {}, 'x axis', axis), el('label', {}, log, 'log x'),
         el('label', {}, 'smoothing', smooth));
  if (MULTI) {
    const run =
        el('select', {
          onchange: change(t => {
            view.run = Number(t.value);
          })
        },
           ...RUNS.map((r, i) => el('option', {value: i}, r.name)));
    run.value = view.run;
    tools.append(
        el('label', {title: 'for the step time, the experts and the biases'}, 'details of', run));
  }
  if (RUNS.some(r => r.status === 'running')) {
    if (view.live === undefined) view.live = true;
    tools.append(
        el('label', {title: 'load the page again every 30 seconds'}, el('input', {
             type: 'checkbox',
             checked: view.live,
             onchange: e => {
               view.live = e.target.checked;
               save();
             }
           }),
           'live'));
    setInterval(() => {
      if (view.live && !document.hidden) {
        save();
        location.reload();
      }
    }, 30000);
  }
  tools.append(
      el('button', {
        onclick: () => {
          document.documentElement.classList.toggle('dark');
          save();
          redraw();
        }
      },
         'light / dark'),
      el('span', {style: 'color:var(--soft);font-size:12px'},
         'drag across a plot to zoom, double-click to go back'));
  host.append(tools);
}

const page = document.getElementById('plots');
const savedTheme = load();
if (savedTheme === undefined ? matchMedia('(prefers-color-scheme: dark)').matches :
                               savedTheme === 'dark') {
  document.documentElement.className = 'dark';
}
addControls(page);
const curves = el('div', {class: 'grid'});
page.append(el('h2', {}, 'Curves'), curves);
addScalars(curves);
const experts = el('div', {class: 'grid'});
addLoad(experts);
addVectors(experts);
addTables(experts);
if (experts.children.length) page.append(el('h2', {}, 'Experts'), experts);
addTexts(page);
if (!RUNS.some(r => Object.keys(r.scalars).length))
  page.append(el('p', {}, 'No step is done yet.'));
redraw();
let resized = 0;
new ResizeObserver(() => {
  cancelAnimationFrame(resized);
  resized = requestAnimationFrame(redraw);
}).observe(page);
)JS";

}  // namespace wels
