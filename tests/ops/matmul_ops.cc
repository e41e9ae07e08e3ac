// Cases of the matrix products: plain, grouped, gated, absorbed, gemm, and the output head.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "tests/ops/op_run.h"

namespace wels {
namespace {

struct Shape {
  int64_t in, out;
};
constexpr Shape kShapes[] = {{1, 1}, {16, 16}, {40, 7}, {129, 65}, {256, 130}};

Tensor gradient(OpRun& r, const std::string& name, int64_t rows, int64_t cols, Accum accum,
                bool f32, Within within) {
  if (accum == Accum::kSet)
    return f32 ? r.output_f32(name, rows, cols, within) : r.output(name, rows, cols, within);
  Tensor t = f32 ? r.input_f32(name, rows, cols) : r.input(name, rows, cols);
  r.compare(name, t, within);
  return t;
}

// Weights of a block type; x is rounded to int8, on the oracle too.
void quantised(std::vector<OpCase>& out, int64_t n, Shape s, Storage storage) {
  out.push_back({"matmul_quantised", n, true, [=](OpRun& r) {
                   Tensor x = r.input_rows("x", n, s.in);
                   Weight& w = r.weight("w", s.out, s.in, 1, 1, storage);
                   Weight& bias = r.weight("bias", 1, s.out);
                   r.dev.matmul(x, w, &bias, r.output_rows("y", n, s.out));
                   r.dev.matmul(x, w, nullptr, r.output_f32_rows("y_f32", n, s.out));
                 }});
  out.push_back({"matmul_dx_quantised", n, true, [=](OpRun& r) {
                   // A device with bf16 activations may round the decoded weight to bf16.
                   Tensor dy = r.input_rows("dy", n, s.out);
                   Weight& w = r.weight("w", s.out, s.in, 1, 1, storage);
                   r.dev.matmul_dx(dy, w, r.output_rows("dx", n, s.in, {.mids = 2}), Accum::kSet);
                 }});
}

void plain(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (Shape s : kShapes) {
      for (bool fp8 : {false, true}) {
        std::string suffix = fp8 ? "_fp8" : "";
        out.push_back(
            {"matmul" + suffix, n, true, [=](OpRun& r) {
               Tensor x = r.input_rows("x", n, s.in);
               Weight& w = r.weight("w", s.out, s.in);
               Weight& bias = r.weight("bias", 1, s.out);
               r.dev.matmul(x, w, nullptr, r.output_rows("y", n, s.out), fp8);
               r.dev.matmul(x, w, &bias, r.output_rows("y_bias", n, s.out), fp8);
               r.dev.matmul(x, w, nullptr, r.output_f32_rows("y_f32", n, s.out), fp8);
               if (!fp8) {
                 Weight& exact = r.weight("exact", s.out, s.in, 1, 1, Storage::kOwn, true);
                 r.dev.matmul(x, exact, nullptr, r.output_f32_rows("full_precision", n, s.out));
               }
             }});
        for (Accum accum : {Accum::kSet, Accum::kAdd}) {
          out.push_back(
              {"matmul_dx" + suffix, accum == Accum::kSet ? n : 0, accum == Accum::kSet,
               [=](OpRun& r) {
                 Tensor dy = r.input_rows("dy", n, s.out);
                 Weight& w = r.weight("w", s.out, s.in);
                 if (accum == Accum::kSet) {
                   r.dev.matmul_dx(dy, w, r.output_rows("dx", n, s.in), accum, fp8);
                   r.dev.matmul_dx(dy, w, r.output_f32_rows("dx_f32", n, s.in), accum, fp8);
                 } else {
                   r.dev.matmul_dx(dy, w, gradient(r, "dx", n, s.in, accum, false, {}), accum, fp8);
                   r.dev.matmul_dx(dy, w, gradient(r, "dx_f32", n, s.in, accum, true, {}), accum,
                                   fp8);
                 }
                 if (!fp8) {
                   Weight& exact = r.weight("exact", s.out, s.in, 1, 1, Storage::kOwn, true);
                   r.dev.matmul_dx(dy, exact,
                                   gradient(r, "full_precision", r.n(n), s.in, accum, true, {}),
                                   accum);
                 }
               }});
          out.push_back({"matmul_dw" + suffix, 0, false, [=](OpRun& r) {
                           Tensor dy = r.input("dy", n, s.out), x = r.input("x", n, s.in);
                           r.dev.matmul_dw(dy, x, gradient(r, "dw", s.out, s.in, accum, true, {}),
                                           accum, fp8);
                         }});
        }
      }
    }
    // Inference: the weights as checkpoints have them.
    for (Storage storage : kStored) {
      if (storage >= Storage::kBlocks) continue;
      for (Shape s : {Shape{256, 130}, Shape{512, 33}, Shape{72, 19}}) {
        out.push_back({"matmul_stored", n, true, [=](OpRun& r) {
                         // A device with bf16 activations may round the dequantised weight to bf16:
                         // one rounding per product.
                         Within within{.sums = 32, .mids = storage >= Storage::kF16 ? 2.0 : 0};
                         Tensor x = r.input_rows("x", n, s.in);
                         Weight& w = r.weight("w", s.out, s.in, 1, 1, storage);
                         r.dev.matmul(x, w, nullptr, r.output_rows("y", n, s.out, within));
                         r.dev.matmul(x, w, nullptr, r.output_f32_rows("y_f32", n, s.out, within));
                         if (storage == Storage::kFp8)
                           r.dev.matmul(x, w, nullptr, r.output_rows("fp8", n, s.out), true);
                       }});
      }
    }
    for (int type = 0; type < kBlockTypes; ++type) {
      auto storage = static_cast<Storage>(static_cast<int>(Storage::kBlocks) + type);
      int64_t block = info(block_type(storage)).block;
      for (Shape s : {Shape{block, 33}, Shape{512, 17}}) quantised(out, n, s, storage);
    }
  }
  out.push_back({"matmul", 5, true, [](OpRun& r) {  // a NaN or an infinity stays in its row
                   Tensor x = r.input_rows("x", 5, 40);
                   const std::vector<int64_t>& rows = r.rows(5);
                   for (size_t i = 0; i < rows.size(); ++i) {
                     if (rows[i] == 1) set_element(x, static_cast<int64_t>(i), 39, std::nan(""));
                     if (rows[i] == 3)
                       set_element(x, static_cast<int64_t>(i), 0,
                                   std::numeric_limits<float>::infinity());
                   }
                   r.dev.matmul(x, r.weight("w", 33, 40), nullptr, r.output_rows("y", 5, 33));
                 }});
}

// Rows by expert; some experts have none.
std::vector<int32_t> expert_of_row(int64_t n, int experts) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i) {
    auto e = static_cast<int32_t>(i * experts / n);
    out.push_back(e % 3 == 1 ? e - 1 : e);
  }
  return out;
}

Tensor offsets(OpRun& r, int64_t n, int experts) {
  std::vector<int32_t> start(static_cast<size_t>(experts) + 1), of = expert_of_row(n, experts);
  for (int64_t i : r.rows(n)) ++start[static_cast<size_t>(of[static_cast<size_t>(i)]) + 1];
  for (size_t e = 1; e < start.size(); ++e) start[e] += start[e - 1];
  return r.index_row(start);
}

void grouped(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (Shape s : {Shape{16, 16}, Shape{40, 7}, Shape{129, 65}}) {
      for (int experts : {1, 4, 9}) {
        for (bool fp8 : {false, true}) {
          std::string suffix = fp8 ? "_fp8" : "";
          out.push_back({"grouped_matmul" + suffix, n, true, [=](OpRun& r) {
                           Weight& w = r.weight("w", s.out, s.in, 1, experts);
                           Tensor x = r.input_rows("x", n, s.in);
                           r.dev.grouped_matmul(x, w, offsets(r, n, experts),
                                                r.output_rows("y", n, s.out), fp8);
                         }});
          for (Accum accum : {Accum::kSet, Accum::kAdd}) {
            out.push_back({"grouped_matmul_dx" + suffix, 0, false, [=](OpRun& r) {
                             Weight& w = r.weight("w", s.out, s.in, 1, experts);
                             Tensor dy = r.input("dy", n, s.out);
                             r.dev.grouped_matmul_dx(dy, w, offsets(r, n, experts),
                                                     gradient(r, "dx", n, s.in, accum, false, {}),
                                                     accum, fp8);
                           }});
            out.push_back({"grouped_matmul_dw" + suffix, 0, false, [=](OpRun& r) {
                             Tensor dy = r.input("dy", n, s.out), x = r.input("x", n, s.in);
                             std::vector<Tensor> dw;
                             for (int e = 0; e < experts; ++e) {
                               dw.push_back(gradient(r, "dw" + std::to_string(e), s.out, s.in,
                                                     accum, true, {}));
                             }
                             r.dev.grouped_matmul_dw(dy, x, offsets(r, n, experts), dw, accum, fp8);
                           }});
          }
        }
      }
    }
    for (Storage storage : kSomeStored) {
      if (storage == Storage::kF32) continue;
      out.push_back({"grouped_matmul_stored", n, true, [=](OpRun& r) {
                       Weight& w = r.weight("w", 130, 256, 1, 5, storage);
                       Within within{.sums = 32, .mids = storage >= Storage::kF16 ? 2.0 : 0};
                       Tensor x = r.input_rows("x", n, 256);
                       r.dev.grouped_matmul(x, w, offsets(r, n, 5),
                                            r.output_rows("y", n, 130, within));
                     }});
    }
  }
}

struct GatedShape {
  int64_t in, out;
  int experts;  // 0: plain matrices
};

// gate and up so that g and u are about normal, times `scale`.
std::array<Weight*, 2> pair(OpRun& r, GatedShape s, double scale = 1,
                            Storage storage = Storage::kOwn, bool full_precision = false) {
  int64_t experts = std::max(1, s.experts);
  scale /= std::sqrt(static_cast<double>(s.in));
  return {&r.weight("gate", s.out, s.in, scale, experts, storage, full_precision),
          &r.weight("up", s.out, s.in, scale, experts, storage, full_precision)};
}

// g and u are rounded to bf16 before they are joined, dg and du before they are multiplied.
constexpr Within kJoined{.sums = 64, .mids = 4};
constexpr Within kSummed{.sums = 32, .terms = 1};  // over rows

// With these dg and du need no rounding: silu(g) is 0 or g, its slope 1/2 or 1. A rounding would
// now and then lead to another E4M3 value, an eighth away.
void saturate(const Tensor& g) {
  for (int64_t r = 0; r < g.rows; ++r) {
    for (int64_t c = 0; c < g.cols; ++c) {
      double x = element(g, r, c);
      set_element(g, r, c, x > 0 ? 0 : std::min(255.0, 64 + std::round(-16 * x)));
    }
  }
}
void make_powers_of_two(const Tensor& dy) {
  for (int64_t r = 0; r < dy.rows; ++r) {
    for (int64_t c = 0; c < dy.cols; ++c) {
      double x = element(dy, r, c);
      set_element(dy, r, c, std::copysign(std::exp2(std::round(x)), x));
    }
  }
}

void gated_case(std::vector<OpCase>& out, int64_t n, GatedShape s, bool fp8) {
  std::string suffix = fp8 ? "_fp8" : "";
  auto starts = [=](OpRun& r) { return s.experts > 0 ? offsets(r, n, s.experts) : Tensor(); };
  out.push_back({"gated_matmul" + suffix, n, true, [=](OpRun& r) {
                   Tensor x = r.input_rows("x", n, s.in), o = starts(r);
                   for (bool exact : {false, true}) {
                     if (exact && fp8) continue;
                     std::string of = exact ? "_exact" : "";
                     auto [gate, up] = pair(r, s, 1, Storage::kOwn, exact);
                     r.dev.gated_matmul(
                         x, *gate, *up, o, r.output_rows("y" + of, n, s.out, kJoined),
                         r.output_rows("g" + of, n, s.out), r.output_rows("u" + of, n, s.out), fp8);
                     r.dev.gated_matmul(x, *gate, *up, o,
                                        r.output_rows("alone" + of, n, s.out, kJoined), Tensor(),
                                        Tensor(), fp8);
                   }
                 }});
  for (Accum accum : {Accum::kSet, Accum::kAdd}) {
    out.push_back({"gated_matmul_dx" + suffix, accum == Accum::kSet ? n : 0, accum == Accum::kSet,
                   [=](OpRun& r) {
                     auto [gate, up] = pair(r, s);
                     Tensor dy = r.input_rows("dy", n, s.out), o = starts(r);
                     Within within = fp8 ? Within{.sums = 64} : kJoined;
                     if (fp8) make_powers_of_two(dy);
                     for (bool wanted : {true, false}) {
                       Tensor g = r.input_rows("g", n, s.out, 4), u = r.input_rows("u", n, s.out);
                       if (fp8) saturate(g);
                       r.compare("dg", g, {}, true);
                       r.compare("du", u, {}, true);
                       Tensor dx;
                       if (wanted && accum == Accum::kSet)
                         dx = r.output_rows("dx", n, s.in, within);
                       if (wanted && accum == Accum::kAdd)
                         dx = gradient(r, "dx", n, s.in, accum, false, within);
                       r.dev.gated_matmul_dx(dy, *gate, *up, o, g, u, dx, accum, fp8);
                     }
                   }});
    out.push_back({"gated_matmul_dw" + suffix, 0, false, [=](OpRun& r) {
                     Tensor dg = r.input("dg", n, s.out), du = r.input("du", n, s.out),
                            x = r.input("x", n, s.in), o = starts(r);
                     std::vector<Tensor> dgate, dup;
                     for (int e = 0; e < std::max(1, s.experts); ++e) {
                       std::string of = std::to_string(e);
                       dgate.push_back(
                           gradient(r, "dgate" + of, s.out, s.in, accum, true, kSummed));
                       dup.push_back(gradient(r, "dup" + of, s.out, s.in, accum, true, kSummed));
                     }
                     r.dev.gated_matmul_dw(dg, du, x, o, dgate, dup, accum, fp8);
                   }});
  }
}

void gated(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (GatedShape s : {GatedShape{1, 1, 0},
                         {40, 7, 0},
                         {129, 65, 0},
                         {256, 130, 0},
                         {16, 16, 1},
                         {40, 70, 4},
                         {129, 65, 9}}) {
      for (bool fp8 : {false, true}) gated_case(out, n, s, fp8);
    }
    for (Storage storage : kSomeStored) {
      for (int experts : {0, 5}) {
        out.push_back({"gated_matmul_stored", n, true, [=](OpRun& r) {
                         Within within{.sums = 64, .mids = storage >= Storage::kF16 ? 8.0 : 4.0};
                         Tensor x = r.input_rows("x", n, 256);
                         auto [gate, up] = pair(r, {256, 130, experts}, 1, storage);
                         r.dev.gated_matmul(x, *gate, *up,
                                            experts > 0 ? offsets(r, n, experts) : Tensor(),
                                            r.output_rows("y", n, 130, within), Tensor(), Tensor());
                       }});
      }
    }
    out.push_back({"gated_matmul", n, true, [=](OpRun& r) {  // the exponential over- and underflows
                     auto [gate, up] = pair(r, {40, 70, 0}, 100);
                     r.dev.gated_matmul(r.input_rows("x", n, 40), *gate, *up, Tensor(),
                                        r.output_rows("y", n, 70, kJoined), Tensor(), Tensor());
                   }});
  }
  out.push_back({"gated_matmul", 3, true, [](OpRun& r) {  // NaN and infinities stay in their rows
                   Tensor x = r.input_rows("x", 3, 40);
                   const std::vector<int64_t>& rows = r.rows(3);
                   for (size_t i = 0; i < rows.size(); ++i) {
                     if (rows[i] == 0) set_element(x, static_cast<int64_t>(i), 39, std::nan(""));
                     if (rows[i] == 2)
                       set_element(x, static_cast<int64_t>(i), 0,
                                   std::numeric_limits<float>::infinity());
                   }
                   auto [gate, up] = pair(r, {40, 37, 0});
                   r.dev.gated_matmul(x, *gate, *up, Tensor(), r.output_rows("y", 3, 37, kJoined),
                                      Tensor(), Tensor());
                 }});
}

void muon(std::vector<OpCase>& out) {
  for (int form = 0; form < 4; ++form) {
    for (auto [m, n, k] :
         {std::array<int64_t, 3>{1, 1, 1}, {17, 33, 16}, {65, 40, 129}, {130, 128, 7}}) {
      for (float beta : {0.0f, -0.5f}) {
        out.push_back(
            {"gemm", 0, false, [=, m = m, n = n, k = k](OpRun& r) {
               bool ta = (form & 1) != 0, tb = (form & 2) != 0;
               Tensor a = r.input_f32("a", ta ? k : m, ta ? m : k),
                      b = r.input_f32("b", tb ? n : k, tb ? k : n);
               r.dev.gemm(a, ta, b, tb, 1.25f, beta,
                          gradient(r, "c", m, n, beta == 0 ? Accum::kSet : Accum::kAdd, true, {}));
             }});
      }
    }
  }
}

void absorbed(std::vector<OpCase>& out) {
  for (int64_t n : {0, 1, 3, 17}) {
    for (auto [h, dn, dr, dv, rank] :
         {std::array<int, 5>{1, 8, 4, 8, 16}, {3, 16, 8, 24, 40}, {4, 7, 2, 5, 33}}) {
      for (Storage storage : {Storage::kOwn, Storage::kBF16, Storage::kFp8}) {
        Within within{.sums = 32, .mids = storage == Storage::kFp8 ? 1.0 : 0};
        out.push_back(
            {"absorb_query", n, true, [=, h = h, dn = dn, dr = dr, dv = dv, rank = rank](OpRun& r) {
               Weight& w = r.weight("kv_b", h * (dn + dv), rank, 1, 1, storage);
               Tensor q = r.input_rows("q", n, h * (dn + dr));
               r.dev.absorb_query(q, w, h, dn, dr, dv,
                                  r.output_rows("y", n, h * (rank + dr), within));
             }});
        out.push_back(
            {"absorb_output", n, true, [=, h = h, dn = dn, dv = dv, rank = rank](OpRun& r) {
               Weight& w = r.weight("kv_b", h * (dn + dv), rank, 1, 1, storage);
               r.dev.absorb_output(r.input_rows("x", n, h * rank), w, h, dn, dv,
                                   r.output_rows("y", n, h * dv, within));
             }});
      }
    }
  }
}

std::vector<int32_t> targets(OpRun& r, int64_t n, int64_t vocab) {
  std::vector<int32_t> out;
  for (int64_t i : r.rows(n))
    out.push_back(i % 5 == 2 ? -1 : static_cast<int32_t>((i * 31 + vocab - 1) % vocab));
  return out;
}

void head(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (auto [d, vocab] : {std::array<int64_t, 2>{16, 1}, {40, 33}, {129, 300}, {64, 2049}}) {
      // Logits of about ±5, so that the softmax is far from uniform.
      double temperature = vocab == 300 ? 0.8 : 1,
             scale = 5 * temperature / std::sqrt(static_cast<double>(d));
      Within logp{.sums = 256};
      out.push_back({"token_logp", n, true, [=, d = d, vocab = vocab](OpRun& r) {
                       Tensor h = r.input_rows("h", n, d);
                       Weight& w = r.weight("head", vocab, d, scale);
                       Targets target(r.index_row(targets(r, n, vocab)), {}, temperature);
                       r.dev.token_logp(h, w, target, r.output_f32_rows("logp", n, 1, logp),
                                        r.output_f32_rows("lse", n, 1, logp));
                     }});
      for (Accum accum : {Accum::kSet, Accum::kAdd}) {
        out.push_back(
            {"token_logp_backward", 0, false, [=, d = d, vocab = vocab](OpRun& r) {
               Tensor h = r.input("h", n, d);
               Weight& w = r.weight("head", vocab, d, scale);
               Targets target(r.index_row(targets(r, n, vocab)), {}, temperature);
               Tensor lse = r.output_f32("lse", n, 1, logp);
               r.dev.token_logp(h, w, target, r.output_f32("logp", n, 1, logp), lse);
               Tensor dlogp = r.input_f32("dlogp", n, 1);
               // A device may keep the logits' gradient in bf16.
               Within within{.sums = 256, .mids = 4};
               r.dev.token_logp_backward(
                   h, w, target, lse, dlogp, gradient(r, "dh", n, d, accum, false, within), accum,
                   gradient(r, "dhead", vocab, d, accum, true, within), accum);
               r.dev.token_logp_backward(h, w, target, lse, dlogp,
                                         gradient(r, "dh_frozen", n, d, accum, false, within),
                                         accum, Tensor(), accum);
             }});
      }
      out.push_back({"token_logp_and_gradient", n, true, [=, d = d, vocab = vocab](OpRun& r) {
                       // A device may round the softmax's terms to bf16, then their gradient.
                       Within within{.sums = 256, .mids = 5};
                       Tensor h = r.input_rows("h", n, d);
                       Weight& w = r.weight("head", vocab, d, scale);
                       Targets target(r.index_row(targets(r, n, vocab)), {}, temperature);
                       Tensor dlogp = r.input_f32_rows("dlogp", n, 1);
                       r.dev.token_logp_and_gradient(
                           h, w, target, dlogp, r.output_f32_rows("logp", n, 1, logp),
                           r.output_rows("dh", n, d, within), Tensor(), Accum::kSet);
                     }});
      for (Accum accum : {Accum::kSet, Accum::kAdd}) {
        out.push_back({"token_logp_and_gradient", 0, false, [=, d = d, vocab = vocab](OpRun& r) {
                         Within within{.sums = 256, .mids = 5};
                         Tensor h = r.input("h", n, d);
                         Weight& w = r.weight("head", vocab, d, scale);
                         Targets target(r.index_row(targets(r, n, vocab)), {}, temperature);
                         r.dev.token_logp_and_gradient(
                             h, w, target, r.input_f32("dlogp", n, 1),
                             r.output_f32("logp", n, 1, logp), Tensor(),
                             gradient(r, "dhead", vocab, d, accum, true, within), accum);
                       }});
      }
    }
  }
  out.push_back({"token_logp", 3, true,
                 [](OpRun& r) {  // logits of some thousands: the largest is subtracted first
                   Tensor h = r.input_rows("h", 3, 40, 30);
                   r.dev.token_logp(h, r.weight("head", 70, 40, 10), r.index_row(targets(r, 3, 70)),
                                    r.output_f32_rows("logp", 3, 1),
                                    r.output_f32_rows("lse", 3, 1));
                 }});
}

// A teacher's distributions: a third of the rows name fewer than k tokens, every fifth has none.
TopTokens teacher(OpRun& r, int64_t n, int64_t vocab, int64_t k) {
  std::vector<int32_t> id;
  std::vector<double> logp, tail;
  for (int64_t i : r.rows(n)) {
    int64_t named = i % 5 == 2 ? 0 : std::min(k - i % 3, vocab);
    double left = 1;
    for (int64_t j = 0; j < k; ++j) {
      // 7 steps of a generator of the whole vocabulary: distinct for every size in the cases.
      id.push_back(j < named ? static_cast<int32_t>((i * 31 + j * 7) % vocab) : -1);
      double q = static_cast<float>(left * (0.3 + 0.05 * static_cast<double>((i + j) % 5)));
      logp.push_back(j < named ? static_cast<double>(static_cast<float>(std::log(q))) : 0);
      if (j < named) left -= q;
    }
    tail.push_back(named == vocab ? 0 : static_cast<double>(static_cast<float>(left)));
  }
  auto rows = static_cast<int64_t>(tail.size());
  return {r.index(id, rows, k), r.given(logp, rows, k, r.f32()), r.given(tail, rows, 1, r.f32())};
}

void head_divergence(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (auto [d, vocab, k] :
         {std::array<int64_t, 3>{16, 1, 3}, {40, 33, 64}, {129, 300, 7}, {64, 2049, 64}}) {
      double scale = 5 / std::sqrt(static_cast<double>(d));
      Within near{.sums = 1024};
      for (KlParams p : {KlParams{false, 1}, KlParams{true, 1.5}}) {
        out.push_back({"token_kl", n, true, [=, d = d, vocab = vocab, k = k](OpRun& r) {
                         Tensor h = r.input_rows("h", n, d);
                         Weight& w = r.weight("head", vocab, d, scale);
                         r.dev.token_kl(h, w, teacher(r, n, vocab, k), p,
                                        r.output_f32_rows("kl", n, 1, near),
                                        r.output_f32_rows("slope", n, k + 2, near));
                       }});
        for (Accum accum : {Accum::kSet, Accum::kAdd}) {
          out.push_back(
              {"token_kl_backward", 0, false, [=, d = d, vocab = vocab, k = k](OpRun& r) {
                 Tensor h = r.input("h", n, d);
                 Weight& w = r.weight("head", vocab, d, scale);
                 TopTokens t = teacher(r, n, vocab, k);
                 Tensor slope = r.output_f32("slope", n, k + 2, near);
                 r.dev.token_kl(h, w, t, p, r.output_f32("kl", n, 1, near), slope);
                 Tensor dkl = r.input_f32("dkl", n, 1);
                 // A device may keep the logits' gradient in bf16.
                 Within within{.sums = 1024, .mids = 5};
                 r.dev.token_kl_backward(
                     h, w, t, p, slope, dkl, gradient(r, "dh", n, d, accum, false, within), accum,
                     gradient(r, "dhead", vocab, d, accum, true, within), accum);
                 r.dev.token_kl_backward(h, w, t, p, slope, dkl,
                                         gradient(r, "dh_frozen", n, d, accum, false, within),
                                         accum, Tensor(), accum);
               }});
        }
      }
      out.push_back({"top_tokens", n, true, [=, d = d, vocab = vocab, k = k](OpRun& r) {
                       Tensor h = r.input_rows("h", n, d);
                       Weight& w = r.weight("head", vocab, d, scale);
                       Tensor id = r.output_index("id", r.n(n), k, true);
                       r.dev.top_tokens(h, w, 1.5,
                                        {id, r.output_f32_rows("logp", n, k, near),
                                         r.output_f32_rows("tail", n, 1, near)});
                     }});
    }
  }
}

}  // namespace

std::vector<OpCase> matmul_ops() {
  std::vector<OpCase> out;
  plain(out);
  grouped(out);
  gated(out);
  muon(out);
  absorbed(out);
  head(out);
  head_divergence(out);
  return out;
}

}  // namespace wels
