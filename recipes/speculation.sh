#!/usr/bin/env bash
# What an MTP module's drafts gain: a dense model of 20 blocks (V3's attention, width 256, 13.1 M parameters) learns to sort step by
# step, character by character, for a quarter of an hour; then it writes 1,500 tokens plain, with its module's drafts (as many as pay,
# one, two and three a step) and with n-grams of its own text, in turns, at temperature 0 and 0.8 on two threads and at 0 on one. The
# texts of a temperature must be the same.
#   recipes/speculation.sh      OUT/model stays for more runs
set -euo pipefail
[ $# -eq 0 ] || { echo "error: $1: one argument too many; use WELS_MINUTES and the other variables" >&2; exit 2; }
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=${WELS_OUT:-out/speculation}
mkdir -p "$out"
model="$out/model"
if [ ! -d "$model" ]; then
  "$wels" tasks sorting:6 --count 60000 --format text --out "$out/sorting.txt"
  cat > "$out/config.json" <<'JSON'
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 27, "hidden_size": 256, "num_hidden_layers": 20,
 "intermediate_size": 592, "num_attention_heads": 8, "num_key_value_heads": 8, "q_lora_rank": 128, "kv_lora_rank": 64,
 "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "num_nextn_predict_layers": 1, "max_position_embeddings": 4096,
 "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "tie_word_embeddings": false}
JSON
  "$wels" pretrain "$out/sorting.txt" --config "$out/config.json" --tokenizer char --mtp 1 --seq 256 --batch-tokens 8192 \
    --minutes "${WELS_MINUTES:-14}" --optimizer muon --lr 8e-3 --eval-every 50 --sample-every 0 --out "$out/run"
  "$wels" export "$out/run" --folder "$model"
fi
prompt=$'--- sorting 6\nsort 46 14 29 50 20 67\n'
for case in "2 0" "2 0.8" "1 0"; do
  read -r threads temperature <<< "$case"
  for run in 1 2 3; do
    for drafts in none mtp ngram "mtp --drafts 1" "mtp --drafts 2" "mtp --drafts 3"; do
      echo "$threads threads, temperature $temperature, $drafts: $("$wels" generate "$model" --prompt "$prompt" -n "${WELS_TOKENS:-1500}" \
        --threads "$threads" --temperature "$temperature" --seed 1 --speculate $drafts 2>&1 > "$out/text.${drafts// /}" | tail -2 | tr '\n' ' ')"
      cmp "$out/text.none" "$out/text.${drafts// /}"
    done
  done
done
