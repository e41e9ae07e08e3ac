#!/usr/bin/env bash
# Countdown with search traces (a chain tries, fails, goes back and checks): a base that has read such chains for some minutes and is
# mostly wrong, then RL with the outcome as its only reward. nano: three numbers. micro: three and four.
# Ends with accuracy on held-out questions and on those for which none of 64 answers of the base is right, for three and for four
# numbers, and with steps back, checks and length before and after.
#   WELS_BASE_STEPS=400 WELS_RL_STEPS=80 WELS_ITEMS=200 recipes/countdown.sh [nano|micro]
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
preset=${1:-nano}
out=${WELS_OUT:-out/countdown_$preset}
seed=${WELS_SEED:-1} items=${WELS_ITEMS:-200}
case $preset in
  nano) task=countdown:3 vocab=0 base_steps=400 lr=3e-3 rl_steps=80 rl_lr=2e-4 longest=360 ;;
  micro) task=countdown:3-4 vocab=275 base_steps=900 lr=2e-3 rl_steps=30 rl_lr=5e-5 longest=480 ;;
  *) echo "$0: no settings for $preset; use nano or micro" >&2 && exit 2 ;;
esac
mkdir -p "$out"
"$wels" sft --preset "$preset" --mtp 0 --vocab "$vocab" --task "$task" --p-cot 1 --batch 64 --steps "${WELS_BASE_STEPS:-$base_steps}" --lr "$lr" \
  --seed "$seed" --eval-every 100 --save-every 100 --sample-every 0 --out "$out/base"
"$wels" rl "$out/base" --task "$task" --max-tokens "$longest" --steps "${WELS_RL_STEPS:-$rl_steps}" --lr "$rl_lr" --eval-every 10 --save-every 20 --seed "$seed" --out "$out/zero"
value() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" "$1"; }
for numbers in 3 4; do
  for model in base zero; do
    samples=64
    [ $model = base ] || samples=16
    "$wels" eval "$out/$model" --task "countdown:$numbers" --items "$items" --samples "$samples" --max-tokens "$longest" --answers "$out/$model.jsonl"
    [ $model = zero ] || value "$out/base.jsonl" sampled_right >"$out/base.right"  # of 64, a line for each question
    paste "$out/base.right" <(value "$out/$model.jsonl" greedy_score) <(value "$out/$model.jsonl" sampled_right) \
      <(sed 's/.*"greedy":"//; s/","sampled".*//' "$out/$model.jsonl") |
      awk -F'\t' -v model="$model, $numbers numbers" -v k=$samples '
        {back = gsub(/back/, "", $4); check = gsub(/check/, "", $4)
         for (set = 0; set < 2; set++) if (set == 0 || $1 == 0) {n[set]++; g[set] += $2; d[set] += $3 / k; p[set] += $3 > 0; b[set] += back; c[set] += check}}
        END {split("all|those the base fails at pass@64", name, "|")
          for (set = 0; set < 2; set++) if (n[set]) printf "%s, %s (%d): greedy %.3f, drawn %.3f, pass@%d %.3f; steps back %.2f, checks %.2f\n", model, name[set + 1], n[set], g[set] / n[set], d[set] / n[set], k, p[set] / n[set], b[set] / n[set], c[set] / n[set]}'
  done
done
