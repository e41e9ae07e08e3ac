// Cases of attention: every layout the models use (separate keys and values, MLA's interleaved ones
// with shared RoPE columns, absorbed MLA over the cache), in ragged batches.
#include <cmath>

#include "base/rng.h"
#include "tests/ops/op_run.h"

namespace wels {
namespace {

struct Layout {
  int heads, kv_heads, dk, dr, dv;
  bool interleaved;  // keys and values of a head side by side in one tensor
};

constexpr Layout kLayouts[] = {
    {1, 1, 8, 0, 8, false},   {4, 2, 16, 0, 16, false},   {6, 1, 20, 0, 12, false},
    {3, 3, 16, 8, 16, true},  {2, 2, 7, 3, 5, true},      {4, 4, 32, 16, 32, true},
    {2, 2, 64, 32, 64, true}, {2, 2, 128, 64, 128, true},
};

struct Lengths {
  int64_t q_rows, k_rows;
};

// Packed documents, and chunks that continue what came before them.
const std::vector<std::vector<Lengths>>& batches() {
  static const std::vector<std::vector<Lengths>> all{
      {},
      {{1, 1}},
      {{5, 5}},
      {{1, 1}, {17, 17}, {3, 3}},
      {{33, 33}, {1, 40}, {6, 70}},
      {{3, 130}, {64, 64}},
      {{65, 65}, {2, 2}},
  };
  return all;
}

int64_t queries(const std::vector<Lengths>& b) {
  int64_t n = 0;
  for (const Lengths& s : b) n += s.q_rows;
  return n;
}
int64_t keys(const std::vector<Lengths>& b) {
  int64_t n = 0;
  for (const Lengths& s : b) n += s.k_rows;
  return n;
}

// Segments for the rows of this call: whole ones for all rows, else each query by itself.
std::vector<AttendSegment> segments_of(OpRun& r, const std::vector<Lengths>& b, bool apart) {
  std::vector<AttendSegment> out, single;
  int64_t q = 0, k = 0;
  for (const Lengths& s : b) {
    out.push_back({q, s.q_rows, k, s.k_rows});
    for (int64_t i = 0; i < s.q_rows; ++i) single.push_back({0, 1, k, s.k_rows - s.q_rows + i + 1});
    q += s.q_rows;
    k += s.k_rows;
  }
  if (!apart) return out;
  out.clear();
  for (int64_t i : r.rows(q)) {
    out.push_back(single[static_cast<size_t>(i)]);
    out.back().q_begin = static_cast<int64_t>(out.size()) - 1;
  }
  return out;
}

struct Inputs {
  AttendParams p;
  Tensor q, k, v, shared;
  std::vector<AttendSegment> segments;
};

Inputs inputs(OpRun& r, const Layout& l, const std::vector<Lengths>& b) {
  Inputs in;
  int64_t nq = queries(b), nk = keys(b);
  int step = l.interleaved ? l.dk + l.dv : 0;
  in.p = {.heads = l.heads,
          .kv_heads = l.kv_heads,
          .dk = l.dk,
          .dr = l.dr,
          .dv = l.dv,
          .k_step = step ? step : l.dk,
          .v_step = step ? step : l.dv,
          .scale = 1 / std::sqrt(l.dk + l.dr)};
  in.q = r.input_rows("q", nq, int64_t{l.heads} * (l.dk + l.dr), 2);
  if (l.interleaved) {
    in.k = r.input("kv", nk, int64_t{l.kv_heads} * step);
    in.v = in.k.col_range(l.dk, in.k.cols - l.dk);
  } else {
    in.k = r.input("k", nk, int64_t{l.kv_heads} * l.dk);
    in.v = r.input("v", nk, int64_t{l.kv_heads} * l.dv);
  }
  if (l.dr > 0) in.shared = r.input("shared", nk, l.dr);
  in.segments = segments_of(r, b, r.n(nq) != nq);
  return in;
}

void training(std::vector<OpCase>& out) {
  for (const Layout& l : kLayouts) {
    for (const auto& b : batches()) {
      int64_t nq = queries(b), nk = keys(b);
      out.push_back(
          {"attend", nq, true, [=](OpRun& r) {
             Inputs in = inputs(r, l, b);
             r.dev.attend(in.q, in.k, in.v, in.shared, in.segments, in.p,
                          r.output_rows("y", nq, int64_t{l.heads} * l.dv, {.sums = 64, .mids = 2}),
                          r.output_f32_rows("lse", nq, l.heads, {.sums = 64, .terms = 1}));
             r.dev.attend(
                 in.q, in.k, in.v, in.shared, in.segments, in.p,
                 r.output_rows("without_lse", nq, int64_t{l.heads} * l.dv, {.sums = 64, .mids = 2}),
                 Tensor());
           }});
      out.push_back(
          {"attend_backward", 0, false, [=](OpRun& r) {
             Inputs in = inputs(r, l, b);
             Tensor y = r.output("y", nq, int64_t{l.heads} * l.dv, {.sums = 64, .mids = 2});
             Tensor lse = r.output_f32("lse", nq, l.heads, {.sums = 64, .terms = 1});
             r.dev.attend(in.q, in.k, in.v, in.shared, in.segments, in.p, y, lse);
             // The probabilities, their gradient and y go through bf16.
             Within within{.sums = 128, .mids = 8, .terms = 1};
             Tensor dq = r.output("dq", nq, in.q.cols, within), dk, dv, dshared;
             if (l.interleaved) {
               dk = r.output("dkv", nk, in.k.cols, within);
               dv = dk.col_range(l.dk, dk.cols - l.dk);
             } else {
               dk = r.output("dk", nk, in.k.cols, within);
               dv = r.output("dv", nk, in.v.cols, within);
             }
             if (l.dr > 0) dshared = r.output("dshared", nk, l.dr, within);
             r.dev.attend_backward(in.q, in.k, in.v, in.shared, in.segments, in.p, y, lse,
                                   r.input("dy", nq, int64_t{l.heads} * l.dv), dq, dk, dv, dshared);
           }});
    }
  }
}

struct Cache {
  int heads, kv_heads, dk, dr, dv, k_col, v_col, k_step, v_step;
  int64_t width;
  Storage pool = Storage::kOwn;  // kOwn: T
  int shared_col = -1;
};

void cached(std::vector<OpCase>& out) {
  // GQA: keys, then values. Absorbed MLA: [latent ; k^R], the latent is the value too.
  for (Cache c :
       {Cache{4, 2, 16, 0, 16, 0, 32, 16, 16, 64}, Cache{6, 1, 20, 0, 12, 0, 20, 20, 12, 32},
        Cache{4, 1, 32, 8, 32, 0, 0, 40, 40, 40}, Cache{16, 1, 128, 16, 128, 0, 0, 144, 144, 144},
        Cache{3, 1, 33, 5, 33, 0, 0, 38, 38, 38},
        // Expanded MLA: keys and values of each head, then k^R.
        Cache{4, 4, 16, 8, 12, 0, 16, 28, 28, 120, Storage::kOwn, 112},
        Cache{5, 5, 19, 3, 7, 0, 19, 26, 26, 133, Storage::kOwn, 130},
        // Other types, the shared columns elsewhere, heads that begin with a block.
        Cache{4, 2, 16, 0, 16, 0, 32, 16, 16, 64, Storage::kBF16},
        Cache{4, 1, 32, 8, 32, 0, 0, 40, 40, 64, Storage::kF32, 48},
        Cache{4, 2, 16, 0, 24, 0, 64, 32, 32, 128, kQ8},
        Cache{16, 1, 128, 16, 128, 0, 0, 0, 0, 160, kQ8, 128},
        Cache{3, 1, 33, 5, 33, 32, 32, 0, 0, 128, kQ8, 96}}) {
    for (int page_rows : {1, 16, 64}) {
      for (const auto& b : batches()) {
        int64_t nq = queries(b);
        out.push_back(
            {"attend_cached", nq, true, [=](OpRun& r) {
               AttendParams p{.heads = c.heads,
                              .kv_heads = c.kv_heads,
                              .dk = c.dk,
                              .dr = c.dr,
                              .dv = c.dv,
                              .k_step = c.k_step,
                              .v_step = c.v_step,
                              .scale = 1 / std::sqrt(c.dk + c.dr),
                              .shared_col = c.shared_col};
               // Pages of the sequences lie anywhere in the pool: a fixed shuffle.
               int64_t pages = 1;
               for (const Lengths& s : b) pages += (s.k_rows + page_rows - 1) / page_rows;
               std::vector<int32_t> order;
               for (int64_t i = 0; i < pages; ++i) order.push_back(static_cast<int32_t>(i));
               Rng rng(static_cast<uint64_t>(pages));
               for (size_t i = order.size(); i > 1; --i)
                 std::swap(order[i - 1], order[rng.below(i)]);
               std::vector<CachedSegment> whole, single, segments;
               int64_t q = 0;
               size_t page = 1;  // one page belongs to nobody
               for (const Lengths& s : b) {
                 size_t count = static_cast<size_t>((s.k_rows + page_rows - 1) / page_rows);
                 std::span<const int32_t> mine(order.data() + page, count);
                 page += count;
                 whole.push_back({q, s.q_rows, s.k_rows, mine});
                 for (int64_t i = 0; i < s.q_rows; ++i)
                   single.push_back({0, 1, s.k_rows - s.q_rows + i + 1, mine});
                 q += s.q_rows;
               }
               Tensor pool =
                   c.pool == Storage::kOwn
                       ? r.input("pool", pages * page_rows, c.width)
                       : r.weight("pool", pages * page_rows, c.width, 1, 1, c.pool).value[0];
               // Values of another type may be rounded to bf16 first.
               double mids = c.pool == Storage::kOwn ? 2 : 8;
               Tensor mq = r.input_rows("q", nq, int64_t{c.heads} * (c.dk + c.dr), 2);
               segments = whole;
               if (r.n(nq) != nq) {
                 segments.clear();
                 for (int64_t i : r.rows(nq)) {
                   segments.push_back(single[static_cast<size_t>(i)]);
                   segments.back().q_begin = static_cast<int64_t>(segments.size()) - 1;
                 }
               }
               r.dev.attend_cached(
                   mq, pool, page_rows, segments, p, c.k_col, c.v_col,
                   r.output_rows("y", nq, int64_t{c.heads} * c.dv, {.sums = 64, .mids = mids}));
             }});
      }
    }
  }
}

}  // namespace

std::vector<OpCase> attend_ops() {
  std::vector<OpCase> out;
  training(out);
  cached(out);
  return out;
}

}  // namespace wels
