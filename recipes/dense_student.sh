#!/usr/bin/env bash
# The config.json of the small dense model that recipes teach: Qwen2's shape, 0.4 M parameters beside embedding and head, with the
# vocabulary of the model that teaches it.
#   recipes/dense_student.sh TEACHER    a run folder or one of its checkpoints
set -euo pipefail
[ $# -eq 1 ] || { echo "error: $# arguments; use recipes/dense_student.sh TEACHER" >&2; exit 2; }
config=$(find "$1" -name config.json 2>/dev/null | sort | tail -1) || true
[ -n "$config" ] || { echo "error: $1: no config.json in it; use a run folder or one of its checkpoints" >&2; exit 2; }
vocab=$(sed -n 's/.*"vocab_size": *\([0-9]*\).*/\1/p' "$config")
cat <<JSON
{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4,
 "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": $vocab, "max_position_embeddings": 1024, "rope_theta": 10000.0,
 "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "hidden_act": "silu"}
JSON
