// Cases of the mixture of experts: routing in its V2 and V3 forms, balance loss, dispatch and
// combine.
#include <array>

#include "base/rng.h"
#include "tests/ops/op_run.h"

namespace wels {
namespace {

std::vector<RouteParams> forms() {
  return {
      {.experts = 32, .top_k = 6, .groups = 8, .top_groups = 4, .scale = 2.5},
      {.experts = 32, .top_k = 8, .groups = 4, .top_groups = 2, .normalize = false, .scale = 2.5},
      {.experts = 37, .top_k = 5, .groups = 1, .top_groups = 1, .scale = 1},
      {.experts = 8, .top_k = 2, .groups = 8, .top_groups = 3, .scale = 1.5},  // groups of one
      {.experts = 64,
       .top_k = 6,
       .groups = 1,
       .top_groups = 1,
       .sigmoid = false,
       .normalize = false,
       .scale = 1},
      {.experts = 160,
       .top_k = 6,
       .groups = 8,
       .top_groups = 3,
       .sigmoid = false,
       .group_top2 = false,
       .normalize = false,
       .scale = 16},
      {.experts = 5, .top_k = 5, .groups = 1, .top_groups = 1, .sigmoid = false, .scale = 1},
      {.experts = 1, .top_k = 1, .groups = 1, .top_groups = 1, .scale = 1},
      {.experts = 256, .top_k = 8, .groups = 8, .top_groups = 4, .scale = 2.5},
  };
}

void routing(std::vector<OpCase>& out) {
  for (const RouteParams& p : forms()) {
    for (int64_t n : kRowCounts) {
      for (bool biased : {true, false}) {
        out.push_back({"route", n, true, [=](OpRun& r) {
                         Tensor bias = biased ? r.input_f32("bias", 1, p.experts, 0.1) : Tensor();
                         Tensor load = r.output_index("load", 1, p.experts);
                         r.dev.route(r.input_f32_rows("logits", n, p.experts, 2), bias, Tensor(), p,
                                     r.output_index("expert", r.n(n), p.top_k, true),
                                     r.output_f32_rows("weight", n, p.top_k), load);
                       }});
      }
      out.push_back({"route_backward", n, true, [=](OpRun& r) {
                       std::vector<int32_t> expert;
                       for (int64_t i : r.rows(n)) {
                         for (int j = 0; j < p.top_k; ++j)
                           expert.push_back(static_cast<int32_t>((i * 5 + j) % p.experts));
                       }
                       Tensor weight = r.input_f32_rows("weight", n, p.top_k);
                       r.dev.route_backward(
                           r.input_f32_rows("logits", n, p.experts, 2),
                           r.index(expert, r.n(n), p.top_k), weight,
                           r.input_f32_rows("dweight", n, p.top_k), p,
                           r.output_f32_rows("dlogits", n, p.experts, {.sums = 64, .terms = 1}));
                     }});
      out.push_back({"balance_loss", 0, false, [=](OpRun& r) {
                       std::vector<AttendSegment> segments;
                       for (int64_t at = 0; at < n; at += 7)
                         segments.push_back(
                             {at, std::min<int64_t>(7, n - at), at, std::min<int64_t>(7, n - at)});
                       Tensor logits = r.input_f32("logits", n, p.experts, 2),
                              dlogits = r.input_f32("dlogits", n, p.experts, 1e-3);
                       r.number("loss", r.dev.balance_loss(logits, segments, p));
                       r.compare("dlogits", dlogits, {.sums = 64});
                       r.dev.balance_loss_backward(logits, segments, p, 0.25f, dlogits);
                     }});
    }
    // All scores equal: the lowest numbers win, in groups and among experts.
    out.push_back({"route", 5, true, [=](OpRun& r) {
                     std::vector<double> same(static_cast<size_t>(r.n(5) * p.experts), 0.375);
                     r.dev.route(r.given(same, r.n(5), p.experts, r.f32()), Tensor(), Tensor(), p,
                                 r.output_index("expert", r.n(5), p.top_k, true),
                                 r.output_f32_rows("weight", 5, p.top_k),
                                 r.output_index("load", 1, p.experts));
                   }});
    out.push_back({"route", 9, true, [=](OpRun& r) {  // saturated scores
                     r.dev.route(r.input_f32_rows("logits", 9, p.experts, 6),
                                 r.input_f32("bias", 1, p.experts, 3), Tensor(), p,
                                 r.output_index("expert", r.n(9), p.top_k, true),
                                 r.output_f32_rows("weight", 9, p.top_k),
                                 r.output_index("load", 1, p.experts));
                   }});
  }
}

// k distinct experts per row.
std::vector<int32_t> choices(int64_t n, int experts, int k) {
  Rng rng(hash_name("choices"));
  std::vector<int32_t> out;
  for (int64_t t = 0; t < n; ++t) {
    int32_t first = static_cast<int32_t>(rng.below(static_cast<uint64_t>(experts)));
    for (int j = 0; j < k; ++j) out.push_back((first + j) % experts);
  }
  return out;
}

void sorting(std::vector<OpCase>& out) {
  for (int64_t n : kRowCounts) {
    for (auto [experts, k] : {std::array<int, 2>{1, 1}, {4, 2}, {37, 5}, {256, 8}}) {
      out.push_back({"dispatch", 0, false, [=, experts = experts, k = k](OpRun& r) {
                       r.dev.dispatch(r.index(choices(n, experts, k), n, k), experts,
                                      r.output_index("offsets", 1, experts + 1),
                                      r.output_index("token_of", 1, n * k),
                                      r.output_index("slot_of", n, k));
                     }});
    }
    for (int64_t d : {1, 16, 40, 129}) {
      for (int k : {1, 3, 8}) {
        // Slots in an order that is not the rows'.
        auto slots = [=](OpRun& r) {
          std::vector<int32_t> out;
          for (int64_t i : r.rows(n)) {
            for (int j = 0; j < k; ++j)
              out.push_back(static_cast<int32_t>(n * k - 1 - (i * k + j)));
          }
          return out;
        };
        out.push_back({"combine", n, true, [=](OpRun& r) {
                         Tensor rows = r.input("rows", n * k, d),
                                weight = r.input_f32_rows("weight", n, k);
                         Tensor slot_of = r.index(slots(r), r.n(n), k);
                         r.dev.combine(rows, slot_of, weight, Tensor(), r.output_rows("y", n, d));
                         r.dev.combine(rows, slot_of, weight, r.input_rows("extra", n, d),
                                       r.output_rows("with_shared", n, d));
                       }});
        out.push_back(
            {"combine_backward", 0, false, [=](OpRun& r) {
               Tensor rows = r.input("rows", n * k, d), weight = r.input_f32("weight", n, k);
               r.dev.combine_backward(rows, r.index(slots(r), n, k), weight, r.input("dy", n, d),
                                      r.output("drows", n * k, d), r.output_f32("dweight", n, k));
             }});
      }
    }
  }
}

}  // namespace

std::vector<OpCase> moe_ops() {
  std::vector<OpCase> out;
  routing(out);
  sorting(out);
  return out;
}

}  // namespace wels
