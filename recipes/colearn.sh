#!/usr/bin/env bash
# Co-learning against each model alone at equal operations (teaching.md 2.3): a nano MoE and a smaller, dense Qwen2-shaped model
# of one tokenizer. Arms: alone (supervised and GRPO), A, B, A+B, A+B without GRPO, over three seeds. Ends with the table; the claim
# holds only where A+B is better than alone for BOTH models by more than two standard errors.
#   recipes/colearn.sh [ARM...]
#   WELS_GFLOP=200 WELS_ROUNDS=3 WELS_SEEDS="1 2 3" WELS_TASK=parity:16 recipes/colearn.sh
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/colearn}
task=${WELS_TASK:-parity:16} max_tokens=${WELS_MAX_TOKENS:-64}
all=(alone A B AB AB_no_rl)
arms=("$@")
[ $# -gt 0 ] || arms=("${all[@]}")
for arm in "${arms[@]}"; do
  printf '%s\n' "${all[@]}" | grep -qxF -- "$arm" || { echo "error: $arm: there is no such arm; use ${all[*]}" >&2; exit 2; }
done
declare -A channels=([alone]=C [A]=A,C [B]=B1,B2,B3,C [AB]=A,B1,B2,B3,C [AB_no_rl]=A,B1,B2,B3)
mkdir -p "$out"
: >"$out/results.txt"
learn() { "$wels" sft "$@" --task "$task" --sample-every 0 >>"$out/bases.log" 2>&1 || { tail -1 "$out/bases.log" >&2; return 1; }; }
result() { # large|small RUN: the checkpoint that a run ends with
  sed -n "s/^$1 \([^ ]*checkpoints[^ ]*\) .*/\1/p" "$out/$2.txt" | tail -1
}
measure() { # SEED ARM LARGE SMALL
  for size in large small; do
    model=$3
    [ $size = large ] || model=$4
    "$wels" eval "$model" --task "$task" --items "${WELS_ITEMS:-500}" --samples 4 --max-tokens "$max_tokens" >"$out/$2-$1.$size.eval" 2>&1 ||
      { tail -1 "$out/$2-$1.$size.eval" >&2; exit 1; }
    echo "seed $1 $2 $size $(sed -n 's/^greedy *accuracy \([0-9.]*\).*/\1/p' "$out/$2-$1.$size.eval")" \
      "$(sed -n 's/^sampled *accuracy \([0-9.]*\).*/\1/p' "$out/$2-$1.$size.eval")" | tee -a "$out/results.txt"
  done
}
for seed in ${WELS_SEEDS:-1 2 3}; do
  # Chains alone until they are right, then the mixture: both bases know the chain and mostly answer at once.
  large=$out/base-large-$seed small=$out/base-small-$seed
  learn --preset nano --mtp 0 --p-cot 1 --steps "${WELS_CHAIN_STEPS:-150}" --lr 2e-3 --seed "$seed" --out "$large-chains"
  learn "$large-chains" --p-cot 0.2 --steps 60 --lr 1e-3 --seed "$seed" --out "$large"
  tokenizer=$(ls -d "$large"/checkpoints/step-* | tail -1)
  recipes/dense_student.sh "$large" >"$out/small.json"
  learn --config "$out/small.json" --tokenizer "$tokenizer" --p-cot 1 --steps "${WELS_CHAIN_STEPS:-150}" --lr 2e-3 --seed "$seed" --out "$small-chains"
  learn "$small-chains" --p-cot 0.2 --steps 60 --lr 1e-3 --seed "$seed" --out "$small"
  measure "$seed" base "$large" "$small"
  for arm in "${arms[@]}"; do
    "$wels" colearn "$large" "$small" --task "$task" --p-cot 0.2 --channels "${channels[$arm]}" --gflop "${WELS_GFLOP:-200}" \
      --rounds "${WELS_ROUNDS:-3}" --eval-items "${WELS_ITEMS:-500}" --max-tokens "$max_tokens" --seed "$seed" --out "$out/$arm-$seed" \
      >"$out/$arm-$seed.txt" 2>&1 || { tail -1 "$out/$arm-$seed.txt" >&2; exit 1; }
    measure "$seed" "$arm" "$(result large "$arm-$seed")" "$(result small "$arm-$seed")"
  done
done
echo "arm, model, greedy, drawn: mean ± standard error over seeds"
sort -k3,4 -s "$out/results.txt" | awk '{k = $3 " " $4; if (!(k in n)) order[++m] = k; n[k]++
    for (i = 5; i <= 6; i++) {s[k, i] += $i; q[k, i] += $i * $i}}
  END {for (j = 1; j <= m; j++) {k = order[j]; printf "%-16s", k
    for (i = 5; i <= 6; i++) {a = s[k, i] / n[k]; v = n[k] > 1 ? (q[k, i] - n[k] * a * a) / (n[k] - 1) / n[k] : 0
      printf "  %.3f ± %.3f", a, sqrt(v > 0 ? v : 0)}
    print ""}}'
