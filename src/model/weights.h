// The weights of a model, and the one visitor that names, shapes and initialises each of them in a
// line. Initialisation, loading, saving, counting and the optimiser are all callers of
// visit_weights.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "formats/model_config.h"
#include "tensor/weight.h"

namespace wels {

struct MlpWeights {  // SwiGLU: down(silu(gate x) · up x)
  Weight gate, up, down;
};

struct MoeWeights {
  Weight router;  // [e, d], computed in f32
  Weight bias;  // e_score_correction_bias [1, e]: selection only, moved by the balancing rule, not
                // by a gradient
  MlpWeights experts;  // e matrices each
  MlpWeights shared;   // one FFN of n_shared_experts times the width
};

struct AttentionWeights {
  Weight q;                             // MLA without q-LoRA, GQA
  Weight q_a, q_a_norm, q_b;            // MLA with q-LoRA
  Weight kv_a, kv_a_norm, kv_b;         // MLA: [r + dr, d], [1, r], [h·(dn + dv), r]
  Weight k, v, q_bias, k_bias, v_bias;  // GQA
  Weight o;
};

struct BlockWeights {
  Weight attention_norm, mlp_norm;
  AttentionWeights attention;
  bool moe = false;
  MlpWeights mlp;  // dense blocks
  MoeWeights experts;
};

struct MtpWeights {                // V3 §2.2; embedding and head are the main model's
  Weight embed_norm, hidden_norm;  // enorm, hnorm
  Weight projection;               // eh_proj [d, 2d] on [embedding ; hidden]
  BlockWeights block;
  Weight head_norm;  // shared_head.norm
};

struct ModelWeights {
  Weight embed;  // [v, d]
  std::vector<BlockWeights> blocks;
  Weight final_norm;
  Weight head;  // [v, d]; empty when tied
  std::vector<MtpWeights> mtp;
};

// How a weight begins, and whether the optimiser moves it.
enum class WeightKind {
  kMatrix,     // normal(0, initializer_range); weight decay
  kEmbedding,  // as kMatrix; embedding and head: AdamW also under Muon
  kNorm,       // ones; no weight decay
  kVector,     // zeros: biases of linear layers; no weight decay
  kBuffer,     // zeros: no gradient (selection bias)
};

struct WeightSpec {
  std::string name;  // HF name; "{}" stands for the expert's number in a stack
  int64_t experts = 1, rows = 0, cols = 0;
  WeightKind kind = WeightKind::kMatrix;
  bool fp8 = false;             // a Linear that V3 computes in FP8
  bool full_precision = false;  // the router
  int64_t layer = -1;           // block number, -1 outside blocks
};

namespace weights_detail {

template <class F>
void visit_mlp(MlpWeights& w, const std::string& p, int64_t experts, int64_t d, int64_t f,
               int64_t layer, F&& visit) {
  visit(w.gate,
        WeightSpec{p + "gate_proj.weight", experts, f, d, WeightKind::kMatrix, true, false, layer});
  visit(w.up,
        WeightSpec{p + "up_proj.weight", experts, f, d, WeightKind::kMatrix, true, false, layer});
  visit(w.down,
        WeightSpec{p + "down_proj.weight", experts, d, f, WeightKind::kMatrix, true, false, layer});
}

template <class F>
void visit_attention(const ModelConfig& c, AttentionWeights& w, const std::string& p, int64_t layer,
                     F&& visit) {
  int64_t d = c.hidden_size, h = c.num_attention_heads;
  auto matrix = [&](Weight& x, const char* name, int64_t rows, int64_t cols) {
    visit(x,
          WeightSpec{p + name + ".weight", 1, rows, cols, WeightKind::kMatrix, true, false, layer});
  };
  auto norm = [&](Weight& x, const char* name, int64_t cols) {
    visit(x, WeightSpec{p + name + ".weight", 1, 1, cols, WeightKind::kNorm, false, false, layer});
  };
  auto bias = [&](Weight& x, const char* name, int64_t cols) {
    visit(x, WeightSpec{p + name + ".bias", 1, 1, cols, WeightKind::kVector, false, false, layer});
  };
  if (c.is_mla()) {
    int64_t dq = c.qk_head_dim(), r = c.kv_lora_rank;
    if (c.q_lora_rank > 0) {
      matrix(w.q_a, "q_a_proj", c.q_lora_rank, d);
      norm(w.q_a_norm, "q_a_layernorm", c.q_lora_rank);
      matrix(w.q_b, "q_b_proj", h * dq, c.q_lora_rank);
    } else {
      matrix(w.q, "q_proj", h * dq, d);
    }
    matrix(w.kv_a, "kv_a_proj_with_mqa", r + c.qk_rope_head_dim, d);
    norm(w.kv_a_norm, "kv_a_layernorm", r);
    matrix(w.kv_b, "kv_b_proj", h * (c.qk_nope_head_dim + c.v_head_dim), r);
    matrix(w.o, "o_proj", d, h * c.v_head_dim);
  } else {
    int64_t kv = c.num_key_value_heads * c.head_dim;
    matrix(w.q, "q_proj", h * c.head_dim, d);
    matrix(w.k, "k_proj", kv, d);
    matrix(w.v, "v_proj", kv, d);
    if (c.attention_bias) {
      bias(w.q_bias, "q_proj", h * c.head_dim);
      bias(w.k_bias, "k_proj", kv);
      bias(w.v_bias, "v_proj", kv);
    }
    matrix(w.o, "o_proj", d, h * c.head_dim);
  }
}

template <class F>
void visit_block(const ModelConfig& c, BlockWeights& w, int64_t layer, F&& visit) {
  std::string p = "model.layers." + std::to_string(layer) + ".";
  int64_t d = c.hidden_size;
  visit(w.attention_norm,
        WeightSpec{p + "input_layernorm.weight", 1, 1, d, WeightKind::kNorm, false, false, layer});
  visit_attention(c, w.attention, p + "self_attn.", layer, visit);
  visit(w.mlp_norm, WeightSpec{p + "post_attention_layernorm.weight", 1, 1, d, WeightKind::kNorm,
                               false, false, layer});
  if (!w.moe) {
    visit_mlp(w.mlp, p + "mlp.", 1, d, c.intermediate_size, layer, visit);
    return;
  }
  int64_t e = c.n_routed_experts, f = c.moe_intermediate_size;
  visit(w.experts.router,
        WeightSpec{p + "mlp.gate.weight", 1, e, d, WeightKind::kMatrix, false, true, layer});
  if (c.has_router_bias()) {
    visit(w.experts.bias, WeightSpec{p + "mlp.gate.e_score_correction_bias", 1, 1, e,
                                     WeightKind::kBuffer, false, false, layer});
  }
  visit_mlp(w.experts.experts, p + "mlp.experts.{}.", e, d, f, layer, visit);
  if (c.n_shared_experts > 0) {
    visit_mlp(w.experts.shared, p + "mlp.shared_experts.", 1, d, f * c.n_shared_experts, layer,
              visit);
  }
}

}  // namespace weights_detail

// Gives the blocks and MTP modules of cfg their number and kind; weights are empty.
ModelWeights make_weights(const ModelConfig& cfg);

// Calls visit(Weight&, const WeightSpec&) for every weight, in the order of the checkpoint.
template <class F>
void visit_weights(const ModelConfig& c, ModelWeights& w, F&& visit) {
  int64_t d = c.hidden_size, v = c.vocab_size;
  visit(w.embed,
        WeightSpec{"model.embed_tokens.weight", 1, v, d, WeightKind::kEmbedding, false, false, -1});
  for (size_t i = 0; i < w.blocks.size(); ++i) {
    weights_detail::visit_block(c, w.blocks[i], static_cast<int64_t>(i), visit);
  }
  visit(w.final_norm,
        WeightSpec{"model.norm.weight", 1, 1, d, WeightKind::kNorm, false, false, -1});
  if (!c.tie_word_embeddings) {
    visit(w.head, WeightSpec{"lm_head.weight", 1, v, d, WeightKind::kEmbedding, false, false, -1});
  }
  for (size_t k = 0; k < w.mtp.size(); ++k) {
    int64_t layer = c.num_hidden_layers + static_cast<int64_t>(k);
    std::string p = "model.layers." + std::to_string(layer) + ".";
    MtpWeights& m = w.mtp[k];
    visit(m.embed_norm,
          WeightSpec{p + "enorm.weight", 1, 1, d, WeightKind::kNorm, false, false, layer});
    visit(m.hidden_norm,
          WeightSpec{p + "hnorm.weight", 1, 1, d, WeightKind::kNorm, false, false, layer});
    visit(m.projection,
          WeightSpec{p + "eh_proj.weight", 1, d, 2 * d, WeightKind::kMatrix, true, false, layer});
    weights_detail::visit_block(c, m.block, layer, visit);
    visit(m.head_norm, WeightSpec{p + "shared_head.norm.weight", 1, 1, d, WeightKind::kNorm, false,
                                  false, layer});
  }
}

// Calls visit(Weight&, const WeightSpec&) for everything that the optimiser moves: weights with
// gradients, and the two matrices of each low-rank change.
template <class F>
void visit_parameters(const ModelConfig& c, ModelWeights& w, F&& visit) {
  visit_weights(c, w, [&](Weight& x, const WeightSpec& spec) {
    if (x.trainable()) visit(x, spec);
    if (!x.lora) return;
    for (Weight* part : {&x.lora->down, &x.lora->up}) {
      visit(*part, WeightSpec{part->name, 1, part->rows, part->cols, WeightKind::kMatrix, false,
                              false, spec.layer});
    }
  });
}

}  // namespace wels
