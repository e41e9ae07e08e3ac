// The report's style sheet. Colours are variables so that the scripts draw with what
// the page shows, light or dark.
#include "train/report_page.h"

namespace wels {

const char* const kReportStyle = R"CSS(
:root {
  --bg: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #667085; --line: #e3e6ec; --grid: #eceef2;
  --accent: #3b62d6; --ok: #187a41; --warn: #b06d00; --bad: #c4332b; --neutral: #f3f1ea;
  --c0: #3b62d6; --c1: #e5812b; --c2: #2a9d6f; --c3: #d1495b; --c4: #8a5cd1; --c5: #1f9fbc;
  --c6: #b5890f; --c7: #d45fa5;
}
.dark {
  --bg: #12151b; --card: #1a1f28; --ink: #e6e9ef; --soft: #98a2b3; --line: #2c3340; --grid: #262c37;
  --accent: #7d9cff; --ok: #4cc484; --warn: #e5aa4a; --bad: #ff7b72; --neutral: #2d3038;
  --c0: #7d9cff; --c1: #ff9d4d; --c2: #4cc99a; --c3: #ff7f8e; --c4: #b895ff; --c5: #4fc8e3;
  --c6: #e0b83f; --c7: #f38fc8;
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 12px; max-width: 1500px; background: var(--bg); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px;
  min-width: 0;
}
h1 { font-size: 20px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 22px 2px 8px; }
h3 { font-size: 14px; margin: 0; font-weight: 600; }
h3 small { color: var(--soft); font-weight: 400; font-size: 12px; }
.dates, footer { color: var(--soft); font-size: 12px; margin: 0 0 8px; }
footer { margin: 18px 2px 4px; }
.badge {
  font-size: 12px; font-weight: 500; padding: 1px 8px; border-radius: 9px; vertical-align: 2px;
  border: 1px solid currentColor; color: var(--soft); overflow-wrap: anywhere;
}
.badge.running { color: var(--accent); }
.badge.finished { color: var(--ok); }
.badge.stopped { color: var(--warn); }
.badge.failed { color: var(--bad); }
.bar { height: 5px; border-radius: 3px; background: var(--grid); margin: 6px 0 10px; }
.bar div { height: 100%; border-radius: 3px; background: var(--accent); }
.facts { display: flex; flex-wrap: wrap; gap: 8px 26px; margin: 6px 0 10px; }
.facts b { display: block; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts span { color: var(--soft); font-size: 12px; }
.facts div { min-width: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); font-size: 13px; }
.tables { display: grid; gap: 6px 28px; margin-top: 8px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
table { border-collapse: collapse; font-size: 13px; width: 100%; align-self: start; }
caption { text-align: left; font-weight: 600; padding: 2px 0; }
.tables th, .tables td { text-align: left; font-weight: 400; padding: 2px 0;
  border-top: 1px solid var(--grid); vertical-align: top; }
th { color: var(--soft); white-space: nowrap; }
.tables th { padding-right: 12px; width: 40%; white-space: normal; }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
.compare { width: auto; }
.compare th, .compare td { text-align: left; font-weight: 400; padding: 3px 18px 3px 0;
  border-top: 1px solid var(--grid); overflow-wrap: normal; }
.compare .sub th { font-weight: 600; color: var(--ink); padding-top: 12px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px; }
.tools {
  position: sticky; top: 0; z-index: 5; display: flex; flex-wrap: wrap; gap: 4px 14px;
  align-items: center; padding: 8px 2px; background: var(--bg); font-size: 13px;
}
.tools label, .pick label { display: inline-flex; gap: 6px; align-items: center;
  color: var(--soft); max-width: 100%; }
select, button {
  max-width: 100%; min-width: 0;
  font: inherit; font-size: 12px; color: var(--ink); background: var(--card); cursor: pointer;
  border: 1px solid var(--line); border-radius: 6px; padding: 2px 7px;
}
button.on { color: var(--accent); border-color: var(--accent); }
input[type=range] { width: 110px; accent-color: var(--accent); }
input[type=checkbox] { accent-color: var(--accent); }
.grid { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); }
.top { display: flex; justify-content: space-between; gap: 8px; align-items: baseline; }
.plot { position: relative; height: 230px; margin-top: 6px; }
.plot canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.plot canvas.over { touch-action: pan-y; cursor: crosshair; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 12px; margin-top: 4px;
  max-height: 76px; overflow-y: auto; }
.legend span { cursor: pointer; display: inline-flex; min-width: 0; align-items: center; gap: 5px;
  overflow-wrap: anywhere; }
.legend .off { opacity: .35; }
.legend svg { flex: none; }
.tip {
  position: absolute; top: 4px; pointer-events: none; z-index: 3; font-size: 12px; padding: 5px 8px;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; max-width: 75%;
  box-shadow: 0 2px 8px #0003; font-variant-numeric: tabular-nums;
  white-space: nowrap; overflow: hidden;
}
.tip b { font-weight: 600; }
.tip i { display: inline-block; width: 8px; height: 8px; border-radius: 4px; margin-right: 5px; }
.pick { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; font-size: 13px;
  margin: 6px 0 2px; }
.scale { display: flex; align-items: center; gap: 8px; font-size: 12px; color: var(--soft);
  margin-top: 6px; }
.samples h3, .top h3 { min-width: 0; overflow-wrap: anywhere; }
.samples { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); }
pre { margin: 8px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 360px;
  overflow-y: auto; font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (max-width: 600px) {
  body { padding: 8px; } .tools { position: static; } .plot { height: 200px; }
}
@media print { .tools { display: none; } .card { break-inside: avoid; } }
)CSS";

}  // namespace wels
