#!/usr/bin/env bash
# R1-Zero from scratch on two cores: a nano model is trained on parity so that a fifth of its answers follow a chain of thought, which
# is right, and the rest are given at once, which is no better than a coin. Reinforcement learning with the outcome as its only reward
# then makes it think. What RL does here is to make frequent what the base does at times; it does not invent the chain.
#   recipes/r1_zero.sh            the main run, seeds 1 to 3
#   recipes/r1_zero.sh controls   shares of chains from 0 to 0.6, a coin as the reward, more supervised steps with as many tokens (seed 1)
# Prints one line a run and writes reports under out/r1_zero.
set -euo pipefail
case ${1:-main} in
  main | controls) ;;
  *) echo "error: $1: there is no such arm; use main, controls" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "error: $2: one argument too many; use main or controls" >&2; exit 2; }
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/r1_zero}
task=parity:20
base_steps=${WELS_BASE_STEPS:-350} rl_steps=${WELS_RL_STEPS:-40}

base() { # NAME SEED P_COT STEPS
  "$wels" sft --preset nano --task $task --p-cot "$3" --steps "$4" --seed "$2" --sample-every 0 --save-every 1000 --out "$out/$1-base" \
    >"$out/$1-base.log" 2>&1 || { tail -1 "$out/$1-base.log" >&2; exit 1; }
}
rl() { # NAME SEED FLAG...
  local name=$1 seed=$2
  shift 2
  "$wels" rl "$out/$name-base" --task $task --max-tokens 64 --steps "$rl_steps" --seed "$seed" --out "$out/$name" "$@" \
    >"$out/$name.log" 2>&1 || {
    tail -1 "$out/$name.log" >&2
    tail -1 "$out/$name.log" | grep -q '^error: training: ' || exit 1  # a policy that collapses is a result too
  }
}
measure() { # NAME FOLDER
  "$wels" eval "$2" --task $task --items 500 --samples 8 2>"$out/eval.log" >"$out/eval" || { tail -1 "$out/eval.log" >&2; exit 1; }
  sed -n 's/^greedy */greedy /p; s/^sampled */sampled /p; s/^pass/pass/p' "$out/eval" |
    tr '\n' ' ' | sed "s|^|$1: |; s|\$|\n|"
}
run() { # NAME SEED P_COT FLAG...
  local name=$1 seed=$2 p_cot=$3 begin=$SECONDS
  shift 3
  base "$name" "$seed" "$p_cot" "$base_steps"
  local middle=$SECONDS
  rl "$name" "$seed" "$@"
  echo "$name: base $((middle - begin)) s, RL $((SECONDS - middle)) s"
  measure "$name base" "$out/$name-base"
  measure "$name R1-Zero" "$out/$name"
}

mkdir -p "$out"
if [ "${1:-main}" = controls ]; then
  for p in 0 0.02 0.05 0.1 0.4 0.6; do run "p_cot-$p" 1 "$p"; done
  run coin 1 0.2 --reward-accuracy 0 --reward-chance 1
  # RL of 40 steps draws and trains on about 40 x 256 x 20 tokens, as 90 steps of the base do.
  base more_supervised 1 0.2 $((base_steps + 90))
  measure "more supervised steps" "$out/more_supervised-base"
else
  for seed in ${WELS_SEEDS:-1 2 3}; do run "seed-$seed" "$seed" 0.2; done
fi
"$wels" report "$out"/*/ --out "$out/report.html"
