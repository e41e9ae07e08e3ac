// A GGUF file read as what it was converted from: the model's config, and its weights under Hugging
// Face's names and in Hugging Face's layout. The mapping is the exporter's (gguf_deepseek.h), read
// backwards. Nearly everything stays where it is in the mapped file, experts as slices of their
// stack; copies are made of
//
//   - attn_k_b and attn_v_b, joined again to kv_b_proj: keys lie transposed, so their blocks must
//     be decoded, as gguf_joined_type says (DeepSeek-V3 quantised: 2 GB). Older files with
//     attn_kv_b need none;
//   - Llama's q and k, whose rows go back from rotated pairs to rotated halves: bytes in the type
//     they have, 8 % of an 8B model. (Rotating pairs instead would need no copy, but would sum the
//     scores in another order.)
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/model_config.h"
#include "tensor/dtype.h"

namespace wels {

// The config that a GGUF file's metadata describe; valid. What GGUF does not hold has its default.
// Files of before August 2025 do not say which groups the experts form: V3's and V2's are told from
// the number of experts, with a line in the log. Llama 3's RoPE scaling is found again from
// rope_freqs. Throws Error: another architecture, missing keys, dimensions that do not fit, and
// what wels does not compute (sliding windows, experts in a Llama, ...).
ModelConfig gguf_model_config(const GgufContent& file);

// As what attn_k_b and attn_v_b are joined: of one plain type, as that; of quantised ones as f16,
// whose rounding (2^-11) is far below theirs; else as f32.
DType gguf_joined_type(DType keys, DType values);

// The weights of cfg in a file. Entries point into the file's bytes or into `copies`.
struct GgufWeights {
  std::vector<TensorEntry> tensors;
  std::vector<std::shared_ptr<void>> copies;
};
// Throws Error naming the tensor as the file does: missing or of another shape (with the shape that
// cfg asks for), of a type that is no weight, or without a place in the model.
GgufWeights gguf_weights(const GgufContent& file, const ModelConfig& cfg);

// An opened file, or the first of several parts; memory-mapped.
class GgufCheckpoint {
 public:
  explicit GgufCheckpoint(const std::string& path);
  const GgufContent& content() const { return reader_.content(); }
  const ModelConfig& config() const { return config_; }
  const std::vector<TensorEntry>& tensors() const { return weights_.tensors; }

 private:
  GgufReader reader_;
  ModelConfig config_;
  GgufWeights weights_;
};

}  // namespace wels
