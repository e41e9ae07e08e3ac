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
  // e_score_correction_bias [1, e]: selection only, moved by the balancing rule, not by a gradient.
  Weight bias;
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

  // By its number in the checkpoint: the MTP modules' blocks follow the main model's.
  BlockWeights& block(int64_t layer) {
    auto i = static_cast<size_t>(layer);
    return i < blocks.size() ? blocks[i] : mtp[i - blocks.size()].block;
  }
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

// A part of the model, whose weights' names begin alike: what describes each of them.
struct Part {
  std::string prefix;
  int64_t layer = -1;
  int64_t experts = 1;  // a stack of so many of each

  Part in(const char* sub, int64_t stacked = 1) const {
    return {prefix + sub + ".", layer, stacked};
  }
  // y [n, out] = x [n, in] · wᵀ
  WeightSpec linear(const char* name, int64_t out, int64_t in) const {
    WeightSpec s = spec(WeightKind::kMatrix, name, ".weight", out, in);
    s.fp8 = true;
    return s;
  }
  WeightSpec router(const char* name, int64_t e, int64_t d) const {
    WeightSpec s = spec(WeightKind::kMatrix, name, ".weight", e, d);
    s.full_precision = true;
    return s;
  }
  WeightSpec embedding(const char* name, int64_t v, int64_t d) const {
    return spec(WeightKind::kEmbedding, name, ".weight", v, d);
  }
  WeightSpec norm(const char* name, int64_t d) const {
    return spec(WeightKind::kNorm, name, ".weight", 1, d);
  }
  WeightSpec bias(const char* name, int64_t out) const {
    return spec(WeightKind::kVector, name, ".bias", 1, out);
  }
  WeightSpec buffer(const char* name, int64_t e) const {
    return spec(WeightKind::kBuffer, name, "", 1, e);
  }

 private:
  WeightSpec spec(WeightKind kind, const char* name, const char* ending, int64_t rows,
                  int64_t cols) const {
    return {.name = prefix + name + ending,
            .experts = experts,
            .rows = rows,
            .cols = cols,
            .kind = kind,
            .layer = layer};
  }
};

template <class F>
void visit_mlp(MlpWeights& w, const Part& p, int64_t d, int64_t f, F&& visit) {
  visit(w.gate, p.linear("gate_proj", f, d));
  visit(w.up, p.linear("up_proj", f, d));
  visit(w.down, p.linear("down_proj", d, f));
}

// Multi-head latent attention, V3 eq. 1-11.
template <class F>
void visit_mla(const ModelConfig& c, AttentionWeights& w, const Part& p, F&& visit) {
  int64_t d = c.hidden_size, h = c.num_attention_heads, rq = c.q_lora_rank, r = c.kv_lora_rank;
  int64_t dn = c.qk_nope_head_dim, dr = c.qk_rope_head_dim, dv = c.v_head_dim;
  if (rq > 0) {
    visit(w.q_a, p.linear("q_a_proj", rq, d));
    visit(w.q_a_norm, p.norm("q_a_layernorm", rq));
    visit(w.q_b, p.linear("q_b_proj", h * (dn + dr), rq));
  } else {
    visit(w.q, p.linear("q_proj", h * (dn + dr), d));
  }
  visit(w.kv_a, p.linear("kv_a_proj_with_mqa", r + dr, d));
  visit(w.kv_a_norm, p.norm("kv_a_layernorm", r));
  visit(w.kv_b, p.linear("kv_b_proj", h * (dn + dv), r));
  visit(w.o, p.linear("o_proj", d, h * dv));
}

// Grouped-query attention: hk heads of keys and values, each dh wide.
template <class F>
void visit_gqa(const ModelConfig& c, AttentionWeights& w, const Part& p, F&& visit) {
  int64_t d = c.hidden_size, h = c.num_attention_heads, hk = c.num_key_value_heads;
  int64_t dh = c.head_dim;
  visit(w.q, p.linear("q_proj", h * dh, d));
  visit(w.k, p.linear("k_proj", hk * dh, d));
  visit(w.v, p.linear("v_proj", hk * dh, d));
  if (c.attention_bias) {
    visit(w.q_bias, p.bias("q_proj", h * dh));
    visit(w.k_bias, p.bias("k_proj", hk * dh));
    visit(w.v_bias, p.bias("v_proj", hk * dh));
  }
  visit(w.o, p.linear("o_proj", d, h * dh));
}

// Mixture of experts, V3 eq. 12-20.
template <class F>
void visit_moe(const ModelConfig& c, MoeWeights& w, const Part& p, F&& visit) {
  int64_t d = c.hidden_size, e = c.n_routed_experts, fe = c.moe_intermediate_size;
  visit(w.router, p.router("gate", e, d));
  if (c.has_router_bias()) visit(w.bias, p.buffer("gate.e_score_correction_bias", e));
  visit_mlp(w.experts, p.in("experts.{}", e), d, fe, visit);
  if (c.n_shared_experts > 0) {
    visit_mlp(w.shared, p.in("shared_experts"), d, fe * c.n_shared_experts, visit);
  }
}

template <class F>
void visit_block(const ModelConfig& c, BlockWeights& w, const Part& p, F&& visit) {
  int64_t d = c.hidden_size, f = c.intermediate_size;
  visit(w.attention_norm, p.norm("input_layernorm", d));
  if (c.is_mla()) {
    visit_mla(c, w.attention, p.in("self_attn"), visit);
  } else {
    visit_gqa(c, w.attention, p.in("self_attn"), visit);
  }
  visit(w.mlp_norm, p.norm("post_attention_layernorm", d));
  if (w.moe) {
    visit_moe(c, w.experts, p.in("mlp"), visit);
  } else {
    visit_mlp(w.mlp, p.in("mlp"), d, f, visit);
  }
}

// Multi-token prediction, V3 eq. 21-23.
template <class F>
void visit_mtp(const ModelConfig& c, MtpWeights& w, const Part& p, F&& visit) {
  int64_t d = c.hidden_size;
  visit(w.embed_norm, p.norm("enorm", d));
  visit(w.hidden_norm, p.norm("hnorm", d));
  visit(w.projection, p.linear("eh_proj", d, 2 * d));
  visit_block(c, w.block, p, visit);
  visit(w.head_norm, p.norm("shared_head.norm", d));
}

inline Part layer_part(int64_t layer) {
  return {.prefix = "model.layers." + std::to_string(layer) + ".", .layer = layer};
}

}  // namespace weights_detail

// Gives the blocks and MTP modules of cfg their number and kind; weights are empty.
ModelWeights make_weights(const ModelConfig& cfg);

// Calls visit(Weight&, const WeightSpec&) for every weight, in the order of the checkpoint.
template <class F>
void visit_weights(const ModelConfig& c, ModelWeights& w, F&& visit) {
  using namespace weights_detail;
  const Part model;
  int64_t d = c.hidden_size, v = c.vocab_size, layer = 0;
  visit(w.embed, model.embedding("model.embed_tokens", v, d));
  for (BlockWeights& block : w.blocks) visit_block(c, block, layer_part(layer++), visit);
  visit(w.final_norm, model.norm("model.norm", d));
  if (!c.tie_word_embeddings) visit(w.head, model.embedding("lm_head", v, d));
  for (MtpWeights& mtp : w.mtp) visit_mtp(c, mtp, layer_part(layer++), visit);
}

// Calls visit(Weight&, const WeightSpec&) for everything that the optimiser moves: weights with
// gradients, and the two matrices of each low-rank change.
template <class F>
void visit_parameters(const ModelConfig& c, ModelWeights& w, F&& visit) {
  visit_weights(c, w, [&](Weight& x, const WeightSpec& spec) {
    if (x.trainable()) visit(x, spec);
    if (!x.lora) return;
    for (Weight* part : {&x.lora->down, &x.lora->up}) {
      visit(*part,
            WeightSpec{
                .name = part->name, .rows = part->rows, .cols = part->cols, .layer = spec.layer});
    }
  });
}

// How many parameters a checkpoint of this shape has. The router's selection bias is no parameter
// and not in the counts.
struct ParameterCount {
  int64_t total = 0;  // without MTP modules, as model names count ("671B")
  // Used for one token: total without the routed experts that are not chosen; with embedding and
  // head.
  int64_t active = 0;
  int64_t embedding = 0;    // v·d, in total
  int64_t head = 0;         // v·d, in total; 0 if tied
  int64_t mtp = 0;          // all MTP modules, without the shared embedding and head
  int64_t mtp_active = 0;   // of these, used for one token
  int64_t router_bias = 0;  // selection biases, one per routed expert, MTP modules included
};
// cfg must be valid. Throws Error if there are more than 2^60, which no file can hold.
ParameterCount count_parameters(const ModelConfig& cfg);

}  // namespace wels
