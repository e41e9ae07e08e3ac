#!/usr/bin/env bash
# Characters of tinyshakespeare with nanoGPT's split: V3's architecture against nanoGPT's 1.4697 nats, within 30 minutes on two
# cores. A million characters are read ten times, so what counts is not to learn them by heart: Muon at five times AdamW's rate
# with weight decay 1 (docs/log.md has the trials). The best checkpoint on the validation split counts, as nanoGPT's does.
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
data=${WELS_DATA:-../shared/data}
"$wels" pretrain "$data/tinyshakespeare.txt" --out "${WELS_OUT:-out/tinyshakespeare}" --tokenizer char --split tail \
  --depth 4 --seq 256 --batch-tokens 8192 --steps 1200 --mtp 0 --optimizer muon --lr 1e-2 --weight-decay 1 --final-ratio 0.05 \
  --eval-every 50 --eval-sequences 0 --save-every 200 --sample-every 200 "$@"
