// The matrix products of a training step at the presets' shapes: GFLOP/s and percent of this
// machine's register peak, both measured in this run. Usage: bench_gemm [tokens = 4096] [fp8 | f32]
//
// Each figure is the best of several repetitions, as the machine may be shared. "packing" is the
// time to bring one weight into both layouts, which a step pays once per weight.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
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
  int64_t tokens;
  DType type;
  bool fp8;
  double peak = 0;
  double step_flops = 0,
         step_seconds = 0;  // of one preset: its products, each as often as a token meets it
  std::vector<OwnedTensor> keep;

  Tensor random(DType dtype, int64_t rows, int64_t cols) {
    OwnedTensor o = make_tensor(pool, dtype, rows, cols);
    Rng rng(static_cast<uint64_t>(rows * 31 + cols));
    for (int64_t i = 0; i < rows * cols; ++i) {
      auto v = static_cast<float>(rng.uniform() - 0.5) * 0.2f;
      dtype == DType::kF32 ? static_cast<float*>(o.t.data)[i] = v
                           : (static_cast<bf16*>(o.t.data)[i] = to_bf16(v), v);
    }
    keep.push_back(o);
    return o.t;
  }
  Weight weight(int64_t out, int64_t in, int64_t experts) {
    Weight w;
    w.name = "w";
    w.rows = out;
    w.cols = in;
    for (int64_t e = 0; e < experts; ++e) {
      w.value.push_back(random(DType::kF32, out, in));
      w.grad.push_back(random(DType::kF32, out, in));
    }
    return w;
  }

  std::string rate(double flops, double s) {
    return fmt::format("{:7.0f} {:3.0f} %", flops / s / 1e9, 100 * flops / s / peak);
  }

  void product(const char* name, int64_t in, int64_t out, double count) {
    Weight w = weight(out, in, 1);
    Tensor x = random(type, tokens, in), y = random(type, tokens, out),
           dx = random(type, tokens, in);
    double f = 2.0 * static_cast<double>(tokens * in * out);
    double forward = seconds_of([&] { device.matmul(x, w, nullptr, y, fp8); });
    double back = seconds_of([&] { device.matmul_dx(y, w, dx, Accum::kSet, fp8); });
    double grad = seconds_of([&] { device.matmul_dw(y, x, w.grad[0], Accum::kAdd, fp8); });
    double pack = packing(w, x, y, dx);
    fmt::print("  {:22} {:5} -> {:5}  {}  {}  {}  {:8.0f} us\n", name, in, out, rate(f, forward),
               rate(f, back), rate(f, grad), pack * 1e6);
    step_flops += 3 * f * count;
    step_seconds += (forward + back + grad) * count;
    keep.clear();
  }

  double packing(const Weight& w, const Tensor& x, const Tensor& y, const Tensor& dx) {
    Weight& changed = const_cast<Weight&>(w);
    auto one_row = [&] {
      device.matmul(x.row_range(0, 1), w, nullptr, y.row_range(0, 1), fp8);
      device.matmul_dx(y.row_range(0, 1), w, dx.row_range(0, 1), Accum::kSet, fp8);
    };
    double without = seconds_of(one_row);
    return std::max(0.0, seconds_of([&] {
                           ++changed.version;
                           one_row();
                         }) - without);
  }

  // Rows spread over the experts as a trained router does: unequal, here linearly from 0.5 to 1.5
  // of the mean.
  static std::vector<int32_t> spread(int64_t n, int64_t experts) {
    std::vector<int32_t> offsets{0};
    for (int64_t e = 0; e < experts; ++e) {
      double share =
          (0.5 + static_cast<double>(e) / static_cast<double>(std::max<int64_t>(1, experts - 1))) /
          static_cast<double>(experts);
      offsets.push_back(offsets.back() + static_cast<int32_t>(share * static_cast<double>(n)));
    }
    offsets.back() = static_cast<int32_t>(n);
    return offsets;
  }

  // Both products of SwiGLU and what joins them; one expert: a plain matrix.
  void gated(const char* name, int64_t in, int64_t out, int64_t experts, int64_t chosen,
             double count) {
    Weight gate = weight(out, in, experts), up = weight(out, in, experts);
    int64_t n = tokens * chosen;
    Tensor x = random(type, n, in), y = random(type, n, out), dx = random(type, n, in),
           g = random(type, n, out), u = random(type, n, out);
    std::vector<int32_t> offsets = spread(n, experts);
    Tensor o = experts > 1 ? Tensor(offsets.data(), DType::kI32, 1, experts + 1) : Tensor();
    double f = 4.0 * static_cast<double>(n * in * out);
    double forward = seconds_of([&] { device.gated_matmul(x, gate, up, o, y, g, u, fp8); });
    double back =
        seconds_of([&] { device.gated_matmul_dx(y, gate, up, o, g, u, dx, Accum::kSet, fp8); });
    double grad = seconds_of(
        [&] { device.gated_matmul_dw(g, u, x, o, gate.grad, up.grad, Accum::kAdd, fp8); });
    std::string of = experts > 1 ? fmt::format(" {}e{}", experts, chosen) : "";
    fmt::print("  {:22} {:5} -> {:5}  {}  {}  {}\n", name + of, in, out, rate(f, forward),
               rate(f, back), rate(f, grad));
    step_flops += 3 * f * count;
    step_seconds += (forward + back + grad) * count;
    keep.clear();
  }

  void grouped(const char* name, int64_t in, int64_t out, int64_t experts, int64_t chosen,
               double count) {
    Weight w = weight(out, in, experts);
    int64_t n = tokens * chosen;
    Tensor x = random(type, n, in), y = random(type, n, out), dx = random(type, n, in);
    std::vector<int32_t> offsets = spread(n, experts);
    Tensor o(offsets.data(), DType::kI32, 1, experts + 1);
    double f = 2.0 * static_cast<double>(n * in * out);
    double forward = seconds_of([&] { device.grouped_matmul(x, w, o, y, fp8); });
    double back = seconds_of([&] { device.grouped_matmul_dx(y, w, o, dx, Accum::kSet, fp8); });
    double grad = seconds_of([&] { device.grouped_matmul_dw(y, x, o, w.grad, Accum::kAdd, fp8); });
    double without = 0, pack = 0;
    {
      std::vector<int32_t> none(static_cast<size_t>(experts + 1), 1);
      none[0] = 0;
      Tensor z(none.data(), DType::kI32, 1, experts + 1);
      auto one_row = [&] {
        device.grouped_matmul(x.row_range(0, 1), w, z, y.row_range(0, 1), fp8);
        device.grouped_matmul_dx(y.row_range(0, 1), w, z, dx.row_range(0, 1), Accum::kSet, fp8);
      };
      without = seconds_of(one_row);
      pack = std::max(0.0, seconds_of([&] {
                             ++w.version;
                             one_row();
                           }) - without);
    }
    fmt::print("  {:22} {:5} -> {:5}  {}  {}  {}  {:8.0f} us\n",
               fmt::format("{} {}e{}", name, experts, chosen), in, out, rate(f, forward),
               rate(f, back), rate(f, grad), pack * 1e6);
    step_flops += 3 * f * count;
    step_seconds += (forward + back + grad) * count;
    keep.clear();
  }

  // The backward of token_logp is counted as two products (its recomputed one is overhead); values
  // and gradient at once, as pretraining has them, as three.
  void head(int64_t d, int64_t vocab) {
    Weight w = weight(vocab, d, 1);
    Tensor h = random(type, tokens, d), dh = random(type, tokens, d);
    Tensor logp = random(DType::kF32, tokens, 1), lse = random(DType::kF32, tokens, 1),
           dlogp = random(DType::kF32, tokens, 1);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>(i * 7919 % vocab));
    Tensor target(ids.data(), DType::kI32, 1, tokens);
    double f = 2.0 * static_cast<double>(tokens * d * vocab);
    double forward = seconds_of([&] { device.token_logp(h, w, target, logp, lse); });
    double back = seconds_of([&] {
      device.token_logp_backward(h, w, target, lse, dlogp, dh, Accum::kSet, w.grad[0], Accum::kAdd);
    });
    double both = seconds_of([&] {
      device.token_logp_and_gradient(h, w, target, dlogp, logp, dh, w.grad[0], Accum::kAdd);
    });
    fmt::print("  {:22} {:5} -> {:5}  {}  {} (backward)  {} (both at once)\n", "head token_logp", d,
               vocab, rate(f, forward), rate(2 * f, back), rate(3 * f, both));
    step_flops += 3 * f;
    step_seconds += both;
    keep.clear();
  }

  void preset(const char* name, int64_t d, int64_t layers, int64_t experts, int64_t chosen,
              int64_t f, int64_t vocab) {
    fmt::print("{} (d {}, {} tokens){:11}forward       dx            dw           packing\n", name,
               d, tokens, "");
    auto n = static_cast<double>(layers);
    step_flops = step_seconds = 0;
    product("q_a", d, d / 2, n);
    product("q_b", d / 2, d * 3 / 2, n);
    product("kv_a", d, d / 4 + 16, n);
    product("kv_b", d / 4, d * 2, n);
    product("o", d, d, n);
    gated("dense gate and up", d, 3 * d, 1, 1, 1);
    product("dense down", 3 * d, d, 1);
    gated("shared gate and up", d, f, 1, 1, n - 1);
    product("shared down", f, d, n - 1);
    gated("experts gate and up", d, f, experts, chosen, n - 1);
    grouped("experts down", f, d, experts, chosen, n - 1);
    head(d, vocab);
    fmt::print("  all products of a step, weighted: {}\n", rate(step_flops, step_seconds));
  }
};

}  // namespace
}  // namespace wels

int main(int argc, char** argv) {
  using namespace wels;
  std::string mode = argc > 2 ? argv[2] : "bf16";
  Bench b;
  b.tokens = argc > 1 ? std::atoll(argv[1]) : 4096;
  b.type = mode == "f32" ? DType::kF32 : DType::kBF16;
  b.fp8 = mode == "fp8";
  for (int i = 0; i < 4; ++i) b.peak = std::max(b.peak, b.device.measure_peak_flops(b.type));
  fmt::print(
      "{}: register peak with {} operands {:.0f} GFLOP/s; figures below: GFLOP/s and % of it\n",
      b.device.name(), name(b.device.product_dtype(b.type)), b.peak / 1e9);
  b.preset("nano", 128, 4, 8, 2, 96, 512);
  b.preset("micro", 192, 6, 16, 2, 128, 2048);
  b.preset("mini", 256, 8, 16, 2, 192, 4096);
  b.preset("small", 384, 10, 32, 4, 256, 8192);
}
