#!/usr/bin/env bash
# The model in models/nano: five tasks in one nano model, from nothing. Chains of thought are learned first (every answer follows one),
# then four answers of five are given at once, so that the base's greedy answer is short and mostly wrong while the chain is known;
# reinforcement learning with the outcome as its only reward then makes it think. The vocabulary is the bytes: a node of a graph is
# the same token wherever it stands. Easier expressions and graphs come with the chains, paths most often.
#   recipes/nano_reasoner.sh          prints a table of the base and the reasoner; the model is in out/nano_reasoner/zero
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/nano_reasoner}
tasks='addition:8-12,multiplication:3,expressions:4,sorting:6,path:8'
learn() { "$wels" sft "$@" --batch 128 --eval-every 200 --save-every 200 --sample-every 0; }
learn --preset nano --vocab 275 --task 'addition:8-12,multiplication:3,expressions:1-4*2,sorting:6,path:3-8*3' --p-cot 1 --steps 3000 --lr 3e-3 --seed 1 --out "$out/chains"
learn "$out/chains" --task "$tasks" --p-cot 0.2 --steps 250 --lr 5e-4 --seed 2 --out "$out/base"
"$wels" rl "$out/base" --task "$tasks" --max-tokens 320 --steps 320 --eval-every 20 --eval-items 100 --out "$out/zero"
for model in base zero; do
  for task in addition:8 addition:12 multiplication:3 expressions:4 sorting:6 path:8 \
    addition:14 multiplication:4 expressions:6 sorting:8 path:10; do
    echo "$model $task: $("$wels" eval "$out/$model" --task $task --items 200 --samples 4 --max-tokens 400 |
      sed -n 's/^greedy */greedy /p; s/^sampled */sampled /p; s/^pass/pass/p' | tr '\n' ' ')"
  done
done
