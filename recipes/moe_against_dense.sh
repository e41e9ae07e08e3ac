#!/usr/bin/env bash
# Tokens/s of the mixture of experts against a dense model of equal active FLOPs, one run each, side by side.
set -euo pipefail
[ $# -eq 0 ] || { echo "error: $1: one argument too many; use SECONDS_EACH" >&2; exit 2; }
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
for preset in nano micro mini small; do
  "$wels" bench train --preset "$preset" --seq 256 --seconds "${SECONDS_EACH:-10}" --json
  "$wels" bench train --preset "$preset" --seq 256 --seconds "${SECONDS_EACH:-10}" --dense --json
done
