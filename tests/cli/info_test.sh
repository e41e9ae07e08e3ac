#!/usr/bin/env bash
# wels info: the published sizes from a config.json of their dimensions, and one model told the same by every kind of
# checkpoint it can be in.
. "$(dirname "$0")/common.sh"
golden=$(realpath -m "${WELS_GOLDEN:-../shared/golden}")/models
cd "$scratch"

# expect PATTERN PATH: wels info PATH prints a line that matches.
expect() {
  "$wels" info "$2" >out.log 2>err.log || { cat err.log; fail "wels info $2"; }
  grep -qE -- "$1" out.log || { cat out.log; fail "no line with '$1': wels info $2"; }
}

deepseek='"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "kv_lora_rank": 512, "moe_layer_freq": 1,
  "max_position_embeddings": 163840, "rms_norm_eps": 1e-06, "rope_theta": 10000, "torch_dtype": "bfloat16"'
cat > v3.json <<END
{"architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 129280, "hidden_size": 7168, "num_hidden_layers": 61,
 "intermediate_size": 18432, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
 "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
 "first_k_dense_replace": 3, "n_group": 8, "topk_group": 4, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
 "norm_topk_prob": true, "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 1, $deepseek}
END
cat > v2_lite.json <<END
{"architectures": ["DeepseekV2ForCausalLM"], "vocab_size": 102400, "hidden_size": 2048, "num_hidden_layers": 27,
 "intermediate_size": 10944, "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": null,
 "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
 "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "scoring_func": "softmax", "topk_method": "greedy",
 "norm_topk_prob": false, "routed_scaling_factor": 1.0, $deepseek}
END
expect 'parameters: 671,026,4[0-9]{2},[0-9]{3} total, 37,5[0-9]{2},[0-9]{3},[0-9]{3} active' v3.json
expect 'weights +2\.4[0-9] TiB +2\.4[0-9] TiB' v3.json  # f32, 685 G with MTP
# FP8 counts as such: 671 G of a byte each with MTP, and 1.8 G of embedding and head of two.
sed 's/"torch_dtype"/"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}, &/' v3.json > v3_fp8.json
expect 'beside 6[0-9]{2} GiB of the file' v3_fp8.json
expect 'beside 1\.2[0-9] TiB of the file' v3.json
expect 'free .*it does not fit: use a smaller model' v3_fp8.json
expect 'parameters: 15,70[0-9],[0-9]{3},[0-9]{3} total, 2,6[0-9]{2},[0-9]{3},[0-9]{3} active' v2_lite.json

seq 1 3000 | sed 's/$/ is a number of no importance/' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 1 \
  --sample-every 0 >/dev/null 2>&1 || fail "pretrain"
checkpoint=$(ls -d run/checkpoints/step-*)
"$wels" export run --gguf run.gguf --type f32 --mtp >/dev/null
"$wels" info run | grep '^parameters:' > want.log
cp run.gguf noext; cp run.gguf A.GGUF
for path in "$checkpoint" "$checkpoint/config.json" "$checkpoint/model.safetensors" run.gguf noext A.GGUF; do
  expect '^  total' "$path"
  grep '^parameters:' out.log | diff want.log - || fail "wels info $path counts otherwise"
done
cp "$checkpoint/model.safetensors" alone.safetensors

# A CPU without AVX2: plain loops where none was asked for, said once; asked for, an error.
WELS_ISA=none "$wels" generate run hello -n 2 --temperature 0 >plain.log 2>err.log || { cat err.log; fail "without AVX2"; }
"$wels" generate run hello -n 2 --temperature 0 --device ref 2>/dev/null | cmp - plain.log || fail "not what ref writes"
[ "$(grep -c 'this CPU has no AVX2 with FMA: computing in plain loops' err.log)" -eq 1 ] || { cat err.log; fail "no note"; }
code=0; WELS_ISA=none "$wels" generate run hello -n 2 --device cpu >/dev/null 2>err.log || code=$?
[ "$code" -eq 2 ] && grep -q 'error: cpu: this CPU has no AVX2 with FMA; use --device ref' err.log || { cat err.log; fail "--device cpu"; }
expect '^values: ' alone.safetensors

for model in "$golden"/*/; do
  [ -f "$model/config.json" ] || continue
  expect '^parameters: ' "$model"
  expect '^  total' "$model"
done
echo "passed"
