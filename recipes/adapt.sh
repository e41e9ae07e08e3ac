#!/usr/bin/env bash
# A domain model of two cores: a small general model of classic books, then the world's countries (the CIA's World Factbook, public
# domain) with replay of the books and without, and with adapters. The same command again goes on where it was stopped.
#   recipes/adapt.sh DATA [FLAGS OF wels adapt]     DATA has books_en.txt.zst and factbook_en.jsonl.zst
set -euo pipefail
[ $# -ge 1 ] || { echo "error: no folder of the corpora; use recipes/adapt.sh DATA" >&2; exit 2; }
for corpus in books_en.txt.zst factbook_en.jsonl.zst; do
  [ -r "$1/$corpus" ] || { echo "error: $1/$corpus: no such corpus; use a folder that has it" >&2; exit 2; }
done
command -v zstd >/dev/null || { echo "error: zstd is not there; apt-get install zstd" >&2; exit 2; }
data=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/adapt}
mkdir -p "$out"
# 12 MB of books to learn from and repeat, the 2 MB behind them to measure by.
[ -s "$out/general.txt" ] || {
  zstd -dc "$data/books_en.txt.zst" 2>/dev/null | head -c 12000000 > "$out/books.txt" || true  # stopped by head
  zstd -dc "$data/books_en.txt.zst" 2>/dev/null | tail -c +12000001 | head -c 200000 > "$out/general.part" || true
  [ -s "$out/general.part" ] || { echo "error: $data/books_en.txt.zst: no 12 MB of text; is it whole? use another copy" >&2; exit 2; }
  mv "$out/general.part" "$out/general.txt"
}
"$wels" pretrain "$out/books.txt" --preset nano --vocab 2048 --minutes "${WELS_MINUTES:-2}" --sample-every 0 --out "$out/base"
common=("$out/base" "$data/factbook_en.jsonl.zst" --general "$out/general.txt" --seq 256 --steps "${WELS_STEPS:-80}" --batch 16 --lr 1e-3)
"$wels" adapt "${common[@]}" --replay "$out/books.txt" --out "$out/replay" "$@"
"$wels" adapt "${common[@]}" --out "$out/own" "$@"
"$wels" adapt "${common[@]}" --replay-share 0 --out "$out/none" "$@"
"$wels" adapt "${common[@]}" --replay "$out/books.txt" --lora 16 --out "$out/lora" "$@"
