// Products with quantised weights: at one row the bytes of weights per second against a streaming
// read of memory, at many rows operations per second against the int8 register peak, both measured
// in this run beside each figure. Usage: bench_quant [type, as q4_k]
//
// Weights are read in turn from a set far larger than the caches (decode), or stay what they are
// (many rows). "packing": bytes of the file's blocks brought into the kernels' layout per second.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "base/rng.h"
#include "base/threads.h"
#include "tensor/quant.h"
#include "tensor/read_bandwidth.h"
#include "timing.h"

namespace wels {
namespace {

constexpr int64_t kSetBytes = int64_t{1} << 30;

struct Bench {
  CpuDevice device;
  Pool pool;
  ReadBandwidth stream{kSetBytes};
  std::vector<OwnedTensor> keep;

  Tensor random(DType type, int64_t rows, int64_t cols) {
    OwnedTensor o = make_tensor(pool, type, rows, cols);
    Rng rng(static_cast<uint64_t>(rows * 31 + cols));
    if (is_quantised(type)) {  // any bytes are blocks; only infinite scales would be slow
      auto* p = static_cast<uint8_t*>(o.t.data);
      for (int64_t i = 0; i < o.t.bytes(); ++i) p[i] = static_cast<uint8_t>(rng.below(60));
    } else {
      for (int64_t i = 0; i < rows * cols; ++i)
        static_cast<bf16*>(o.t.data)[i] = to_bf16(static_cast<float>(rng.uniform() - 0.5));
    }
    keep.push_back(o);
    return o.t;
  }
  // Matrices that share their blocks but not their packs.
  Weight weight(const Tensor& blocks, int64_t experts = 1) {
    Weight w;
    w.rows = blocks.rows;
    w.cols = blocks.cols;
    w.value.assign(static_cast<size_t>(experts), blocks);
    return w;
  }

  // Bytes of weights per second and their share of what memory gives, before or after.
  void decode(const char* what, int64_t bytes, const std::function<void()>& pass) {
    double read = stream.measure();
    double s = seconds_of(pass);
    read = std::max(read, stream.measure());
    double rate = static_cast<double>(bytes) / s;
    fmt::print("    {:34} {:6.1f} GB/s  {:3.0f} % of {:.1f}\n", what, rate / 1e9, 100 * rate / read,
               read / 1e9);
    std::fflush(stdout);
  }
  void many(const std::string& what, double operations, const std::function<void()>& fn) {
    double peak = device.measure_peak_flops(DType::kI8);
    double rate = operations / seconds_of(fn);
    peak = std::max(peak, device.measure_peak_flops(DType::kI8));
    fmt::print("    {:34} {:6.0f} Gop/s {:3.0f} % of {:.0f}\n", what, rate / 1e9, 100 * rate / peak,
               peak / 1e9);
    std::fflush(stdout);
  }

  void plain(DType type, int64_t in, int64_t out) {
    Tensor blocks = random(type, out, in);
    int64_t bytes = device.packed_bytes(weight(blocks), DType::kBF16, false, PackUse::kForward);
    std::vector<Weight> set;
    for (int64_t b = 0; b < kSetBytes; b += bytes) set.push_back(weight(blocks));
    Tensor x = random(DType::kBF16, 512, in), y = random(DType::kBF16, 512, out);
    std::string shape = fmt::format("{} -> {}", in, out);
    auto pass = [&](int64_t rows) {
      for (const Weight& w : set)
        device.matmul(x.row_range(0, rows), w, nullptr, y.row_range(0, rows), false);
    };
    auto start = std::chrono::steady_clock::now();
    pass(1);
    double packing =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    double file = static_cast<double>(blocks.bytes()) * static_cast<double>(set.size());
    fmt::print("    {:34} {:6.1f} GB/s (memory new)\n", shape + ", packing", file / packing / 1e9);
    auto total = static_cast<int64_t>(set.size()) * bytes;
    decode((shape + ", 1 row").c_str(), total, [&] { pass(1); });
    decode((shape + ", 4 rows").c_str(), total, [&] { pass(4); });
    set.resize(1);
    for (Weight& w : set) ++w.version;
    double pack = seconds_of([&] {
      ++set[0].version;
      device.matmul(x.row_range(0, 1), set[0], nullptr, y.row_range(0, 1), false);
    });
    fmt::print("    {:34} {:6.1f} GB/s\n", shape + ", packing again",
               static_cast<double>(blocks.bytes()) / pack / 1e9);
    for (int64_t n : {16, 512}) {
      many(fmt::format("{}, {} rows", shape, n), 2.0 * static_cast<double>(n * in * out),
           [&] { device.matmul(x.row_range(0, n), set[0], nullptr, y.row_range(0, n), false); });
    }
    keep.clear();
  }

  // 6 of 64 experts of V2-Lite: one row each, and 512 tokens over all.
  void experts(DType type) {
    constexpr int64_t kIn = 2048, kOut = 1408, kExperts = 64, kChosen = 6;
    Tensor blocks = random(type, kOut, kIn);
    int64_t bytes =
        device.packed_bytes(weight(blocks, kExperts), DType::kBF16, false, PackUse::kForward);
    std::vector<Weight> gate, up;
    for (int64_t b = 0; b < kSetBytes; b += 2 * bytes) {
      gate.push_back(weight(blocks, kExperts));
      up.push_back(weight(blocks, kExperts));
    }
    constexpr int64_t kRows = 512 * kChosen;
    Tensor x = random(DType::kBF16, kRows, kIn), y = random(DType::kBF16, kRows, kOut);
    std::vector<int32_t> offsets(kExperts + 1);
    Tensor o(offsets.data(), DType::kI32, 1, kExperts + 1);
    auto choose = [&](int64_t first) {  // kChosen experts from `first` on, one row each
      for (int64_t e = 0; e <= kExperts; ++e)
        offsets[static_cast<size_t>(e)] =
            static_cast<int32_t>(std::clamp<int64_t>(e - first, 0, kChosen));
    };
    auto step = [&](size_t layer) {
      device.gated_matmul(x.row_range(0, kChosen), gate[layer], up[layer], o,
                          y.row_range(0, kChosen), Tensor(), Tensor(), false);
    };
    auto pass = [&] {
      for (int64_t first = 0; first + kChosen <= kExperts; first += kChosen) {
        choose(first);
        for (size_t layer = 0; layer < gate.size(); ++layer) step(layer);
      }
    };
    pass();
    decode("2048 -> 1408 gate, up, 6 of 64",
           2 * bytes / kExperts * 60 * static_cast<int64_t>(gate.size()), pass);
    for (int64_t e = 0; e <= kExperts; ++e)
      offsets[static_cast<size_t>(e)] = static_cast<int32_t>(e * kRows / kExperts);
    many("2048 -> 1408 gate, up, 48 rows each", 4.0 * kRows * kIn * kOut,
         [&] { device.gated_matmul(x, gate[0], up[0], o, y, Tensor(), Tensor(), false); });
    keep.clear();
  }
};

}  // namespace
}  // namespace wels

int main(int argc, char** argv) {
  using namespace wels;
  Bench b;
  fmt::print("{}: int8 peak {:.0f} Gop/s, streaming read {:.1f} GB/s\n", b.device.name(),
             b.device.measure_peak_flops(DType::kI8) / 1e9, b.stream.measure() / 1e9);
  for (const QuantFormat& f : quant_formats()) {
    if (!is_quantised(f.dtype) || (argc > 1 && name(f.dtype) != argv[1])) continue;
    fmt::print("  {}\n", f.gguf_name);
    b.plain(f.dtype, 4096, 4096);
    b.experts(f.dtype);
    b.plain(f.dtype, 2048, 10944);
  }
}
