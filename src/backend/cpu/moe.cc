// Routing (V3 eq. 12-20) and the movement of rows to and from experts, rows over the threads.
// Nothing here depends on the number of threads: counts are integers, and what sums over rows does
// so in blocks of fixed size, added in order.
#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/row_type.h"

namespace wels {
namespace {

constexpr int64_t kBalanceBlock = 64;  // rows per partial sum

// One thread's working memory for rows of e experts.
struct Scratch {
  std::vector<float> s, select, best;
  std::vector<int32_t> chosen;
  explicit Scratch(const RouteParams& p)
      : s(static_cast<size_t>(p.experts)), select(s.size()), best(s.size()), chosen(s.size()) {}
};

// Routing costs about 8 elementwise passes over the scores.
int64_t route_grain(const RouteParams& p) { return row_grain(int64_t{p.experts} * 8); }

// Sets the selection scores of experts outside the best groups to -infinity.
void limit_groups(const RowKernels& k, const RouteParams& p, Scratch& w) {
  if (p.top_groups >= p.groups) return;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  int size = p.experts / p.groups;
  std::vector<float> group(static_cast<size_t>(p.groups));
  for (int g = 0; g < p.groups; ++g) {
    float first = kNone, second = kNone;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      float x = w.select[static_cast<size_t>(e)];
      second = std::max(second, std::min(first, x));
      first = std::max(first, x);
    }
    group[static_cast<size_t>(g)] = first + (p.group_top2 && size > 1 ? second : 0.0f);
  }
  k.top_k(group.data(), p.groups, p.top_groups, w.chosen.data(), w.best.data());
  std::vector<bool> open(static_cast<size_t>(p.groups));
  for (int j = 0; j < p.top_groups; ++j)
    open[static_cast<size_t>(w.chosen[static_cast<size_t>(j)])] = true;
  for (int g = 0; g < p.groups; ++g) {
    if (!open[static_cast<size_t>(g)]) std::fill_n(w.select.begin() + g * size, size, kNone);
  }
}

// f and P of every segment (V3 eq. 18-20), [segments, experts].
struct Balance {
  std::vector<float> f, share;
};
struct Block {
  size_t segment;
  int64_t begin, rows;
};

Balance balance(const RowKernels& k, const Tensor& logits, std::span<const AttendSegment> segments,
                const RouteParams& p) {
  size_t experts = static_cast<size_t>(p.experts);
  std::vector<Block> blocks;
  for (size_t i = 0; i < segments.size(); ++i) {
    for (int64_t r = 0; r < segments[i].q_rows; r += kBalanceBlock) {
      blocks.push_back(
          {i, segments[i].q_begin + r, std::min(kBalanceBlock, segments[i].q_rows - r)});
    }
  }
  std::vector<float> share(blocks.size() * experts);
  std::vector<int32_t> count(blocks.size() * experts);
  parallel_for(static_cast<int64_t>(blocks.size()), route_grain(p) / kBalanceBlock + 1,
               [&](int64_t begin, int64_t end) {
                 Scratch w(p);
                 for (size_t b = static_cast<size_t>(begin); b < static_cast<size_t>(end); ++b) {
                   for (int64_t t = blocks[b].begin; t < blocks[b].begin + blocks[b].rows; ++t) {
                     k.scores(logits.row<float>(t), p.experts, p.sigmoid, w.s.data());
                     k.scale(1.0f / k.sum(w.s.data(), p.experts), w.s.data(),
                             share.data() + b * experts, p.experts, true);
                     k.top_k(w.s.data(), p.experts, p.top_k, w.chosen.data(), w.best.data());
                     for (int j = 0; j < p.top_k; ++j)
                       ++count[b * experts + static_cast<size_t>(w.chosen[static_cast<size_t>(j)])];
                   }
                 }
               });
  Balance out{std::vector<float>(segments.size() * experts),
              std::vector<float>(segments.size() * experts)};
  for (size_t b = 0; b < blocks.size(); ++b) {
    size_t i = blocks[b].segment;
    float rows = static_cast<float>(segments[i].q_rows);
    for (size_t e = 0; e < experts; ++e) {
      out.share[i * experts + e] += share[b * experts + e] / rows;
      out.f[i * experts + e] += static_cast<float>(count[b * experts + e]) *
                                static_cast<float>(p.experts) /
                                (static_cast<float>(p.top_k) * rows);
    }
  }
  return out;
}

// By the scores w.s, which must be there.
void choose(const RowKernels& k, const RouteParams& p, const Tensor& bias, Scratch& w,
            int32_t* chosen) {
  if (bias.empty()) {
    std::copy(w.s.begin(), w.s.end(), w.select.begin());
  } else {
    k.add[0][0](w.s.data(), bias.row<float>(0), w.select.data(), p.experts);
  }
  limit_groups(k, p, w);
  k.top_k(w.select.data(), p.experts, p.top_k, chosen, w.best.data());
}

}  // namespace

void CpuDevice::route(const Tensor& logits, const Tensor& bias, const Tensor& given,
                      const RouteParams& p, Tensor expert, Tensor weight, Tensor load) {
  bool known = logits.dtype == DType::kF32 && weight.dtype == DType::kF32 &&
               (bias.empty() || bias.dtype == DType::kF32);
  if (!known) return RefDevice::route(logits, bias, given, p, expert, weight, load);
  CHECK(logits.cols == p.experts);
  CHECK(p.top_k <= p.experts);
  const RowKernels& k = *k_->rows;
  int32_t* total = load.row<int32_t>(0);
  std::fill_n(total, p.experts, 0);
  std::mutex lock;
  parallel_for(logits.rows, route_grain(p), [&](int64_t begin, int64_t end) {
    Scratch w(p);
    std::vector<int32_t> count(static_cast<size_t>(p.experts));
    for (int64_t t = begin; t < end; ++t) {
      k.scores(logits.row<float>(t), p.experts, p.sigmoid, w.s.data());
      int32_t* chosen = expert.row<int32_t>(t);
      const int32_t* own = given.empty() ? nullptr : given.row<int32_t>(t);
      if (own && own[0] >= 0) {
        std::copy_n(own, p.top_k, chosen);
      } else {
        choose(k, p, bias, w, chosen);
      }
      float sum = 0;
      for (int j = 0; j < p.top_k; ++j) sum += w.s[static_cast<size_t>(chosen[j])];
      for (int j = 0; j < p.top_k; ++j) {
        ++count[static_cast<size_t>(chosen[j])];
        weight.row<float>(t)[j] = w.s[static_cast<size_t>(chosen[j])] / (p.normalize ? sum : 1.0f) *
                                  static_cast<float>(p.scale);
      }
    }
    std::lock_guard hold(lock);
    for (int e = 0; e < p.experts; ++e) total[e] += count[static_cast<size_t>(e)];
  });
}

void CpuDevice::route_backward(const Tensor& logits, const Tensor& expert, const Tensor& weight,
                               const Tensor& dweight, const RouteParams& p, Tensor dlogits) {
  if (logits.dtype != DType::kF32 || dweight.dtype != DType::kF32 || dlogits.dtype != DType::kF32) {
    return RefDevice::route_backward(logits, expert, weight, dweight, p, dlogits);
  }
  const RowKernels& k = *k_->rows;
  parallel_for(logits.rows, route_grain(p), [&](int64_t begin, int64_t end) {
    Scratch w(p);
    size_t top_k = static_cast<size_t>(p.top_k);
    std::vector<float> score(top_k), picked(top_k), ds(top_k);
    for (int64_t t = begin; t < end; ++t) {
      const int32_t* chosen = expert.row<int32_t>(t);
      const float* dw = dweight.row<float>(t);
      if (p.sigmoid) {  // only the chosen ones matter
        for (size_t j = 0; j < top_k; ++j) picked[j] = logits.row<float>(t)[chosen[j]];
        k.scores(picked.data(), p.top_k, true, score.data());
      } else {
        k.scores(logits.row<float>(t), p.experts, false, w.s.data());
        for (size_t j = 0; j < top_k; ++j) score[j] = w.s[static_cast<size_t>(chosen[j])];
      }
      float sum = 0, dot = 0, softmax_dot = 0;
      for (size_t j = 0; j < top_k; ++j) {
        sum += score[j];
        dot += dw[j] * score[j];
      }
      for (size_t j = 0; j < top_k; ++j) {
        ds[j] = (p.normalize ? (dw[j] - dot / sum) / sum : dw[j]) * static_cast<float>(p.scale);
        softmax_dot += ds[j] * score[j];
      }
      float* out = dlogits.row<float>(t);
      if (p.sigmoid) {
        std::fill_n(out, p.experts, 0.0f);
      } else {
        k.scale(-softmax_dot, w.s.data(), out, p.experts, false);
      }
      for (size_t j = 0; j < top_k; ++j)
        out[chosen[j]] += ds[j] * score[j] * (p.sigmoid ? 1.0f - score[j] : 1.0f);
    }
  });
}

double CpuDevice::balance_loss(const Tensor& logits, std::span<const AttendSegment> segments,
                               const RouteParams& p) {
  if (logits.dtype != DType::kF32) return RefDevice::balance_loss(logits, segments, p);
  Balance b = balance(*k_->rows, logits, segments, p);
  double loss = 0;
  for (size_t i = 0; i < b.f.size(); ++i)
    loss += static_cast<double>(b.f[i]) * static_cast<double>(b.share[i]);
  return loss;
}

void CpuDevice::balance_loss_backward(const Tensor& logits, std::span<const AttendSegment> segments,
                                      const RouteParams& p, float factor, Tensor dlogits) {
  if (logits.dtype != DType::kF32 || dlogits.dtype != DType::kF32) {
    return RefDevice::balance_loss_backward(logits, segments, p, factor, dlogits);
  }
  const RowKernels& k = *k_->rows;
  Balance b = balance(k, logits, segments, p);
  for (size_t i = 0; i < segments.size(); ++i) {
    const AttendSegment& seg = segments[i];
    const float* f = b.f.data() + i * static_cast<size_t>(p.experts);
    parallel_for(seg.q_rows, route_grain(p), [&](int64_t begin, int64_t end) {
      Scratch w(p);
      for (int64_t t = seg.q_begin + begin; t < seg.q_begin + end; ++t) {
        k.scores(logits.row<float>(t), p.experts, p.sigmoid, w.s.data());
        k.balance_backward(w.s.data(), f, p.experts, factor / static_cast<float>(seg.q_rows),
                           p.sigmoid, dlogits.row<float>(t));
      }
    });
  }
}

// Counting sort in two passes over chunks of rows: count, then place from each chunk's own start
// within every expert. The sorted order is that of one pass over all rows whatever the chunks are.
void CpuDevice::dispatch(const Tensor& expert, int experts, Tensor offsets, Tensor token_of,
                         Tensor slot_of) {
  int64_t n = expert.rows, top_k = expert.cols;
  int64_t chunks = std::clamp<int64_t>(n * top_k / (kChunkElements / 2), 1, thread_count());
  std::vector<int32_t> next(static_cast<size_t>(chunks * experts));
  auto for_chunks = [&](auto&& fn) {
    parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c)
        fn(n * c / chunks, n * (c + 1) / chunks, next.data() + c * experts);
    });
  };
  for_chunks([&](int64_t begin, int64_t end, int32_t* count) {
    for (int64_t t = begin; t < end; ++t) {
      const int32_t* row = expert.row<int32_t>(t);
      for (int64_t j = 0; j < top_k; ++j) {
        DCHECK(row[j] >= 0 && row[j] < experts);
        ++count[row[j]];
      }
    }
  });
  int32_t slot = 0, *start = offsets.row<int32_t>(0);
  for (int e = 0; e < experts; ++e) {
    start[e] = slot;
    for (int64_t c = 0; c < chunks; ++c) {
      int32_t rows = next[static_cast<size_t>(c * experts + e)];
      next[static_cast<size_t>(c * experts + e)] = slot;
      slot += rows;
    }
  }
  start[experts] = slot;
  int32_t* token = token_of.row<int32_t>(0);
  for_chunks([&](int64_t begin, int64_t end, int32_t* at) {
    for (int64_t t = begin; t < end; ++t) {
      const int32_t* row = expert.row<int32_t>(t);
      for (int64_t j = 0; j < top_k; ++j) {
        int32_t to = at[row[j]]++;
        token[to] = static_cast<int32_t>(t);
        slot_of.row<int32_t>(t)[j] = to;
      }
    }
  });
}

void CpuDevice::combine(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                        const Tensor& extra, Tensor y) {
  bool known = is_row_type(rows) && rows.dtype == y.dtype &&
               (extra.empty() || extra.dtype == y.dtype) && weight.dtype == DType::kF32;
  if (!known) return RefDevice::combine(rows, slot_of, weight, extra, y);
  auto kernel = k_->rows->combine[row_type(y)];
  int64_t step = row_bytes(rows.dtype, rows.stride);
  parallel_for(y.rows, row_grain(y.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      kernel(rows.data, step, slot_of.row<int32_t>(t), weight.row<float>(t), slot_of.cols,
             extra.empty() ? nullptr : extra.row_raw(t), y.row_raw(t), y.cols);
    }
  });
}

void CpuDevice::combine_backward(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                                 const Tensor& dy, Tensor drows, Tensor dweight) {
  bool known = is_row_type(rows) && rows.dtype == dy.dtype && rows.dtype == drows.dtype &&
               weight.dtype == DType::kF32 && dweight.dtype == DType::kF32;
  if (!known) return RefDevice::combine_backward(rows, slot_of, weight, dy, drows, dweight);
  auto kernel = k_->rows->combine_backward[row_type(dy)];
  parallel_for(dy.rows, row_grain(dy.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t j = 0; j < slot_of.cols; ++j) {
        int32_t slot = slot_of.row<int32_t>(t)[j];
        dweight.row<float>(t)[j] = kernel(rows.row_raw(slot), weight.row<float>(t)[j],
                                          dy.row_raw(t), drows.row_raw(slot), dy.cols);
      }
    }
  });
}

}  // namespace wels
