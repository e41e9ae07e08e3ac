// A model as llama.cpp expects it in a GGUF file: architecture deepseek2 (V2, V2-Lite, V3, R1),
// qwen2 and llama. Metadata keys, tensor names and layouts are those that llama.cpp's converter
// writes:
//
//   - kv_b_proj is split per head into attn_k_b, transposed to [h, r, dn] (what absorbed attention
//   multiplies the query by),
//     and attn_v_b [h, dv, r]; heads of key and value then count as one head of width r + dr and r;
//   - a layer's experts are stacked to ffn_{gate,up,down}_exps [e, out, in]; shared experts are
//   ffn_*_shexp;
//   - router weights and everything one-dimensional stay float32;
//   - DeepSeek's RoPE rotates neighbouring pairs in both worlds: nothing is permuted. Llama's q and
//   k rows are, from halves
//     to neighbouring pairs; Qwen2's are not (llama.cpp rotates halves there);
//   - rope.scaling.yarn_log_multiplier is 0.1 · mscale_all_dim; llama3 scaling becomes a tensor
//   rope_freqs of divisors;
//   - MTP modules are blocks L, L + 1, ... with nextn.* tensors, counted in block_count, as the
//   converter writes them for
//     the DeepSeek models whose MTP it keeps. llama.cpp v0.5.0 loads such deepseek2 files and
//     generates without MTP; readers that know nothing of nextn refuse them: include_mtp = false.
//
// Files of all golden models (F32) were run in llama.cpp v0.5.0 with a float32 cache: the 2 x 32
// greedy tokens of each came out the same, but for V2 with group-limited routing, whose groups
// llama.cpp scores by the sum of their two best experts (V3's rule) and V2 by the best one.
// Measured 2026-11-24.
//
// Source: llama.cpp, conversion/deepseek.py (DeepseekV2Model), gguf-py/gguf/constants.py and
// tensor_mapping.py, 2026.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/model_config.h"

namespace wels {

// A key of wels's own, written where it is false: what MTP reads (config.json's "wels").
inline constexpr const char* kGgufMtpAfterNorm = "wels.mtp_hidden_after_norm";

// How a GGUF tensor comes from Hugging Face's.
enum class GgufTransform {
  kCopy,         // the one tensor named
  kStack,        // all of them, one after another
  kKeysOfKvB,    // dn rows of each head of kv_b_proj, transposed
  kValuesOfKvB,  // dv rows of each head of kv_b_proj
  kPairRows,     // rows of each head reordered from rotated halves to rotated pairs
  kRopeFactors,  // computed from the config
};

struct GgufTensorPlan {
  std::string name;            // "blk.3.attn_k_b.weight"
  std::vector<int64_t> shape;  // slowest first
  GgufTransform transform = GgufTransform::kCopy;
  std::string source;           // HF name; of a stack with "{}" for the number, shape[0] of them
  int64_t heads = 0;            // of the transforms that work per head
  bool full_precision = false;  // F32 whatever the file's type
};

// How deepseek2 files hold kv_b_proj: split as said above, or as it is (before April 2025).
enum class GgufKvB { kSplit, kWhole };

// Every tensor of the file, with its shape and where it comes from: the one table of names, for
// writing and for reading (gguf_checkpoint.h). cfg must be valid.
std::vector<GgufTensorPlan> gguf_tensor_plan(const ModelConfig& cfg, bool include_mtp,
                                             GgufKvB kv_b = GgufKvB::kSplit);
// HF name of part i of a plan's tensor; i is 0 but for stacks.
std::string gguf_source_name(const GgufTensorPlan& plan, int64_t i);

// The tensor rope_freqs of a model with llama3 scaling: what each of its head_dim / 2 frequencies
// is divided by.
std::vector<float> gguf_rope_factors(const ModelConfig& cfg);

// The tokenizer's part of a file, as llama.cpp's byte-level BPE wants it.
struct GgufTokenizer {
  std::string pre;  // pre-tokenizer: "deepseek-llm", "deepseek-v3", "qwen2", "llama-bpe", ...
  std::vector<std::string> tokens;  // by id, byte-level text
  std::vector<int32_t> types;  // 1 normal, 3 control, 4 user defined, 5 unused; parallel to tokens
  std::vector<std::string> merges;  // "left right", by rank
  std::optional<int32_t> bos, eos, pad;
  std::optional<bool> add_bos;  // llama.cpp puts bos before every text; not said: left out
  std::string chat_template;    // Jinja; empty: none
};

struct GgufMetadataOptions {
  std::string name = "wels";  // general.name
  uint32_t file_type = 0;     // general.file_type (quant_mix.h)
  bool include_mtp = true;    // counts the MTP modules too, where the model has them
};

// The metadata of cfg, in the converter's order. tokenizer nullptr: tokenizer.ggml.model is "none"
// (llama.cpp then takes token ids only). Throws Error where the architecture cannot express cfg
// (MoE in every other layer, MoE without shared experts, ...).
GgufMetadata gguf_metadata(const ModelConfig& cfg, const GgufTokenizer* tokenizer,
                           const GgufMetadataOptions& options);

}  // namespace wels
