// Attention at the presets' shapes: GFLOP/s of the causal multiply-adds (masked scores not counted;
// the backward's five products counted once each) and percent of this machine's register peak, both
// measured in this run; and decode over the paged cache in GB/s of cache read and in
// nanoseconds of one thread's time a key (of a kv head). Usage: bench_attend [rows = 4096] [f32]
//
// Each figure is the best of several repetitions, as the machine may be shared.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "base/rng.h"
#include "base/threads.h"
#include "timing.h"

namespace wels {
namespace {

struct Bench {
  CpuDevice device;
  Pool pool;
  DType type;
  int64_t rows;
  double peak = 0;
  std::vector<OwnedTensor> keep;

  Tensor random(DType dtype, int64_t n, int64_t cols) {
    OwnedTensor o = make_tensor(pool, dtype, n, cols);
    Rng rng(static_cast<uint64_t>(n * 31 + cols));
    for (int64_t i = 0; i < n * cols; ++i) {
      auto v = static_cast<float>(rng.uniform() - 0.5) * 2.0f;
      dtype == DType::kF32 ? static_cast<float*>(o.t.data)[i] = v
                           : (static_cast<bf16*>(o.t.data)[i] = to_bf16(v), v);
    }
    keep.push_back(o);
    return o.t;
  }

  void training(const char* name, int heads, int kv_heads, int dk, int dr, int dv, int64_t length) {
    AttendParams p;
    p.heads = heads, p.kv_heads = kv_heads, p.dk = dk, p.dr = dr, p.dv = dv,
    p.k_step = p.v_step = dk + dv;
    p.scale = 1.0f / std::sqrt(static_cast<float>(dk + dr));
    const int64_t n = std::max(rows, length) / length * length;
    std::vector<AttendSegment> segments;
    for (int64_t at = 0; at < n; at += length) segments.push_back({at, length, at, length});
    Tensor q = random(type, n, heads * (dk + dr)), kv = random(type, n, kv_heads * (dk + dv)),
           dy = random(type, n, heads * dv);
    Tensor shared = dr > 0 ? random(type, n, dr) : Tensor(), y = random(type, n, heads * dv);
    Tensor lse = random(DType::kF32, n, heads), dq = random(type, n, q.cols),
           dkv = random(type, n, kv.cols);
    Tensor dshared = dr > 0 ? random(type, n, dr) : Tensor();
    auto v_of = [&](const Tensor& t) { return t.col_range(dk, t.cols - dk); };
    double pairs = static_cast<double>(n / length * length * (length + 1) / 2 * heads);
    double forward = 2 * pairs * (dk + dr + dv), backward = 2 * pairs * (3 * (dk + dr) + 2 * dv);
    double f = seconds_of([&] { device.attend(q, kv, v_of(kv), shared, segments, p, y, lse); });
    double b = seconds_of([&] {
      device.attend_backward(q, kv, v_of(kv), shared, segments, p, y, lse, dy, dq, dkv, v_of(dkv),
                             dshared);
    });
    fmt::print(
        "  {:8} heads {:2}/{:2} dk {:3}+{:2} dv {:3}  length {:4}  {:6.0f} {:3.0f} %  {:6.0f} "
        "{:3.0f} %  {:6.2f} us/token\n",
        name, heads, kv_heads, dk, dr, dv, length, forward / f / 1e9, 100 * forward / f / peak,
        backward / b / 1e9, 100 * backward / b / peak, (f + b) / static_cast<double>(n) * 1e6);
    keep.clear();
  }

  // Rows of `values` in the form that the cache has.
  Tensor cached(const Tensor& values, DType dtype) {
    if (values.dtype == dtype) return values;
    OwnedTensor o = make_tensor(pool, dtype, values.rows, values.cols);
    std::vector<int32_t> place(static_cast<size_t>(values.rows));
    std::iota(place.begin(), place.end(), 0);
    device.scatter_rows(values, Tensor(place.data(), DType::kI32, 1, values.rows), o.t);
    keep.push_back(o);
    return o.t;
  }

  void decode(const char* name, int heads, int kv_heads, int dk, int dv, bool latent, int sequences,
              int64_t context, DType dtype) {
    AttendParams p;
    p.heads = heads, p.kv_heads = kv_heads, p.dk = dk, p.dv = dv, p.k_step = dk, p.v_step = dv;
    p.scale = 1.0f / std::sqrt(static_cast<float>(dk));
    const int page_rows = 64;
    const int64_t pages = context / page_rows;
    const Tensor cache = cached(
        random(type, sequences * pages * page_rows, latent ? dk : kv_heads * (dk + dv)), dtype);
    std::vector<std::vector<int32_t>> tables(static_cast<size_t>(sequences));
    std::vector<CachedSegment> segments;
    for (int s = 0; s < sequences; ++s) {
      for (int64_t i = 0; i < pages; ++i)
        tables[static_cast<size_t>(s)].push_back(static_cast<int32_t>(i * sequences + s));
      segments.push_back({s, 1, context, tables[static_cast<size_t>(s)]});
    }
    Tensor q = random(type, sequences, heads * dk), y = random(type, sequences, heads * dv);
    double t = seconds_of([&] {
      device.attend_cached(q, cache, page_rows, segments, p, 0, latent ? 0 : kv_heads * dk, y);
    });
    double flops = 2.0 * static_cast<double>(sequences * context * heads * (dk + dv));
    fmt::print(
        "  {:17} {:4} heads {:3}/{:2} key {:3} value {:3}  {:2} x {:5}  {:8.0f} us  {:5.0f} ns "
        "{:5.1f} GB/s  {:6.0f} {:3.0f} %\n",
        name, wels::name(dtype), heads, kv_heads, dk, dv, sequences, context, t * 1e6,
        t * 1e9 * thread_count() / static_cast<double>(sequences * context * kv_heads),
        static_cast<double>(cache.bytes()) / t / 1e9, flops / t / 1e9, 100 * flops / t / peak);
    keep.clear();
  }
};

}  // namespace
}  // namespace wels

int main(int argc, char** argv) {
  using namespace wels;
  Bench b;
  b.rows = argc > 1 ? std::atoll(argv[1]) : 4096;
  b.type = argc > 2 ? DType::kF32 : DType::kBF16;
  for (int i = 0; i < 6; ++i) b.peak = std::max(b.peak, b.device.measure_peak_flops(b.type));
  fmt::print("{}, {}, peak {:.0f} GFLOP/s\ntraining {:38} forward       backward\n",
             b.device.name(), name(b.type), b.peak / 1e9, "");
  for (int64_t length : {256, 1024}) {
    b.training("nano", 4, 4, 32, 16, 32, length);
    b.training("micro", 6, 6, 32, 16, 32, length);
    b.training("mini", 8, 8, 32, 16, 32, length);
    b.training("small", 12, 12, 32, 32, 32, length);
    b.training("wide", 8, 8, 64, 32, 64, length);
    b.training("V3", 4, 4, 128, 64, 128, length);
    b.training("GQA", 12, 2, 64, 0, 64, length);
  }
  fmt::print("decode, one token per sequence\n");
  for (DType cache : {b.type, DType::kQ8_0}) {
    b.decode("V3, absorbed", 128, 1, 576, 512, true, 1, 4096, cache);
    b.decode("V2-Lite, absorbed", 16, 1, 576, 512, true, 1, 4096, cache);
    b.decode("V2-Lite, absorbed", 16, 1, 576, 512, true, 1, 16384, cache);
    b.decode("GQA", 12, 2, 128, 128, false, 1, 4096, cache);
  }
  b.decode("mini, absorbed", 8, 1, 144, 128, true, 1, 4096, b.type);
  b.decode("mini, absorbed", 8, 1, 144, 128, true, 16, 512, b.type);
}
