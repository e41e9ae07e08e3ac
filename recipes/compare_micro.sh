#!/usr/bin/env bash
# English text, preset micro, one hour each: mixture of experts against dense; balancing by bias, by loss, by nothing; MTP on and off;
# AdamW against Muon; FP8 against bf16. Two seeds. Then one report that compares them. Arguments: arms to run (all).
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
data=${WELS_DATA:-../shared/data}
out=${WELS_OUT:-out/compare_micro}
arms=("${@:-base dense balance_loss no_balance no_mtp muon fp8}")
declare -A flags=([base]="" [dense]="--dense" [balance_loss]="--bias-update 0 --balance-alpha 0.01"
                  [no_balance]="--bias-update 0 --balance-alpha 0" [no_mtp]="--mtp 0" [muon]="--optimizer muon" [fp8]="--fp8")
for seed in 1 2; do
  for arm in ${arms[*]}; do
    # shellcheck disable=SC2086
    "$wels" pretrain "$data/books_en.txt.zst" "$data/textbooks_en.txt.zst" --out "$out/$arm-$seed" --preset micro --seed "$seed" \
      --minutes "${WELS_MINUTES:-60}" --eval-every 200 --eval-sequences 256 --save-every 500 ${flags[$arm]}
  done
done
"$wels" report "$out"/*-[12] --out "$out/report.html"
