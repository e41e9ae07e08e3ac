#!/usr/bin/env bash
# Countdown with search traces (three numbers; a chain tries, fails, goes back and checks), nano: a base that has read such chains for four
# minutes and is mostly wrong, then RL with the outcome as its only reward. Ends with accuracy on held-out questions, on those for which none of
# 64 answers of the base is right, on four numbers (never trained), and length, steps back and checks before and after.
#   WELS_BASE_STEPS=400 WELS_RL_STEPS=80 recipes/countdown.sh
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/countdown}
seed=${WELS_SEED:-1}
mkdir -p "$out"
"$wels" sft --preset nano --mtp 0 --task countdown:3 --p-cot 1 --batch 64 --steps "${WELS_BASE_STEPS:-400}" --lr 3e-3 --seed "$seed" \
  --eval-every 100 --save-every 100 --sample-every 0 --out "$out/base"
"$wels" rl "$out/base" --task countdown:3 --max-tokens 360 --steps "${WELS_RL_STEPS:-80}" --eval-every 10 --save-every 20 --seed "$seed" --out "$out/zero"
answers() { # MODEL SAMPLES: greedy answers to 500 questions, and drawn ones
  "$wels" eval "$out/$1" --task countdown:3 --items 500 --samples "$2" --max-tokens 360 --answers "$out/$1.jsonl"
}
answers base 64
answers zero 16
"$wels" eval "$out/zero" --task countdown:4 --items 200 --samples 16 --max-tokens 640
echo "model, questions: greedy, drawn; steps back and checks of a greedy answer"
value() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" "$1"; }
value "$out/base.jsonl" sampled_right >"$out/base.right"  # of 64, a line for each question
for model in base zero; do
  samples=64
  [ $model = base ] || samples=16
  paste "$out/base.right" <(value "$out/$model.jsonl" greedy_score) <(value "$out/$model.jsonl" sampled_right) \
    <(sed 's/.*"greedy":"//; s/","sampled".*//' "$out/$model.jsonl") |
    awk -F'\t' -v model=$model -v k=$samples '
      {back = gsub(/back/, "", $4); check = gsub(/check/, "", $4)
       for (set = 0; set < 2; set++) if (set == 0 || $1 == 0) {n[set]++; g[set] += $2; d[set] += $3 / k; b[set] += back; c[set] += check}}
      END {split("all|those the base fails at pass@64", name, "|")
        for (set = 0; set < 2; set++) if (n[set]) printf "%s, %s (%d): %.3f, %.3f; %.2f, %.2f\n", model, name[set + 1], n[set], g[set] / n[set], d[set] / n[set], b[set] / n[set], c[set] / n[set]}'
done
