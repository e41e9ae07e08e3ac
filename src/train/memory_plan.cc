#include "train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"

namespace wels {
namespace {

// Bytes per token that a block's ops keep on the tape, in the order of model/mla.cc and
// model/moe.cc.
struct BlockBytes {
  int64_t kept = 0, widest = 0;
};

BlockBytes block_bytes(const ModelConfig& c, int64_t t, int64_t residual, bool moe) {
  int64_t d = c.hidden_size, h = c.num_attention_heads, dq = c.qk_head_dim();
  int64_t kept = 2 * (d * t + 4);  // two norms
  int64_t qkv = 0, out = 0;
  if (c.is_mla()) {
    int64_t r = c.kv_lora_rank, dr = c.qk_rope_head_dim;
    qkv = (c.q_lora_rank > 0 ? 2 * c.q_lora_rank * t + 4 : 0) + 2 * h * dq * t + (r + dr) * t +
          r * t + 4 + dr * t + h * (c.qk_nope_head_dim + c.v_head_dim) * t;
    out = h * c.v_head_dim * t;
  } else {
    qkv = (2 * h + 3 * c.num_key_value_heads) * c.head_dim * t;
    out = h * c.head_dim * t;
  }
  kept += qkv + out + h * 4 + 2 * d * residual +
          2 * d * t;  // attention's result, both sums, both branches
  int64_t ffn;
  if (moe) {
    int64_t k = c.num_experts_per_tok, fe = c.moe_intermediate_size, fs = fe * c.n_shared_experts;
    ffn = c.n_routed_experts * 4 + k * 16 + k * (2 * d + 3 * fe) * t + (3 * fs + d) * t;
  } else {
    ffn = 3 * c.intermediate_size * t;
  }
  return {kept + ffn, std::max(qkv + out, ffn)};
}

}  // namespace

MemoryPlan plan_memory(const ModelConfig& c, int64_t rows, DType dtype, bool recompute, bool muon) {
  ParameterCount count = count_parameters(c);
  int64_t n = count.total + count.mtp, matrices = n - count.embedding - count.head;
  int64_t t = info(dtype).bytes, residual = dtype == DType::kBF16 ? 4 : t;
  MemoryPlan p;
  p.weights = 4 * n;
  p.gradients = 4 * n;
  p.optimizer = 8 * n - (muon ? 4 * matrices : 0);
  p.packed = 2 * t * n;
  int64_t kept = 0, largest_block = 0, widest = 0,
          depth = c.num_hidden_layers + c.num_nextn_predict_layers;
  for (int64_t l = 0; l < depth; ++l) {
    BlockBytes b = block_bytes(c, t, residual, c.is_moe_layer(l));
    largest_block = std::max(largest_block, b.kept);
    widest = std::max(widest, b.widest);
    kept += recompute && l < c.num_hidden_layers ? c.hidden_size * residual : b.kept;
  }
  if (recompute) kept += largest_block;
  kept += c.num_nextn_predict_layers * c.hidden_size * (7 * t + residual);  // MTP's inputs
  kept += c.hidden_size * (t + residual);
  p.activations = rows * kept;
  p.backward = rows * (widest + 2 * c.hidden_size * residual);
  return p;
}

std::string MemoryPlan::text() const {
  auto b = [](int64_t n) { return human_bytes(static_cast<double>(n)); };
  return fmt::format(
      "weights {}, gradients {}, optimiser {}, packed copies {}, activations {}, their gradients "
      "{}: {}",
      b(weights), b(gradients), b(optimizer), b(packed), b(activations), b(backward), b(total()));
}

void require_memory(const MemoryPlan& plan, int64_t available) {
  if (plan.total() <= available) return;
  throw Error("memory",
              fmt::format("training needs {} ({}), {} are free",
                          human_bytes(static_cast<double>(plan.total())), plan.text(),
                          human_bytes(static_cast<double>(available))),
              plan.activations + plan.backward > plan.total() / 2
                  ? "use a smaller --micro-batch, a shorter --seq or --recompute"
                  : "use a smaller --preset or --depth");
}

}  // namespace wels
