// Model: the one definition of DeepSeek's architecture (and of Qwen2's and Llama's, for the
// distilled checkpoints).
//
// Pretraining, SFT, RL scoring, rollouts, prefill, decode and MTP all call Model::hidden. What
// differs is in the arguments: a tape or none, a KV cache or none, which segments. Sources:
// DeepSeek-V2 (arXiv 2405.04434) §2.1, DeepSeek-V3 (2412.19437) §2.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "model/kv_cache.h"
#include "model/rope_table.h"
#include "model/weights.h"
#include "nn/ops.h"

namespace wels {

struct BlockContext;  // block.h

struct ForwardOptions {
  KvCache* kv = nullptr;  // null: no cache, every segment has past = 0
  // α of the sequence-wise balance loss, already divided by the number of sequences.
  float balance_factor = 0;
  // Sees every named intermediate result ("hidden.0", "final_norm", "layer1.routed", "mtp0.input",
  // ...).
  std::function<void(const std::string& name, const Var&)> observe;
};

// What a forward pass leaves beside the hidden state: the routers' decisions, by block number.
struct ForwardRecord {
  struct Layer {
    int64_t layer;
    Routed routed;
  };
  std::vector<Layer> routed;
};

// The router of cfg as the device's ops take it.
RouteParams route_params(const ModelConfig& cfg);

class Model {
 public:
  explicit Model(ModelConfig cfg);
  Model(const Model&) = delete;

  const ModelConfig& config() const { return cfg_; }
  ModelWeights& weights() { return weights_; }
  Weight& head() { return cfg_.tie_word_embeddings ? weights_.embed : weights_.head; }

  // Gives every weight memory of `dtype` (f32 or f64), without values. The selection bias is f32
  // always: it is no parameter.
  void allocate(DType dtype);
  // The same with a type for each weight. cols must be a multiple of the type's block.
  void allocate(const std::function<DType(const WeightSpec&)>& dtype_of);
  // Keeps something alive as long as the model (a mapped checkpoint).
  void keep(std::shared_ptr<void> owner) { memory_.push_back(std::move(owner)); }
  // Gives every weight memory of `dtype` and initial values from `seed` (each by its own name, so
  // shapes elsewhere don't matter). Gradients too where `trainable`.
  void init(DType dtype, uint64_t seed, bool trainable);
  // Gives every trainable weight a gradient of its own dtype.
  void make_gradients();
  void clear_gradients();  // the next backward sets instead of adding

  // [n, d]: the residual stream after the last block, normalised: what the head and MTP read.
  // `residual`, if given, gets the stream before the final norm.
  Var hidden(Ctx& ctx, const Batch& batch, const ForwardOptions& options,
             ForwardRecord* record = nullptr, Var* residual = nullptr);

  // MTP module k (0-based), V3 eq. 21-23, drawn in mtp.cc: from the hidden states of depth k (as
  // hidden() returns them; for k > 0 what this function returned) of `batch` to those of depth k +
  // 1, which predict the token after the next. Row i of a segment takes the embedding of the
  // segment's token i + k + 1; so each segment has one row less than at depth k: `rows` says which
  // rows of `batch` they belong to. The result is normalised by shared_head.norm.
  struct MtpOut {
    Var hidden;                 // [m, d] for the head
    Var stream;                 // [m, d] for the next depth
    std::vector<int32_t> rows;  // [m]
  };
  MtpOut mtp(Ctx& ctx, int64_t k, const Var& previous, const std::vector<int32_t>& previous_rows,
             const Batch& batch, const ForwardOptions& options, ForwardRecord* record = nullptr);

  // MTP module 0 over the cache, for drafting. Row i of `next` is the token after row i of
  // `previous` (as hidden() returns it, or as this function did for a token further on), at the
  // position of that row; past: rows of the sequence that the module has seen. [n, d], normalised
  // for the head: what predicts the token after next. A module draws on its own row of the cache
  // and on those before, which must be there.
  Var draft(Ctx& ctx, const Var& previous, const Batch& next, KvCache& kv);

  // The form in which MLA's attention of `rows` tokens after `past` cached ones is cheaper.
  MlaForm cheaper_form(int64_t past, int64_t rows) const;

  // [n, v] f32 (f64): logits of all rows of h. For sampling and tests; objectives use token_logp.
  Var logits(Ctx& ctx, const Var& h);

 private:
  // What the blocks of one forward pass get, but for the rows' places in a cache.
  BlockContext context(Ctx& ctx, const Batch& batch, const ForwardOptions& options, int64_t layer,
                       ForwardRecord* record);
  Var block(Ctx& ctx, BlockWeights& w, const Var& x, const BlockContext& b);
  Var recomputed_block(Ctx& ctx, BlockWeights& w, const Var& x, const BlockContext& b);
  Var mtp_block(Ctx& ctx, int64_t k, const Var& previous, const BlockContext& b);
  Var mtp_norm(Ctx& ctx, int64_t k, const Var& stream);
  std::vector<Tensor> stack(DType dtype, const WeightSpec& s);
  Positions positions(Ctx& ctx, const std::vector<int32_t>& pos);

  ModelConfig cfg_;
  ModelWeights weights_;
  std::vector<std::shared_ptr<void>> memory_;
  std::unique_ptr<RopeTable> rope_;
};

}  // namespace wels
