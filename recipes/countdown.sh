#!/usr/bin/env bash
# Countdown with search traces (a chain tries, fails, goes back and checks): a base that has read such chains for some minutes and is mostly
# wrong, then RL with the outcome as its only reward. Ends with accuracy on held-out questions, on those for which none of 64 answers of the base is
# right, and length, steps back and checks before and after.
#   recipes/countdown.sh           nano, three numbers; then four numbers, never trained
#   recipes/countdown.sh micro     micro with an MTP module, three and four numbers
#   WELS_BASE_STEPS=400 WELS_RL_STEPS=80 recipes/countdown.sh
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
preset=${1:-nano}
out=${WELS_OUT:-out/countdown_$preset}
seed=${WELS_SEED:-1}
case $preset in
  nano) model=(--preset nano --mtp 0 --lr 3e-3) task=countdown:3 longest=360 asked=countdown:3 steps=400 rl_steps=80 items=500 ;;
  micro) model=(--preset micro --lr 2e-3) task=countdown:3-4 longest=600 asked=countdown:4 steps=500 rl_steps=60 items=200 ;;
  *) echo "$0: no settings for $preset; use nano or micro" >&2 && exit 2 ;;
esac
mkdir -p "$out"
"$wels" sft "${model[@]}" --task "$task" --p-cot 1 --batch 64 --steps "${WELS_BASE_STEPS:-$steps}" --seed "$seed" \
  --eval-every 100 --save-every 100 --sample-every 0 --out "$out/base"
"$wels" rl "$out/base" --task "$task" --max-tokens "$longest" --steps "${WELS_RL_STEPS:-$rl_steps}" --eval-every 10 --eval-items 100 --save-every 10 \
  --seed "$seed" --out "$out/zero"
answers() { # MODEL SAMPLES: greedy answers, and drawn ones
  "$wels" eval "$out/$1" --task "$asked" --items "$items" --samples "$2" --max-tokens "$longest" --answers "$out/$1.jsonl"
}
answers base 64
answers zero 16
[ "$preset" != nano ] || "$wels" eval "$out/zero" --task countdown:4 --items 200 --samples 16 --max-tokens 640
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
