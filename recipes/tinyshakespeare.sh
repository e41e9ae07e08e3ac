#!/usr/bin/env bash
# Characters of tinyshakespeare with nanoGPT's split: V3's architecture against nanoGPT's 1.4697 nats, in 30 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
data=${WELS_DATA:-../shared/data}
"$wels" pretrain "$data/tinyshakespeare.txt" --out "${WELS_OUT:-out/tinyshakespeare}" --tokenizer char --split tail \
  --depth 6 --seq 256 --batch-tokens 8192 --minutes "${WELS_MINUTES:-30}" --lr 2e-3 --weight-decay 0.3 --final-ratio 0.05 \
  --eval-every 100 --eval-sequences 0 --save-every 200 --sample-every 200 "$@"
