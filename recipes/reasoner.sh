#!/usr/bin/env bash
# The models in models/: five tasks in one model, from nothing. Chains of thought are learned first (every answer follows one),
# then four answers of five are given at once, so that the base's greedy answer is short and mostly wrong while the chain is known;
# reinforcement learning with the outcome as its only reward then makes it think. The vocabulary is the bytes: a node of a graph is
# the same token wherever it stands. Easier expressions and graphs come with the chains.
#   recipes/reasoner.sh [nano|micro]    prints a table of the base and the reasoner; the model is in out/reasoner_nano/model, in bf16
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
preset=${1:-nano}
out=${WELS_OUT:-out/reasoner_$preset}
case $preset in
  nano) chains=(--preset nano --lr 3e-3) ;;
  micro) chains=(--preset micro --mtp 0 --lr 2e-3) ;;
  *) echo "error: $preset: no settings for it; use nano, micro" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "error: $2: one argument too many; use nano or micro" >&2; exit 2; }
steps=${WELS_STEPS:-3600} more_steps=${WELS_MORE_STEPS:-1000} rl_steps=${WELS_RL_STEPS:-50}
tasks='addition:8-12,multiplication:3,expressions:4,sorting:6,path:8'
learn() { "$wels" sft "$@" --batch 64 --save-every 100 --sample-every 0; }
reward() { "$wels" rl "$@" --max-tokens 320 --steps "$rl_steps" --lr 1e-4 --eval-items 200 --eval-every 20; }
learn "${chains[@]}" --vocab 275 --task 'addition:8-12,multiplication:3,expressions:1-4*2,sorting:6*1.5,path:3-8*2' --p-cot 1 \
  --steps "$steps" --stable 0.6 --seed 1 --eval-every 300 --out "$out/chains"
learn "$out/chains" --task 'addition:8-12,multiplication:3,expressions:1-4*3,sorting:6*1.5,path:3-8*2.5' --p-cot 1 \
  --steps "$more_steps" --lr 1e-3 --stable 0.5 --seed 3 --eval-every 250 --out "$out/more"
learn "$out/more" --task 'addition:8-12*0.7,multiplication:3*0.7,expressions:2-4*4,sorting:6*1.5,path:4-8*2' --p-cot 1 \
  --steps "$more_steps" --lr 1e-3 --stable 0.5 --seed 4 --eval-every 250 --out "$out/harder"
learn "$out/harder" --task "$tasks" --p-cot 0.2 --steps 120 --lr 2e-4 --seed 2 --eval-every 300 --out "$out/base"
reward "$out/base" --task "$tasks" --out "$out/first"
reward "$out/first" --task 'addition:8-12,multiplication:3*0.5,expressions:4*2.5,sorting:6*2,path:8' --seed 5 --out "$out/zero"
rm -rf "$out/model"
"$wels" export "$out/zero" --folder "$out/model"
for model in base model; do
  for task in addition:8 addition:12 multiplication:3 expressions:4 sorting:6 path:8 \
    addition:14 multiplication:4 expressions:6 sorting:8 path:10; do
    echo "$model $task: $("$wels" eval "$out/$model" --task $task --items 200 --samples 4 --max-tokens 400 |
      sed -n 's/^greedy */greedy /p; s/^sampled */sampled /p; s/^pass/pass/p' | tr '\n' ' ')"
  done
done
