#!/usr/bin/env bash
# Countdown with search traces, three numbers (a chain tries, goes back and checks; docs/tasks.md). First the search is learned, whole;
# then, for some steps, from searches that are mostly given up at their first or second dead end ("stop", "none"), so that the base
# can search but seldom does for long. RL with the outcome as its only reward then makes it persist.
# Ends with accuracy on held-out questions and on those for which none of 64 answers of the base is right, with dead ends ("back"),
# checks and length before and after.
#   WELS_BASE_STEPS=1000 WELS_RL_STEPS=50 WELS_ITEMS=200 WELS_SEED=1 recipes/countdown.sh [nano|micro]
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
preset=${1:-nano}
out=${WELS_OUT:-out/countdown_$preset}
seed=${WELS_SEED:-1} items=${WELS_ITEMS:-200}
task=countdown:3 longest=480
case $preset in
  nano) lr=3e-3 ;;
  micro) lr=2e-3 ;;
  *) echo "error: $preset: no settings for it; use nano, micro" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "error: $2: one argument too many; use nano or micro" >&2; exit 2; }
mkdir -p "$out"
learn() { "$wels" sft "$@" --task $task --p-cot 1 --batch 64 --seed "$seed" --save-every 100 --sample-every 0; }
learn --preset "$preset" --mtp 0 --vocab 275 --steps "${WELS_BASE_STEPS:-1000}" --lr $lr --stable 0.6 --eval-every 200 --out "$out/chains"
learn "$out/chains" --p-stop 0.6 --steps 100 --lr 2e-4 --eval-every 100 --out "$out/base"
"$wels" rl "$out/base" --task $task --max-tokens $longest --steps "${WELS_RL_STEPS:-50}" --lr 1e-4 --eval-items 200 --eval-every 10 --save-every 10 \
  --seed "$seed" --out "$out/zero"
value() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" "$1"; }
for model in base zero; do
  samples=64
  [ $model = base ] || samples=16
  "$wels" eval "$out/$model" --task $task --items "$items" --samples "$samples" --max-tokens $longest --answers "$out/$model.jsonl"
  [ $model = zero ] || value "$out/base.jsonl" sampled_right >"$out/base.right"  # of 64, a line for each question
  paste "$out/base.right" <(value "$out/$model.jsonl" greedy_score) <(value "$out/$model.jsonl" sampled_right) \
    <(sed 's/.*"greedy":"//; s/","sampled".*//' "$out/$model.jsonl") |
    awk -F'\t' -v model="$model" -v k=$samples '
      {bytes = length($4); back = gsub(/back/, "", $4); check = gsub(/check/, "", $4)
       for (set = 0; set < 2; set++) if (set == 0 || $1 == 0) {n[set]++; g[set] += $2; d[set] += $3 / k; p[set] += $3 > 0; b[set] += back; c[set] += check; l[set] += bytes}}
      END {split("all|those the base fails at pass@64", name, "|")
        for (set = 0; set < 2; set++) if (n[set]) printf "%s, %s (%d): greedy %.3f, drawn %.3f, pass@%d %.3f; dead ends %.2f, checks %.2f, characters %.0f\n", model, name[set + 1], n[set], g[set] / n[set], d[set] / n[set], k, p[set] / n[set], b[set] / n[set], c[set] / n[set], l[set] / n[set]}'
done
