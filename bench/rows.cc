// The memory-bound ops: GB/s of what each must read and write, and percent of the bandwidth that a
// plain copy (memcpy by all threads, arrays larger than the caches) reaches in this run. Usage:
// bench_rows [tokens = 16384] [width = 512]
//
// Each figure is the best of several repetitions, as the machine may be shared. An op that finds
// its operands in the cache may pass 100 %; one far below it computes more than it moves.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "base/rng.h"
#include "base/threads.h"
#include "tensor/pool.h"
#include "timing.h"

namespace wels {
namespace {

struct Bench {
  CpuDevice dev;
  Pool pool;
  std::vector<OwnedTensor> keep;
  int64_t n, d;
  double copy_rate = 0;

  Tensor make(DType dtype, int64_t rows, int64_t cols) {
    OwnedTensor o = make_tensor(pool, dtype, rows, cols);
    keep.push_back(o);
    if (dtype == DType::kI32) return o.t;
    OwnedTensor f = make_tensor(pool, DType::kF32, 1, rows * cols);
    Rng rng(static_cast<uint64_t>(rows * 31 + cols));
    for (int64_t i = 0; i < rows * cols; ++i)
      f.t.row<float>(0)[i] = static_cast<float>(rng.uniform() - 0.5) * 2;
    dev.copy(f.t, Tensor(o.t.data, dtype, 1, rows * cols), Accum::kSet);
    return o.t;
  }
  Tensor ids(int64_t rows, int64_t cols, int64_t below) {
    Tensor t = make(DType::kI32, rows, cols);
    Rng rng(7);
    for (int64_t i = 0; i < t.size(); ++i)
      t.row<int32_t>(0)[i] = static_cast<int32_t>(rng.below(static_cast<uint64_t>(below)));
    return t;
  }
  static Weight weight(const Tensor& value) {
    Weight w;
    w.rows = value.rows;
    w.cols = value.cols;
    w.value = {value};
    return w;
  }
  void line(const std::string& name, int64_t bytes, const std::function<void()>& fn) {
    double s = seconds_of(fn), rate = static_cast<double>(bytes) / s;
    if (copy_rate == 0) copy_rate = rate;
    fmt::print("{:34} {:8.0f} us {:7.1f} GB/s {:4.0f} %\n", name, s * 1e6, rate / 1e9,
               100 * rate / copy_rate);
  }

  void elementwise(DType type) {
    keep.clear();
    std::string t = type == DType::kF32 ? " f32" : " bf16";
    int64_t one = n * row_bytes(type, d), wide = n * d * 4;
    Tensor a = make(type, n, d), b = make(type, n, d), c = make(type, n, d);
    Tensor x = make(DType::kF32, n, d), gain = make(DType::kF32, 1, d),
           inv = make(DType::kF32, n, 1);
    Tensor dgain = make(DType::kF32, 1, d), dx = make(DType::kF32, n, d);
    Weight w = weight(gain);
    line("copy (set)" + t, 2 * one, [&] { dev.copy(a, b, Accum::kSet); });
    line("copy f32 ->" + t, wide + one, [&] { dev.copy(x, b, Accum::kSet); });
    line("zero" + t, one, [&] { dev.zero(b); });
    line("add residual f32 +" + t, 2 * wide + one, [&] { dev.add(x, b, x); });
    line("rms_norm f32 ->" + t, wide + one, [&] { dev.rms_norm(x, w, 1e-6f, a, inv); });
    line("rms_norm_backward f32," + t, 3 * wide + one,
         [&] { dev.rms_norm_backward(x, w, inv, a, dx, Accum::kAdd, dgain); });
    Tensor cos = make(DType::kF32, 2048, 32), sin = make(DType::kF32, 2048, 32),
           pos = make(DType::kI32, 1, n);
    for (int64_t i = 0; i < n; ++i) pos.row<int32_t>(0)[i] = static_cast<int32_t>(i % 2048);
    RopeParams p{.heads = static_cast<int>(d / 128), .head_dim = 128, .rotated = 64};
    line("rope, pairs" + t, 2 * one, [&] { dev.rope(a, pos, cos, sin, p, c, Accum::kSet); });
    p.interleaved = false;
    line("rope, halves" + t, 2 * one, [&] { dev.rope(a, pos, cos, sin, p, c, Accum::kSet); });
    Tensor index = ids(1, n, n);
    line("gather_rows" + t, 2 * one, [&] { dev.gather_rows(a, index, c); });
    line("scatter_rows" + t, 2 * one, [&] {
      for (int64_t i = 0; i < n; ++i) index.row<int32_t>(0)[i] = static_cast<int32_t>(n - 1 - i);
      dev.scatter_rows(a, index, c);
    });
    Tensor table = make(DType::kF32, 8192, d), dtable = make(DType::kF32, 8192, d),
           tokens = ids(1, n, 8192);
    Weight embedding = weight(table);
    line("embed f32 ->" + t, one + wide, [&] { dev.embed(tokens, embedding, a); });
    line("embed_backward" + t, one + 2 * wide, [&] { dev.embed_backward(tokens, a, dtable); });
  }

  void experts(DType type, int e, int k) {
    keep.clear();
    std::string t = fmt::format(" {} {}/{}", type == DType::kF32 ? "f32" : "bf16", k, e);
    int64_t tokens = n / 2, one = tokens * row_bytes(type, d);
    RouteParams p{.experts = e, .top_k = k, .scale = 2.5};
    if (e >= 256) p.groups = 8, p.top_groups = 4;
    Tensor logits = make(DType::kF32, tokens, e), bias = make(DType::kF32, 1, e),
           dlogits = make(DType::kF32, tokens, e);
    Tensor expert = make(DType::kI32, tokens, k), weight = make(DType::kF32, tokens, k),
           load = make(DType::kI32, 1, e);
    Tensor offsets = make(DType::kI32, 1, e + 1), token_of = make(DType::kI32, 1, tokens * k),
           slot = make(DType::kI32, tokens, k);
    line("route" + t, tokens * 4 * (e + 2 * k),
         [&] { dev.route(logits, bias, Tensor(), p, expert, weight, load); });
    line("route_backward" + t, tokens * 4 * (2 * e + 3 * k),
         [&] { dev.route_backward(logits, expert, weight, weight, p, dlogits); });
    std::vector<AttendSegment> segments;
    for (int64_t r = 0; r < tokens; r += 512)
      segments.push_back({r, std::min<int64_t>(512, tokens - r), 0, 0});
    line("balance_loss" + t, tokens * 4 * e, [&] { dev.balance_loss(logits, segments, p); });
    line("balance_loss_backward" + t, tokens * 4 * 4 * e,
         [&] { dev.balance_loss_backward(logits, segments, p, 1e-4f, dlogits); });
    line("dispatch" + t, tokens * k * 16,
         [&] { dev.dispatch(expert, e, offsets, token_of, slot); });
    Tensor x = make(type, tokens, d), rows = make(type, tokens * k, d),
           drows = make(type, tokens * k, d), y = make(type, tokens, d);
    line("gather_rows (to experts)" + t, (1 + k) * one,
         [&] { dev.gather_rows(x, token_of, rows); });
    line("gather_sum" + t, (1 + k) * one, [&] { dev.gather_sum(rows, slot, y, Accum::kSet); });
    line("combine" + t, (2 + k) * one, [&] { dev.combine(rows, slot, weight, x, y); });
    line("combine_backward" + t, (1 + 2 * k) * one,
         [&] { dev.combine_backward(rows, slot, weight, y, drows, weight); });
  }

  void optimiser() {
    keep.clear();
    int64_t one = n * d * 4;
    Tensor w = make(DType::kF32, n, d), g = make(DType::kF32, n, d), m = make(DType::kF32, n, d),
           v = make(DType::kF32, n, d);
    dev.zero(v);
    AdamWParams p{.lr = 1e-3f,
                  .beta1 = 0.9f,
                  .beta2 = 0.95f,
                  .eps = 1e-8f,
                  .weight_decay = 0.1f,
                  .grad_scale = 1,
                  .bias1 = 0.1f,
                  .bias2 = 0.05f};
    line("sum_squares f32", one, [&] { dev.sum_squares(g); });
    line("adamw f32", 7 * one, [&] { dev.adamw(w, g, m, v, p); });
    line("axpby f32", 3 * one, [&] { dev.axpby(0.001f, w, 0.999f, m); });
  }
};

}  // namespace
}  // namespace wels

int main(int argc, char** argv) {
  using namespace wels;
  Bench b;
  b.n = argc > 1 ? std::atoll(argv[1]) : 16384;
  b.d = argc > 2 ? std::atoll(argv[2]) / 128 * 128 : 512;
  if (b.n < 16 || b.d < 128) {
    fmt::print(stderr, "usage: bench_rows [tokens >= 16] [width >= 128]\n");
    return 2;
  }
  Tensor from = b.make(DType::kF32, 16384, 2048), to = b.make(DType::kF32, 16384, 2048);
  fmt::print("{}, {} tokens, width {}\n", b.dev.name(), b.n, b.d);
  b.line("plain copy, 128 MiB", from.bytes() * 2, [&] { b.dev.copy(from, to, Accum::kSet); });
  b.elementwise(DType::kF32);
  b.elementwise(DType::kBF16);
  b.experts(DType::kF32, 64, 6);
  b.experts(DType::kBF16, 256, 8);
  b.optimiser();
}
