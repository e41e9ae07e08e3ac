#!/usr/bin/env bash
# Training throughput of the presets as a share of the bf16 peak measured in the same run: the table of the README.
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
for preset in nano micro mini small; do
  for seq in 256 1024; do
    "$wels" bench train --preset "$preset" --seq "$seq" --seconds "${SECONDS_EACH:-10}" --json "$@"
  done
done
