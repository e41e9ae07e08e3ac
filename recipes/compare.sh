#!/usr/bin/env bash
# English text: mixture of experts against a dense model of equal active operations; balancing by bias, by loss, by nothing; MTP; Muon
# against AdamW; FP8 against bf16. Two seeds. Ends with a table and one report that compares the runs: docs/comparisons.md.
#   recipes/compare.sh [ARM...]                             preset micro, one hour each on all cores
#   WELS_PRESET=nano WELS_STEPS=600 recipes/compare.sh      an equal number of tokens instead
# Presets' rates are AdamW's; Muon wants about four times as much (WELS_MUON_LR).
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
data=${WELS_DATA:-../shared/data}
preset=${WELS_PRESET:-micro}
out=${WELS_OUT:-out/compare_$preset}
length=(--minutes "${WELS_MINUTES:-60}")
[ -z "${WELS_STEPS:-}" ] || length=(--steps "$WELS_STEPS")
all=(base dense balance_loss no_balance mtp muon fp8)
arms=("$@")
[ $# -gt 0 ] || arms=("${all[@]}")
for arm in "${arms[@]}"; do
  printf '%s\n' "${all[@]}" | grep -qxF -- "$arm" || { echo "error: $arm: there is no such arm; use ${all[*]}" >&2; exit 2; }
done
none="--mtp 0"
declare -A flags=([base]="$none" [dense]="$none --dense" [mtp]="--mtp 1"
                  [balance_loss]="$none --bias-update 0 --balance-alpha 0.01" [no_balance]="$none --bias-update 0 --balance-alpha 0"
                  [muon]="$none --optimizer muon --lr ${WELS_MUON_LR:-8e-3}" [fp8]="$none --fp8")
for seed in ${WELS_SEEDS:-1 2}; do
  for arm in "${arms[@]}"; do
    # shellcheck disable=SC2086
    "$wels" pretrain "$data/books_en.txt.zst" "$data/textbooks_en.txt.zst" --out "$out/$arm-$seed" --preset "$preset" \
      --seed "$seed" "${length[@]}" --eval-every 100 --eval-sequences 512 --save-every 500 --sample-every 0 ${flags[$arm]}
  done
done
"$wels" report "$out"/*-[0-9]* --out "$out/report.html"
