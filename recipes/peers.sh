#!/usr/bin/env bash
# wels beside llama.cpp on the same GGUF files of random weights, two threads, in turns: prompt of 512 and generation, tokens/s, and
# their ratios. Needs node 18 and 25 GB of disk; first, once: (cd bench/peers && npm install --ignore-scripts).
# PEERS="v2 tiny qwen" says which, PEERS_TYPES which types of V2-Lite (6 of its blocks).
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/peers}
threads=${THREADS:-2}
all=(v2 tiny qwen deep)
read -ra whats <<< "${PEERS:-v2 tiny qwen}"
[ $# -eq 0 ] || { echo "error: $1: one argument too many; use PEERS=\"${all[*]}\"" >&2; exit 2; }
for what in "${whats[@]}"; do
  printf '%s\n' "${all[@]}" | grep -qxF -- "$what" || { echo "error: PEERS: there is no $what; use ${all[*]}" >&2; exit 2; }
done
command -v node >/dev/null || { echo "error: node is not there; apt-get install nodejs npm" >&2; exit 2; }
[ -d bench/peers/node_modules ] ||
  { echo "error: bench/peers/node_modules: llama.cpp is not there; use (cd bench/peers && npm install --ignore-scripts)" >&2; exit 2; }
mkdir -p "$out"

# NAME SHAPE LAYERS TYPE STREAMS DEPTHS
both() {
  local file="$out/$1.gguf"
  [ -f "$file" ] || "$wels" bench infer --shape "$2" --layers "$3" --type "$4" --gguf "$file"
  node bench/peers/llama.mjs "$file" --threads "$threads" --streams "$5" --depth "$6" > "$out/$1.llama.jsonl"
  "$wels" bench infer --model "$file" --threads "$threads" --streams "$5" --depth "$6" --gen 32 --json \
    > "$out/$1.wels.jsonl"
  node bench/peers/table.mjs "$1" "$out/$1.wels.jsonl" "$out/$1.llama.jsonl"
}

for what in "${whats[@]}"; do
  case $what in
    v2) for type in ${PEERS_TYPES:-bf16 q8_0 q4_k q5_k q6_k mxfp4}; do both "v2-lite-$type" deepseek-v2-lite 6 "$type" 1 0; done ;;
    tiny) both tiny-bf16 tiny 0 bf16 1,8,32,64 0 ;;
    qwen) both qwen2-1.5b-q4_k qwen2-1.5b 0 q4_k 1,8,32 0 ;;
    deep) both v2-lite-q8_0 deepseek-v2-lite 6 q8_0 1 0,4096 ;;
  esac
done
