// Products with quantised weights: every block type on every instruction set of this CPU has the
// bits of RefDevice<float>, whatever the shape, the rows beside a row and the number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/isa/quant_kernels.h"
#include "base/error.h"
#include "base/threads.h"
#include "tensor/pool.h"
#include "tensor/quant.h"
#include "tests/random_quant.h"

namespace wels {
namespace {

// A weight of random blocks.
struct QuantWeight {
  Weight w;
  std::vector<std::vector<uint8_t>> bytes;
  QuantWeight(DType type, int64_t rows, int64_t cols, int64_t experts = 1, uint64_t seed = 1) {
    w.name = "w";
    w.rows = rows;
    w.cols = cols;
    Rng rng(seed);
    for (int64_t e = 0; e < experts; ++e) {
      bytes.emplace_back(static_cast<size_t>(rows * row_bytes(type, cols)));
      w.value.emplace_back(bytes.back().data(), type, rows, cols);
      fill_random_blocks(w.value.back(), rng, 0.1);
    }
  }
};

// A tensor of its own, random or NaN, with `gap` columns of NaN between the rows.
struct Rows {
  std::vector<uint8_t> bytes;
  Tensor t;
  Rows(DType type, int64_t rows, int64_t cols, double size, uint64_t seed = 2, int64_t gap = 3)
      : bytes(static_cast<size_t>((rows + 1) * (cols + gap) * info(type).bytes), 0xff),
        t(bytes.data(), type, rows, cols, cols + gap) {
    Rng rng(seed);
    for (int64_t r = 0; r < rows && size > 0; ++r) {
      for (int64_t c = 0; c < cols; ++c) set(r, c, size * rng.normal());
    }
  }
  void set(int64_t r, int64_t c, double v) {
    t.dtype == DType::kF32 ? t.row<float>(r)[c] = static_cast<float>(v)
                           : (t.row<bf16>(r)[c] = to_bf16(static_cast<float>(v)), 0);
  }
};

// "" where all bits agree; NaNs may differ in theirs.
std::string different(const Tensor& a, const Tensor& b) {
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      bool wide = a.dtype == DType::kF32;
      float x = wide ? a.row<float>(r)[c] : to_float(a.row<bf16>(r)[c]);
      float y = wide ? b.row<float>(r)[c] : to_float(b.row<bf16>(r)[c]);
      bool same = std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
      if (!same && !(std::isnan(x) && std::isnan(y)))
        return "[" + std::to_string(r) + ", " + std::to_string(c) + "] is " + std::to_string(x) +
               ", not " + std::to_string(y);
    }
  }
  return "";
}

class Quant : public testing::TestWithParam<std::tuple<std::string, QuantFill>> {
 protected:
  Quant()
      : cpu(std::make_unique<CpuDevice>(std::get<0>(GetParam()))),
        type(std::get<1>(GetParam()).dtype) {}
  std::unique_ptr<Device> cpu;
  RefDevice<float> plain;
  Device& ref = plain;
  DType type;
  // Columns of one block, several, and more than a part of a panel.
  std::vector<int64_t> depths() const {
    int64_t block = info(type).block;
    return {block, 3 * block, block == 32 ? 1056 : 1280};
  }
};

TEST_P(Quant, EveryShapeHasTheBitsOfRef) {
  for (int64_t cols : depths()) {
    for (int64_t out : {1, 7, 16, 17, 70}) {
      QuantWeight w(type, out, cols);
      Weight bias;
      Rows b(DType::kF32, 1, out, 1, 5, 0);
      bias.rows = 1;
      bias.cols = out;
      bias.value = {b.t};
      for (int64_t n : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 29}) {
        for (DType t : {DType::kF32, DType::kBF16}) {
          SCOPED_TRACE(testing::Message() << name(t) << " " << n << "x" << cols << "x" << out);
          Rows x(t, n, cols, 2);
          for (DType to : {t, DType::kF32}) {
            Rows y(to, n, out, 0), want(to, n, out, 0);
            Weight* with = to == t ? &bias : nullptr;
            cpu->matmul(x.t, w.w, with, y.t);
            ref.matmul(x.t, w.w, with, want.t);
            ASSERT_EQ(different(y.t, want.t), "");
            EXPECT_EQ(y.bytes, want.bytes) << "wrote between the rows";
          }
        }
      }
    }
  }
}

TEST_P(Quant, RoundsWhateverRowsThereAreAsRefDoes) {
  // Sizes from nothing to overflow, ties, and what is no number, each in a row of its own.
  int64_t cols = depths()[1], n = 12;
  QuantWeight w(type, 20, cols);
  Rows x(DType::kF32, n, cols, 1);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (int64_t c = 0; c < cols; ++c) {
    x.set(0, c, 0);
    x.set(1, c, x.t.row<float>(1)[c] * 1e-33f);
    x.set(2, c, x.t.row<float>(2)[c] * 1e-42f);
    x.set(3, c, x.t.row<float>(3)[c] * 1e30f);
    x.set(4, c, c % 32 == 0 ? 127 : static_cast<double>(c % 40) - 20.5);  // ties
    x.set(5, c, c % 2 ? 3 : -3);
  }
  x.set(6, cols - 1, std::nan(""));
  x.set(7, 0, kInf);
  x.set(8, 17, -kInf);
  Rows y(DType::kF32, n, 20, 0), want(DType::kF32, n, 20, 0);
  cpu->matmul(x.t, w.w, nullptr, y.t);
  ref.matmul(x.t, w.w, nullptr, want.t);
  EXPECT_EQ(different(y.t, want.t), "");
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < 20; ++c) {
      EXPECT_EQ(std::isnan(y.t.row<float>(r)[c]), r >= 6 && r <= 8) << r << " " << c;
      EXPECT_TRUE(r > 0 || y.t.row<float>(r)[c] == 0);
    }
  }
}

TEST_P(Quant, ARowsBitsDoNotDependOnItsBatchOrTheThreads) {
  int64_t cols = depths()[2];
  QuantWeight w(type, 150, cols);
  Rows x(DType::kBF16, 411, cols, 1), y(DType::kF32, 411, 150, 0), few(DType::kF32, 29, 150, 0),
      one(DType::kF32, 1, 150, 0), other(DType::kF32, 411, 150, 0);
  cpu->matmul(x.t, w.w, nullptr, y.t);
  cpu->matmul(x.t.row_range(100, 29), w.w, nullptr, few.t);
  EXPECT_EQ(different(few.t, y.t.row_range(100, 29)), "");
  for (int64_t r : {0, 5, 77, 410}) {
    cpu->matmul(x.t.row_range(r, 1), w.w, nullptr, one.t);
    EXPECT_EQ(different(one.t, y.t.row_range(r, 1)), "") << r;
  }
  int threads = thread_count();
  set_thread_count(threads == 1 ? 3 : 1);
  cpu->matmul(x.t, w.w, nullptr, other.t);
  set_thread_count(threads);
  EXPECT_EQ(different(other.t, y.t), "");
}

// The definition held against something else: the decoder's values and x as it is.
TEST_P(Quant, IsTheProductOfTheDecodedWeightWithinTheRoundingOfX) {
  int64_t cols = depths()[2];
  constexpr int64_t kOut = 40, kRows = 9;
  QuantWeight w(type, kOut, cols);
  Rows x(DType::kF32, kRows, cols, 1), y(DType::kF32, kRows, kOut, 0);
  cpu->matmul(x.t, w.w, nullptr, y.t);
  std::vector<float> row(static_cast<size_t>(cols));
  double worst = 0;
  for (int64_t j = 0; j < kOut; ++j) {
    find_quant_format(type)->decode(w.w.value[0].row_raw(j), row.data(), cols);
    for (int64_t i = 0; i < kRows; ++i) {
      double want = 0, bound = 0;
      for (int64_t b = 0; b < cols; b += 32) {
        double largest = 0, weights = 0;
        for (int64_t c = b; c < b + 32; ++c) {
          double v = static_cast<double>(x.t.row<float>(i)[c]),
                 value = static_cast<double>(row[static_cast<size_t>(c)]);
          want += v * value;
          largest = std::max(largest, std::fabs(v));
          weights += std::fabs(value);
        }
        bound += largest / 127 / 2 * weights * (1 + 1e-4);
      }
      double error = std::fabs(static_cast<double>(y.t.row<float>(i)[j]) - want);
      ASSERT_LE(error, bound) << i << " " << j;
      worst = std::max(worst, error / bound);
    }
  }
  EXPECT_LT(worst, 0.5);  // roundings do not all point the same way
  EXPECT_GT(worst, 0.001);
}

TEST_P(Quant, GroupedAndGatedProductsAreTheSeparateOnes) {
  int64_t cols = depths()[1];
  constexpr int64_t kOut = 150, kRows = 60;
  QuantWeight gate(type, kOut, cols, 5, 3), up(type, kOut, cols, 5, 4),
      other(type == DType::kQ4_K ? DType::kQ6_K : DType::kQ8_0, kOut, cols, 5, 4);
  Weight plain_up = up.w;
  Rows decoded(DType::kF32, 5 * kOut, cols, 0.1, 9, 0);
  for (int e = 0; e < 5; ++e)
    plain_up.value[static_cast<size_t>(e)] = decoded.t.row_range(e * kOut, kOut);
  int32_t offsets[] = {0, 3, 3, 40, 41, 60};
  Tensor o(offsets, DType::kI32, 1, 6);
  for (DType t : {DType::kF32, DType::kBF16}) {
    Rows x(t, kRows, cols, 0.3), y(t, kRows, kOut, 0), y2(t, kRows, kOut, 0), g(t, kRows, kOut, 0),
        u(t, kRows, kOut, 0), want(t, kRows, kOut, 0);
    cpu->grouped_matmul(x.t, gate.w, o, y.t);
    ref.grouped_matmul(x.t, gate.w, o, want.t);
    EXPECT_EQ(different(y.t, want.t), "");
    for (const Weight* right : std::initializer_list<const Weight*>{&up.w, &other.w, &plain_up}) {
      cpu->gated_matmul(x.t, gate.w, *right, o, y.t, g.t, u.t);
      cpu->gated_matmul(x.t, gate.w, *right, o, y2.t, Tensor(), Tensor());
      EXPECT_EQ(different(y.t, y2.t), "") << "kept or not";
      cpu->grouped_matmul(x.t, gate.w, o, want.t);
      EXPECT_EQ(different(g.t, want.t), "");
      cpu->grouped_matmul(x.t, *right, o, want.t);
      EXPECT_EQ(different(u.t, want.t), "");
    }
  }
}

TEST_P(Quant, ANewVersionOfTheWeightIsSeenAndThePackIsAsLargeAsPlanned) {
  int64_t cols = depths()[1];
  QuantWeight w(type, 33, cols, 2);
  Rows x(DType::kF32, 6, cols, 1), y(DType::kF32, 6, 33, 0), want(DType::kF32, 6, 33, 0);
  int32_t offsets[] = {0, 2, 6};
  Tensor o(offsets, DType::kI32, 1, 3);
  int64_t planned = cpu->packed_bytes(w.w, DType::kF32, false, PackUse::kForward);
  for (int version = 0; version < 2; ++version) {
    int64_t before = host_bytes();
    cpu->grouped_matmul(x.t, w.w, o, y.t);
    ref.grouped_matmul(x.t, w.w, o, want.t);
    EXPECT_EQ(different(y.t, want.t), "");
    EXPECT_TRUE(version == 0 || host_bytes() == before);
    QuantWeight fresh(type, 33, cols, 2, 77);
    for (size_t e = 0; e < 2; ++e) w.bytes[e].assign(fresh.bytes[e].begin(), fresh.bytes[e].end());
    ++w.w.version;
  }
  int64_t with = host_bytes();
  w.w.cache.reset();
  EXPECT_EQ(with - host_bytes(), planned);
}

std::vector<std::string> cpu_devices() {
  std::vector<std::string> out;
  for (const char* isa : {"avx2", "avx512", "avx512_vnni", "avx512_bf16"}) {
    try {
      CpuDevice device(isa);
      out.emplace_back(isa);
    } catch (const Error&) {  // this machine lacks it
    }
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Types, Quant,
                         testing::Combine(testing::ValuesIn(cpu_devices()),
                                          testing::ValuesIn(kQuantFills)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" +
                                  std::string(name(std::get<1>(info.param).dtype));
                         });

TEST(QuantPanels, TakeAtMostSixPercentMoreThanTheFile) {
  int types = 0;
  for (const QuantFormat& f : quant_formats()) {
    if (!is_quantised(f.dtype)) continue;
    ++types;
    const QuantPanel& p = kQuantPanels[static_cast<int>(f.dtype) - static_cast<int>(DType::kQ4_0)];
    double ratio = static_cast<double>(quant_panel_bytes(p, 4096)) /
                   static_cast<double>(kQuantLanes * row_bytes(f.dtype, 4096));
    EXPECT_LE(ratio, 1.06) << f.gguf_name;
    EXPECT_GE(ratio, 1) << f.gguf_name;
  }
  EXPECT_EQ(types, kQuantTypes);
}

}  // namespace
}  // namespace wels
