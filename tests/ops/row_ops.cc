// Cases of the ops on rows: copies, gathers, embedding, norms, positions, activation, sums,
// optimiser.
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "tests/ops/op_run.h"

namespace wels {
namespace {

constexpr int64_t kWidths[] = {1, 7, 16, 40, 129, 256};

// Numbers in [0, below) that depend on the name only.
std::vector<int32_t> some(const std::string& name, int64_t n, int64_t below) {
  Rng rng(hash_name(name));
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i)
    out.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(below))));
  return out;
}

// The entries of `all` that belong to the rows of this call.
std::vector<int32_t> pick(OpRun& r, const std::vector<int32_t>& all) {
  std::vector<int32_t> out;
  for (int64_t i : r.rows(static_cast<int64_t>(all.size())))
    out.push_back(all[static_cast<size_t>(i)]);
  return out;
}

void copies(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (int64_t d : kWidths) {
      out.push_back({"copy", n, true, [=](OpRun& r) {
                       Tensor x = r.input_rows("x", n, d);
                       r.dev.copy(x, r.output_rows("same", n, d));
                       r.dev.copy(x, r.output_f32_rows("widened", n, d));
                       r.dev.copy(r.input_f32_rows("f", n, d), r.output_rows("narrowed", n, d));
                       Tensor sum = r.input_f32_rows("sum", n, d), own = r.input_rows("own", n, d);
                       r.compare("sum", sum, {}, true);
                       r.compare("own", own, {}, true);
                       r.dev.copy(x, sum, Accum::kAdd);
                       r.dev.copy(x, own, Accum::kAdd);
                     }});
      out.push_back({"zero", n, true, [=](OpRun& r) {
                       r.dev.zero(r.output_rows("t", n, d));
                       r.dev.zero(r.output_f32_rows("f", n, d));
                     }});
      out.push_back({"gather_rows", n, true, [=](OpRun& r) {
                       std::vector<int32_t> from = some("from", n, 9);
                       for (size_t i = 2; i < from.size(); i += 5) from[i] = -1;
                       r.dev.gather_rows(r.input("x", 9, d), r.index_row(pick(r, from)),
                                         r.output_rows("y", n, d));
                       r.dev.gather_rows(r.input_f32("f", 9, d), r.index_row(pick(r, from)),
                                         r.output_f32_rows("g", n, d));
                     }});
      out.push_back({"scatter_rows", 0, false, [=](OpRun& r) {
                       std::vector<int32_t> to;
                       for (int64_t i = 0; i < n; ++i)
                         to.push_back(i % 4 == 3 ? -1 : static_cast<int32_t>((i * 7 + 2) % 67));
                       Tensor y = r.input("y", 67, d + 3);  // wider, and only some rows are written
                       r.compare("y", y);
                       r.dev.scatter_rows(r.input("x", n, d), r.index_row(to), y.col_range(2, d));
                     }});
      // Rows of a KV cache of another type: what is written comes back, beside what was there.
      for (Storage type : {Storage::kF32, Storage::kBF16, kQ8}) {
        out.push_back({"rows_of_another_type", 0, false, [=](OpRun& r) {
                         bool blocks = type == kQ8;
                         int64_t width = blocks ? (d + 31) / 32 * 32 : d;
                         Tensor pool = r.weight("pool", 67, width + 64, 1, 1, type).value[0], part;
                         part = pool.col_range(32, width);
                         std::vector<int32_t> to, all;
                         for (int64_t i = 0; i < n; ++i)
                           to.push_back(i % 4 == 3 ? -1 : static_cast<int32_t>((i * 7 + 2) % 67));
                         for (int32_t i = 0; i < 67; ++i) all.push_back(i % 9 == 8 ? -1 : i);
                         r.dev.scatter_rows(r.input("x", n, d), r.index_row(to), part);
                         r.dev.gather_rows(pool, r.index_row(all), r.output("y", 67, width + 64));
                         r.dev.gather_rows(part, r.index_row(all), r.output("part", 67, width));
                       }});
      }
      for (Accum accum : {Accum::kSet, Accum::kAdd}) {
        out.push_back(
            {"gather_sum", n, true, [=](OpRun& r) {
               std::vector<int32_t> index;
               std::vector<int32_t> all = some("index", n * 3, 20);
               for (int64_t i : r.rows(n)) {
                 for (int64_t j = 0; j < 3; ++j)
                   index.push_back(i % 4 == 1 && j != 1 ? -1 : all[static_cast<size_t>(i * 3 + j)]);
               }
               int64_t m = r.n(n);
               Tensor y = accum == Accum::kAdd ? r.input_rows("y", n, d) : r.output_rows("y", n, d);
               if (accum == Accum::kAdd) r.compare("y", y, {}, true);
               r.dev.gather_sum(r.input("x", 20, d), r.index(index, m, 3), y, accum);
             }});
      }
    }
  }
}

void embedding(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (int64_t d : kWidths) {
      for (Storage storage : kStored) {
        if (storage >= Storage::kBlocks && d != 256) continue;
        out.push_back({"embed", n, true, [=](OpRun& r) {
                         Weight& w = r.weight("w", 200, d, 1, 1, storage);
                         r.dev.embed(r.index_row(pick(r, some("ids", n, 200))), w,
                                     r.output_rows("y", n, d));
                         r.dev.embed(r.index_row(pick(r, some("ids", n, 200))), w,
                                     r.output_f32_rows("residual", n, d));
                       }});
      }
      out.push_back({"embed_backward", 0, false, [=](OpRun& r) {
                       Tensor dw = r.input_f32("dw", 11, d);  // fewer words than rows: repeated ids
                       r.compare("dw", dw);
                       r.dev.embed_backward(r.index_row(some("ids", n, 11)), r.input("dy", n, d),
                                            dw);
                     }});
    }
  }
}

void norms(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (int64_t d : kWidths) {
      for (bool wide : {false, true}) {  // x f32 (the residual stream) or T
        out.push_back(
            {"rms_norm", n, true, [=](OpRun& r) {
               Tensor x = wide ? r.input_f32_rows("x", n, d, 3) : r.input_rows("x", n, d, 3);
               Weight& gain = r.weight("gain", 1, d, 1, 1, Storage::kOwn, true);
               r.dev.rms_norm(x, gain, 1e-6f, r.output_rows("y", n, d),
                              r.output_f32_rows("inv", n, 1));
               r.dev.rms_norm(x, gain, 0.5f, r.output_rows("without_inv", n, d), Tensor());
             }});
        for (Accum accum : {Accum::kSet, Accum::kAdd}) {
          out.push_back(
              {"rms_norm_backward", n, false, [=](OpRun& r) {
                 Tensor x = wide ? r.input_f32("x", n, d, 3) : r.input("x", n, d, 3);
                 Weight& gain = r.weight("gain", 1, d, 1, 1, Storage::kOwn, true);
                 Tensor inv = r.output_f32("inv", n, 1), dy = r.input("dy", n, d);
                 r.dev.rms_norm(x, gain, 1e-6f, r.output("y", n, d), inv);
                 double terms =
                     d == 1 ? 32
                            : 1;  // in one column, dx is the difference of two nearly equal terms
                 Within within{.sums = 32, .terms = terms};
                 Tensor dx = wide ? r.input_f32("dx", n, d) : r.input("dx", n, d);
                 if (accum == Accum::kSet)
                   dx = wide ? r.output_f32("dx", n, d, within) : r.output("dx", n, d, within);
                 if (accum == Accum::kAdd) r.compare("dx", dx, within);
                 Tensor dgain = r.input_f32("dgain", 1, d);
                 r.compare("dgain", dgain, {.sums = 64});
                 r.dev.rms_norm_backward(x, gain, inv, dy, dx, accum, dgain);
                 Tensor frozen =
                     wide ? r.output_f32("frozen", n, d, within) : r.output("frozen", n, d, within);
                 r.dev.rms_norm_backward(x, gain, inv, dy, frozen, Accum::kSet, Tensor());
               }});
        }
      }
    }
  }
  out.push_back({"rms_norm", 4, true, [](OpRun& r) {  // a row of zeros, tiny and huge rows
                   std::vector<double> v(4 * 20, 0.0);
                   for (int64_t c = 0; c < 20; ++c) {
                     v[static_cast<size_t>(20 + c)] = 0x1p-50 * static_cast<double>(c + 1);
                     v[static_cast<size_t>(40 + c)] = 0x1p50 * static_cast<double>(c - 7);
                     v[static_cast<size_t>(60 + c)] = static_cast<double>(c);
                   }
                   std::vector<double> own;
                   for (int64_t i : r.rows(4))
                     own.insert(own.end(), v.begin() + i * 20, v.begin() + (i + 1) * 20);
                   Weight& gain = r.weight("gain", 1, 20, 1, 1, Storage::kOwn, true);
                   r.dev.rms_norm(r.given(own, r.n(4), 20, r.t()), gain, 1e-6f,
                                  r.output_rows("y", 4, 20), Tensor());
                 }});
}

void positions(std::vector<OpCase>& out) {
  struct Shape {
    int heads, head_dim, rotated;
  };
  for (int64_t n : kRowCounts) {
    for (Shape s : {Shape{1, 2, 2}, {1, 64, 64}, {3, 24, 8}, {2, 25, 10}, {5, 48, 16}}) {
      for (int form = 0; form < 8; ++form) {
        out.push_back(
            {"rope", n, true, [=](OpRun& r) {
               RopeParams p{.heads = s.heads,
                            .head_dim = s.head_dim,
                            .rotated = s.rotated,
                            .interleaved = (form & 1) == 0,
                            .inverse = (form & 2) != 0};
               int64_t cols = int64_t{s.heads} * s.head_dim;
               Tensor cos = r.input_f32("cos", 50, s.rotated / 2),
                      sin = r.input_f32("sin", 50, s.rotated / 2);
               Tensor y = form & 4 ? r.input_rows("y", n, cols) : r.output_rows("y", n, cols);
               if (form & 4) r.compare("y", y, {}, true);
               r.dev.rope(r.input_rows("x", n, cols), r.index_row(pick(r, some("pos", n, 50))), cos,
                          sin, p, y, form & 4 ? Accum::kAdd : Accum::kSet);
             }});
      }
    }
  }
}

void sums(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (int64_t d : kWidths) {
      out.push_back({"add", n, true, [=](OpRun& r) {
                       Tensor a = r.input_rows("a", n, d), b = r.input_rows("b", n, d),
                              f = r.input_f32_rows("f", n, d);
                       r.dev.add(a, b, r.output_rows("y", n, d));
                       r.dev.add(f, b, r.output_f32_rows("residual", n, d));
                       r.compare("in_place", f, {}, true);
                       r.dev.add(f, b, f);
                     }});
      out.push_back({"swiglu", n, true, [=](OpRun& r) {
                       r.dev.swiglu(r.input_rows("g", n, d, 3), r.input_rows("u", n, d),
                                    r.output_rows("y", n, d));
                     }});
      for (Accum accum : {Accum::kSet, Accum::kAdd}) {
        out.push_back({"scale", n, true, [=](OpRun& r) {
                         Tensor y = accum == Accum::kAdd ? r.input_rows("y", n, d)
                                                         : r.output_rows("y", n, d);
                         if (accum == Accum::kAdd) r.compare("y", y, {}, true);
                         r.dev.scale(r.input_rows("x", n, d), 0.75f, y, accum);
                       }});
        out.push_back({"column_sum", 0, false, [=](OpRun& r) {
                         Tensor db = accum == Accum::kAdd ? r.input_f32("db", 1, d)
                                                          : r.output_f32("db", 1, d, {.sums = 64});
                         if (accum == Accum::kAdd) r.compare("db", db, {.sums = 64});
                         r.dev.column_sum(r.input("dy", n, d), db, accum);
                       }});
      }
    }
  }
  for (const char* op : {"add", "rms_norm", "copy"}) {
    out.push_back(
        {op, 0, false,
         [=](OpRun& r) {  // NaN and infinities go where they go on ref, also in vector tails
           double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
           std::vector<double> a(3 * 37, 0.5), b(3 * 37, 2);
           a[1] = nan, a[36] = inf, a[40] = -inf, a[70] = inf, b[5] = nan, b[38] = inf,
           b[73] = -inf, a[73] = 0;
           Tensor x = r.given(a, 3, 37, r.t()), z = r.given(b, 3, 37, r.t());
           std::string name = op;
           if (name == "add") r.dev.add(x, z, r.output("y", 3, 37));
           if (name == "copy") r.dev.copy(x, r.output_f32("y", 3, 37));
           if (name == "rms_norm") {
             Weight& gain = r.weight("gain", 1, 37, 1, 1, Storage::kOwn, true);
             r.dev.rms_norm(x, gain, 1e-6f, r.output("y", 3, 37), r.output_f32("inv", 3, 1));
           }
         }});
  }
}

void optimisers(std::vector<OpCase>& out) {
  for (int64_t n : {0, 1, 3, 17}) {
    for (int64_t d : {1, 7, 16, 129, 1000}) {
      out.push_back({"sum_squares", 0, false, [=](OpRun& r) {
                       // In f64 whatever the device: within a few roundings of f64.
                       r.number("f32", r.dev.sum_squares(r.input_f32("t", n, d)), {.sums = 1e-6});
                       r.number("t", r.dev.sum_squares(r.input("u", n, d)), {.sums = 1e-6});
                     }});
      out.push_back(
          {"sum_squares", 0, false, [=](OpRun& r) {
             if (n == 0) return;
             for (double bad :
                  {std::nan(""), static_cast<double>(std::numeric_limits<float>::infinity())}) {
               Tensor t = r.input_f32("t", n, d);
               set_element(t, n - 1, d - 1, bad);
               r.number("finite", std::isfinite(r.dev.sum_squares(t)));
             }
           }});
      out.push_back({"adamw", 0, false, [=](OpRun& r) {
                       AdamWParams p{.lr = 1e-2f,
                                     .beta1 = 0.9f,
                                     .beta2 = 0.95f,
                                     .eps = 1e-8f,
                                     .weight_decay = 0.1f,
                                     .grad_scale = 0.25f,
                                     .bias1 = 0.1f,
                                     .bias2 = 0.05f};
                       Tensor w = r.input_f32("w", n, d), g = r.input_f32("g", n, d),
                              m = r.input_f32("m", n, d, 0.1);
                       Tensor v = r.input_f32("v", n, d, 0.1);
                       for (int64_t i = 0; i < n; ++i) {
                         for (int64_t c = 0; c < d; ++c)
                           set_element(v, i, c, std::fabs(element(v, i, c)));
                       }
                       r.compare("w", w);
                       r.compare("m", m);
                       r.compare("v", v);
                       r.dev.adamw(w, g, m, v, p);
                       p.weight_decay = 0;
                       p.bias1 = p.bias2 = 1;
                       r.dev.adamw(w, g, m, v, p);
                     }});
      out.push_back({"axpby", 0, false, [=](OpRun& r) {
                       Tensor y = r.input_f32("y", n, d);
                       r.compare("y", y);
                       r.dev.axpby(0.3f, r.input_f32("x", n, d), -1.7f, y);
                     }});
    }
  }
}

}  // namespace

std::vector<OpCase> row_ops() {
  std::vector<OpCase> out;
  copies(out);
  embedding(out);
  norms(out);
  positions(out);
  sums(out);
  optimisers(out);
  return out;
}

}  // namespace wels
