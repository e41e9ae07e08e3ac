// Multi-head latent attention: V2 §2.1, V3 eq. 1-11. Keys and values of all h heads are made from
// one latent row c of r values per token, which carries no position; positions are in a further
// key k^R of dr values that all heads share. So c and k^R are all that a KV cache must hold: V3's
// 576 values a token instead of h·(dn + dr + dv) = 40960. What is done over a cache, and how the
// matrices that make keys and values can be left out there, is in mla_cached.cc.
#include "model/mla.h"

namespace wels {

// x [n, d], normalised → u [n, d]. In the equations x is one row, i one of the h heads.
Var mla(Ctx& ctx, AttentionWeights& w, const Var& x, const BlockContext& b) {
  const ModelConfig& c = b.cfg;
  float eps = static_cast<float>(c.rms_norm_eps);
  MlaInput in;
  // (6) c^Q = norm(W_DQ x), rq values; (7, 8) [q^C_i ; q^R_i] = [W_UQ,i ; W_QR,i] c^Q. V2-Lite
  // makes queries from x itself.
  in.q = c.q_lora_rank > 0
             ? matmul(ctx, rms_norm(ctx, matmul(ctx, x, w.q_a), w.q_a_norm, eps), w.q_b)
             : matmul(ctx, x, w.q);
  // (8, 9) q_i = [q^C_i ; rope(q^R_i)]: the last dr of each head's dn + dr columns turn.
  RopeParams rotate{.heads = static_cast<int>(c.num_attention_heads),
                    .head_dim = static_cast<int>(c.qk_head_dim()),
                    .rotated = static_cast<int>(c.qk_rope_head_dim),
                    .interleaved = true};
  in.q = rope(ctx, in.q, b.pos, rotate);
  // (1) c = norm(W_DKV x); (3) k^R = rope(W_KR x). One matrix makes both.
  std::array<Var, 2> row = latent_row(ctx, matmul(ctx, x, w.kv_a), w.kv_a_norm, eps, b.pos, true);
  in.latent = row[0];
  in.key = row[1];
  Var o;
  if (b.options.kv) {
    o = attend_with_cache(ctx, w, in, b);
  } else {
    // (2, 5) [k^C_i ; v_i] = [W_UK,i ; W_UV,i] c: [n, h·(dn + dv)].
    Var kv = matmul(ctx, in.latent, w.kv_b);
    std::string name = "layer" + std::to_string(b.layer);
    b.observe(name + ".query", in.q);
    b.observe(name + ".key_value", kv);
    b.observe(name + ".rotated_key", in.key);
    // (4) k_i = [k^C_i ; k^R]; (10) o_i = Σ_j softmax_j(scale · q_i · k_j,i) v_j,i over the rows j
    // up to its own: [n, h·dv]. scale: softmax_scale() in rope_table.h.
    AttendParams p = expanded_params(c, b.scale);
    o = attend(ctx, in.q, kv, kv, p.dk, in.key, b.segments, p);
  }
  // (11) u = W_O [o_1 ; ... ; o_h].
  return matmul(ctx, o, w.o);
}

AttendParams expanded_params(const ModelConfig& c, double scale) {
  int h = static_cast<int>(c.num_attention_heads), dn = static_cast<int>(c.qk_nope_head_dim);
  int dv = static_cast<int>(c.v_head_dim);
  return {.heads = h,
          .kv_heads = h,
          .dk = dn,
          .dr = static_cast<int>(c.qk_rope_head_dim),
          .dv = dv,
          .k_step = dn + dv,
          .v_step = dn + dv,
          .scale = scale};
}

}  // namespace wels
