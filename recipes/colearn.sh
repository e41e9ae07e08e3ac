#!/usr/bin/env bash
# Co-learning against each model alone at equal operations (teaching.md 2.3): a large MoE and a small dense model of one tokenizer,
# arms alone (supervised and GRPO), A, B, A+B, A+B without GRPO, three seeds. Ends with the table; the claim holds only where A+B
# is better than alone for BOTH models by more than two standard errors.
#   recipes/colearn.sh [ARM...]
#   WELS_GFLOP=20000 WELS_ROUNDS=4 WELS_SEEDS="1 2 3" WELS_TASK=addition:4 recipes/colearn.sh
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/colearn}
task=${WELS_TASK:-addition:4}
arms=("$@")
[ $# -gt 0 ] || arms=(alone A B AB AB_no_rl)
declare -A channels=([alone]=C [A]=A,C [B]=B1,B2,B3,C [AB]=A,B1,B2,B3,C [AB_no_rl]=A,B1,B2,B3)
for seed in ${WELS_SEEDS:-1 2 3}; do
  # Both begin from a short supervised base; the small one takes the large one's tokenizer.
  large=$out/base-large-$seed small=$out/base-small-$seed
  "$wels" sft --preset micro --mtp 0 --task "$task" --p-cot 0.2 --steps "${WELS_BASE_STEPS:-200}" --seed "$seed" --sample-every 0 \
    --out "$large"
  "$wels" sft --preset nano --dense --mtp 0 --tokenizer "$(ls -d "$large"/checkpoints/step-* | tail -1)" --task "$task" --p-cot 0.2 \
    --steps "${WELS_BASE_STEPS:-200}" --seed "$seed" --sample-every 0 --out "$small"
  for arm in "${arms[@]}"; do
    "$wels" colearn "$large" "$small" --task "$task" --p-cot 0.2 --channels "${channels[$arm]}" --gflop "${WELS_GFLOP:-20000}" \
      --rounds "${WELS_ROUNDS:-4}" --eval-items "${WELS_ITEMS:-1000}" --seed "$seed" --out "$out/$arm-$seed" | tee "$out/$arm-$seed.txt"
  done
done
for arm in "${arms[@]}"; do
  echo "== $arm"
  for seed in ${WELS_SEEDS:-1 2 3}; do grep -E '^ +[0-9]+ ' "$out/$arm-$seed.txt" | tail -1; done
done
