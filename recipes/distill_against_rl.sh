#!/usr/bin/env bash
# A small model learns from a teacher or by reinforcement learning, at equal operations (the question of the R1 paper's table F.1, in
# small): a dense student whose base gives the right answer only behind a chain, a fifth of the time.
#   sft        the teacher's right answers, learned (its answering counted)
#   on-policy  the student's own answers, every token judged by the teacher (its judging counted)
#   rl         the outcome as the only reward
# Operations: 6 N a trained token, 2 N a sampled or judged one, N: active parameters without embeddings (docs/r1.md).
#   WELS_TEACHER=models/nano WELS_TASK=addition:8 WELS_SEEDS="1 2 3" recipes/distill_against_rl.sh
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/distill_against_rl}
teacher=${WELS_TEACHER:-models/nano}
task=${WELS_TASK:-addition:8}
rl_steps=${WELS_RL_STEPS:-40} sft_steps=${WELS_SFT_STEPS:-60} own_steps=${WELS_OWN_STEPS:-40} questions=${WELS_QUESTIONS:-2000}
measure() { # NAME FOLDER
  echo "$1: $("$wels" eval "$2" --task "$task" --items 200 --samples 4 --max-tokens 160 |
    sed -n 's/^greedy */greedy /p; s/^sampled */sampled /p; s/^pass/pass/p' | tr '\n' ' ')"
}
for seed in ${WELS_SEEDS:-1 2 3}; do
  base=$out/$seed-base
  student() { "$wels" sft "$@" --task "$task" --seed "$seed" --sample-every 0; }
  # Chains alone until they are partly right, then the mixture (docs/log.md, 2026-11-28).
  student --preset nano --dense --mtp 0 --tokenizer "$teacher" --p-cot 1 --steps "${WELS_CHAIN_STEPS:-400}" --lr 3e-3 --out "$out/$seed-chains"
  student "$out/$seed-chains" --p-cot 0.2 --steps 150 --lr 5e-4 --out "$base"
  "$wels" rl "$base" --task "$task" --max-tokens 160 --steps "$rl_steps" --seed "$seed" --out "$out/$seed-rl"
  "$wels" distill "$base" --teacher "$teacher" --task "$task" --questions "$questions" --tries 1 --max-tokens 160 --steps "$sft_steps" \
    --seed "$seed" --sample-every 0 --out "$out/$seed-sft"
  "$wels" distill "$base" --mode on-policy --teacher "$teacher" --task "$task" --max-tokens 160 --steps "$own_steps" --seed "$seed" \
    --sample-every 0 --out "$out/$seed-on-policy"
  for arm in base rl sft on-policy; do measure "seed $seed, $arm" "$out/$seed-$arm"; done
done
