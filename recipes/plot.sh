#!/usr/bin/env bash
# A run's curves as an SVG for the documents: a panel for each pair of a label and columns of metrics.jsonl, over the steps. Columns that
# stand in every step are means of five of them.
#   recipes/plot.sh OUT.svg TITLE RUN LABEL COLUMN[,COLUMN...] [LABEL COLUMN[,COLUMN...]]...
# Needs gnuplot (Debian: gnuplot-nox) and python3. docs/plots/README.md has the commands that made what is there.
set -euo pipefail
[ $# -ge 5 ] && [ $(($# % 2)) = 1 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
[ -r "$3/metrics.jsonl" ] || { echo "error: $3: no metrics.jsonl in it; name a run's folder" >&2; exit 2; }
command -v gnuplot >/dev/null || { echo "error: gnuplot is not there; apt-get install gnuplot-nox" >&2; exit 2; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 - "$tmp" "${@:2}" <<'PY'
import json, os, sys
tmp, title, run, *panels = sys.argv[1:]
path = os.path.join(run, "metrics.jsonl")
rows = [json.loads(line) for line in open(path)]
n = len(panels) // 2
script = [f'set terminal svg size {420 * n},360 font "sans,12" background "white"', f'set output "{tmp}/plot.svg"',
          'set grid lc rgb "#dddddd"', 'set key outside bottom center horizontal', 'set xlabel "step"', 'set yrange [0:*]',
          f'set multiplot layout 1,{n} title "{title}"']
for i, (label, columns) in enumerate(zip(panels[::2], panels[1::2])):
    columns = columns.split(",")
    curves = []
    for column in columns:
        points = [(r["step"], r[column]) for r in rows if column in r]
        if not points: sys.exit(f"error: {path}: no {column}")
        seldom = len(points) < len(rows) / 2
        if not seldom:
            values = [y for _, y in points]
            means = [sum(values[max(0, k - 4):k + 1]) / min(5, k + 1) for k in range(len(values))]
            points = [(x, mean) for (x, _), mean in zip(points, means)]
        data = f"{tmp}/{i}_{column}"
        open(data, "w").write("".join(f"{x} {y:.4g}\n" for x, y in points))
        common = os.path.commonprefix(columns) if len(columns) > 1 else ""
        name = column[common.rfind("_") + 1:]  # without the words that all of the panel begin with
        curves.append(f'"{data}" with {"linespoints pt 7 ps 0.4" if seldom else "lines"} lw 1.5 title "{name}" noenhanced')
    script += [f'set ylabel "{label}"', "plot " + ", ".join(curves)]
open(f"{tmp}/script", "w").write("\n".join(script) + "\n")
PY
gnuplot "$tmp/script"
mkdir -p "$(dirname "$1")"
cp "$tmp/plot.svg" "$1"
