// The fast matrix products against RefDevice, for every instruction set of this CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/weight_pack.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/pool.h"
#include "tensor/quant.h"

namespace wels {
namespace {

Pool& pool() {
  static Pool p;
  return p;
}

// Owned random tensor; `gap` more columns between rows than it has.
struct Data {
  OwnedTensor whole;
  Tensor t;
  Data(DType dtype, int64_t rows, int64_t cols, uint64_t seed, float scale = 1, int64_t gap = 0)
      : whole(make_tensor(pool(), dtype, rows, cols + gap)), t(whole.t.col_range(0, cols)) {
    Rng rng(seed);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols + gap; ++c) {
        // What lies between the rows must never matter.
        set(whole.t, r, c, c < cols ? scale * static_cast<float>(rng.normal()) : NAN);
      }
    }
  }
  static void set(const Tensor& t, int64_t r, int64_t c, float v) {
    switch (t.dtype) {
      case DType::kF32:
        t.row<float>(r)[c] = v;
        break;
      case DType::kBF16:
        t.row<bf16>(r)[c] = to_bf16(v);
        break;
      case DType::kF16: {
        uint16_t half = float_to_half(v);
        std::memcpy(t.row_raw(r) + 2 * c, &half, 2);
        break;
      }
      default:
        reinterpret_cast<uint8_t*>(t.row_raw(r))[c] = float_to_fp8(v);
        break;
    }
  }
};

float at(const Tensor& t, int64_t r, int64_t c) {
  return t.dtype == DType::kF32 ? t.row<float>(r)[c] : to_float(t.row<bf16>(r)[c]);
}

// Largest |a - b| relative to the root mean square of b.
double difference(const Tensor& a, const Tensor& b) {
  double worst = 0, square = 0;
  for (int64_t r = 0; r < b.rows; ++r) {
    for (int64_t c = 0; c < b.cols; ++c) {
      double d = std::fabs(at(a, r, c) - at(b, r, c));
      if (std::isnan(d)) return INFINITY;
      worst = std::max(worst, d);
      square += at(b, r, c) * at(b, r, c);
    }
  }
  return worst / std::sqrt(square / static_cast<double>(std::max<int64_t>(b.size(), 1)) + 1e-30);
}

// The same relative to the largest |b|: for gradients with few large elements.
double difference_of_largest(const Tensor& a, const Tensor& b) {
  double square = 0, largest = 0;
  for (int64_t r = 0; r < b.rows; ++r) {
    for (int64_t c = 0; c < b.cols; ++c) {
      largest = std::max<double>(largest, std::fabs(at(b, r, c)));
      square += at(b, r, c) * at(b, r, c);
    }
  }
  return difference(a, b) * std::sqrt(square / static_cast<double>(b.size())) / largest;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  for (int64_t r = 0; r < a.rows; ++r) {
    if (std::memcmp(a.row_raw(r), b.row_raw(r), static_cast<size_t>(row_bytes(a.dtype, a.cols))))
      return false;
  }
  return true;
}

struct TestWeight {
  Weight w;
  std::vector<Data> storage;
  TestWeight(int64_t rows, int64_t cols, int64_t experts = 1, DType dtype = DType::kF32) {
    w.name = "w";
    w.rows = rows;
    w.cols = cols;
    for (int64_t e = 0; e < experts; ++e) {
      float scale = dtype == DType::kF8E4M3 ? 100.0f : 1 / std::sqrt(static_cast<float>(cols));
      storage.emplace_back(dtype, rows, cols, 1000 + e, scale);
      w.value.push_back(storage.back().t);
    }
    for (int64_t e = 0; dtype == DType::kF8E4M3 && e < experts; ++e) {
      storage.emplace_back(DType::kF32, (rows + 127) / 128, (cols + 127) / 128, 2000 + e, 0.001f);
      w.scale.push_back(storage.back().t);
    }
  }
};

class CpuMatmul : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    try {
      cpu = std::make_unique<CpuDevice>(GetParam());
    } catch (const Error& e) {
      GTEST_SKIP() << e.what();
    }
  }
  // Both round their inputs to bf16 only where the input is bf16; the fast device also rounds
  // weights then.
  static double bound(DType t) { return t == DType::kBF16 ? 0.04 : 3e-5; }
  std::unique_ptr<Device> cpu;
  RefDevice<float> plain;
  Device& ref = plain;
};

constexpr DType kTypes[] = {DType::kF32, DType::kBF16};
struct Shape {
  int64_t n, k, m;
};
constexpr Shape kShapes[] = {{1, 1, 1},      {1, 64, 96},     {5, 33, 17},    {7, 130, 80},
                             {13, 129, 200}, {25, 96, 64},    {50, 7, 300},   {193, 257, 65},
                             {200, 384, 48}, {300, 128, 129}, {7, 3203, 260}, {7, 20, 3203}};

TEST_P(CpuMatmul, ForwardAndBackwardEqualRef) {
  for (DType t : kTypes) {
    for (auto [n, in, out] : kShapes) {
      for (bool fp8 : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << name(t) << " " << n << "x" << in << "x" << out << " fp8 " << fp8);
        TestWeight w(out, in), bias(1, out);
        Data x(t, n, in, 1, 1, 3), dy(t, n, out, 2, 1, 1), y(t, n, out, 3), y2(t, n, out, 3);
        cpu->matmul(x.t, w.w, &bias.w, y.t, fp8);
        ref.matmul(x.t, w.w, &bias.w, y2.t, fp8);
        EXPECT_LT(difference(y.t, y2.t), bound(t));
        Data wide(DType::kF32, n, out, 4), wide2(DType::kF32, n, out, 4);
        cpu->matmul(x.t, w.w, nullptr, wide.t, fp8);
        ref.matmul(x.t, w.w, nullptr, wide2.t, fp8);
        EXPECT_LT(difference(wide.t, wide2.t), t == DType::kF32 ? bound(t) : 0.02);
        for (Accum a : {Accum::kSet, Accum::kAdd}) {
          Data dx(t, n, in, 5, 1, 2), dx2(t, n, in, 5, 1, 2), dw(DType::kF32, out, in, 6),
              dw2(DType::kF32, out, in, 6);
          cpu->matmul_dx(dy.t, w.w, dx.t, a, fp8);
          ref.matmul_dx(dy.t, w.w, dx2.t, a, fp8);
          EXPECT_LT(difference(dx.t, dx2.t), bound(t));
          cpu->matmul_dw(dy.t, x.t, dw.t, a, fp8);
          ref.matmul_dw(dy.t, x.t, dw2.t, a, fp8);
          EXPECT_LT(difference(dw.t, dw2.t),
                    3e-5);  // products of bf16 are exact in f32: only the order differs
        }
      }
    }
  }
}

TEST_P(CpuMatmul, GroupsEqualRefWithEmptyAndUnequalExperts) {
  for (DType t : kTypes) {
    for (bool fp8 : {false, true}) {
      TestWeight w(72, 136, 5);
      int32_t offsets[] = {0, 3, 3, 260, 261, 300};
      Tensor o(offsets, DType::kI32, 1, 6);
      Data x(t, 300, 136, 1), dy(t, 300, 72, 2), y(t, 300, 72, 3), y2(t, 300, 72, 3),
          dx(t, 300, 136, 4), dx2(t, 300, 136, 4);
      cpu->grouped_matmul(x.t, w.w, o, y.t, fp8);
      ref.grouped_matmul(x.t, w.w, o, y2.t, fp8);
      EXPECT_LT(difference(y.t, y2.t), bound(t));
      cpu->grouped_matmul_dx(dy.t, w.w, o, dx.t, Accum::kAdd, fp8);
      ref.grouped_matmul_dx(dy.t, w.w, o, dx2.t, Accum::kAdd, fp8);
      EXPECT_LT(difference(dx.t, dx2.t), bound(t));
      for (Accum a : {Accum::kSet, Accum::kAdd}) {
        std::vector<Data> dw, dw2;
        std::vector<Tensor> views, views2;
        for (int e = 0; e < 5; ++e) {
          views.push_back(dw.emplace_back(DType::kF32, 72, 136, 10 + e).t);
          views2.push_back(dw2.emplace_back(DType::kF32, 72, 136, 10 + e).t);
        }
        cpu->grouped_matmul_dw(dy.t, x.t, o, views, a, fp8);
        ref.grouped_matmul_dw(dy.t, x.t, o, views2, a, fp8);
        for (size_t e = 0; e < 5; ++e) EXPECT_LT(difference(views[e], views2[e]), 3e-5) << e;
      }
    }
  }
}

TEST_P(CpuMatmul, GatedProductsEqualTheSeparateOnesBitForBit) {
  for (DType t : kTypes) {
    for (bool fp8 : {false, true}) {
      SCOPED_TRACE(testing::Message() << name(t) << " fp8 " << fp8);
      constexpr int64_t kRows = 300, kIn = 136, kOut = 200;
      TestWeight gate(kOut, kIn, 5), up(kOut, kIn, 5);
      for (size_t e = 0; e < 5; ++e)
        cpu->copy(Data(DType::kF32, kOut, kIn, 20 + e, 0.1f).t, up.storage[e].t);
      int32_t offsets[] = {0, 3, 3, 260, 261, 300};
      Tensor o(offsets, DType::kI32, 1, 6);
      Data x(t, kRows, kIn, 1), dy(t, kRows, kOut, 2), y(t, kRows, kOut, 3), y2(t, kRows, kOut, 3),
          g(t, kRows, kOut, 4), u(t, kRows, kOut, 4), want(t, kRows, kOut, 5);
      cpu->gated_matmul(x.t, gate.w, up.w, o, y.t, g.t, u.t, fp8);
      cpu->gated_matmul(x.t, gate.w, up.w, o, y2.t, Tensor(), Tensor(), fp8);
      EXPECT_TRUE(same_bits(y.t, y2.t)) << "kept or not";
      cpu->grouped_matmul(x.t, gate.w, o, want.t, fp8);
      EXPECT_TRUE(same_bits(g.t, want.t));
      cpu->grouped_matmul(x.t, up.w, o, want.t, fp8);
      EXPECT_TRUE(same_bits(u.t, want.t));

      // dx of dg and du is a sum of its own; in f32 it is that of the separate products but for the
      // order.
      Data dx(t, kRows, kIn, 6), dx2(t, kRows, kIn, 6);
      cpu->gated_matmul_dx(dy.t, gate.w, up.w, o, g.t, u.t, dx.t, Accum::kAdd, fp8);
      cpu->grouped_matmul_dx(g.t, gate.w, o, dx2.t, Accum::kAdd, fp8);
      cpu->grouped_matmul_dx(u.t, up.w, o, dx2.t, Accum::kAdd, fp8);
      EXPECT_LT(difference(dx.t, dx2.t), bound(t));

      std::vector<Data> dw;
      std::vector<Tensor> dgate, dup, plain_dw;
      for (int e = 0; e < 5; ++e) {
        for (auto* list : {&dgate, &dup, &plain_dw})
          list->push_back(dw.emplace_back(DType::kF32, kOut, kIn, 10 + e).t);
      }
      cpu->gated_matmul_dw(g.t, u.t, x.t, o, dgate, dup, Accum::kAdd, fp8);
      cpu->grouped_matmul_dw(g.t, x.t, o, plain_dw, Accum::kAdd, fp8);
      for (size_t e = 0; e < 5; ++e) EXPECT_TRUE(same_bits(dgate[e], plain_dw[e]));
      for (size_t e = 0; e < 5; ++e) cpu->copy(Data(DType::kF32, kOut, kIn, 10 + e).t, plain_dw[e]);
      cpu->grouped_matmul_dw(u.t, x.t, o, plain_dw, Accum::kAdd, fp8);
      for (size_t e = 0; e < 5; ++e) EXPECT_TRUE(same_bits(dup[e], plain_dw[e]));
    }
  }
}

TEST_P(CpuMatmul, WeightsOfEveryPlainTypeAndANewVersionAreSeen) {
  for (DType kept : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    TestWeight w(150, 140, 1, kept);
    Data x(DType::kF32, 9, 140, 1), y(DType::kF32, 9, 150, 2), y2(DType::kF32, 9, 150, 2);
    for (int version = 0; version < 2; ++version) {
      cpu->matmul(x.t, w.w, nullptr, y.t);
      ref.matmul(x.t, w.w, nullptr, y2.t);
      EXPECT_LT(difference(y.t, y2.t), 3e-5) << name(kept);
      Data::set(w.w.value[0], 149, 139, 3.0f);
      ++w.w.version;
    }
  }
}

TEST_P(CpuMatmul, RouterComputesInF32FromBf16) {
  TestWeight w(16, 256);
  w.w.full_precision = true;
  Data x(DType::kBF16, 70, 256, 1), y(DType::kF32, 70, 16, 2), y2(DType::kF32, 70, 16, 2);
  cpu->matmul(x.t, w.w, nullptr, y.t);
  ref.matmul(x.t, w.w, nullptr, y2.t);
  EXPECT_LT(difference(y.t, y2.t), 1e-5);
  Data dx(DType::kBF16, 70, 256, 3), dx2(DType::kBF16, 70, 256, 3), dw(DType::kF32, 16, 256, 4),
      dw2(DType::kF32, 16, 256, 4);
  cpu->matmul_dx(y.t, w.w, dx.t, Accum::kSet);
  ref.matmul_dx(y.t, w.w, dx2.t, Accum::kSet);
  EXPECT_LT(difference(dx.t, dx2.t), 0.02);
  cpu->matmul_dw(y.t, x.t, dw.t, Accum::kSet);
  ref.matmul_dw(y.t, x.t, dw2.t, Accum::kSet);
  EXPECT_LT(difference(dw.t, dw2.t), 1e-5);
}

// The codes are those of tensor/fp8.h bit for bit: with the identity as the weight a product
// returns them.
TEST_P(CpuMatmul, RoundingToE4M3IsExact) {
  constexpr int64_t kN = 128;
  Data identity(DType::kF32, kN, kN, 1, 0);
  for (int64_t i = 0; i < kN; ++i) identity.t.row<float>(i)[i] = 448;  // scale 1
  Weight w;
  w.rows = w.cols = kN;
  w.value = {identity.t};
  Data x(DType::kF32, 200, kN, 2), y(DType::kF32, 200, kN, 3);
  Rng rng(4);
  for (int64_t r = 0; r < 200; ++r) {
    for (int64_t c = 0; c < kN; ++c) {
      float v = std::ldexp(static_cast<float>(rng.normal()), static_cast<int>(rng.below(24)) - 20);
      if (c % 5 == 0)
        v = fp8_to_float(static_cast<uint8_t>(rng.below(0x7f))) + std::ldexp(1.0f, -10);  // a tie
      x.t.row<float>(r)[c] = c == 0 ? 448 : v;
    }
  }
  cpu->matmul(x.t, w, nullptr, y.t, true);
  for (int64_t r = 0; r < 200; ++r) {
    float amax = 0;
    for (int64_t c = 0; c < kN; ++c) amax = std::max(amax, std::fabs(x.t.row<float>(r)[c]));
    float s = fp8_activation_scale(amax);
    for (int64_t c = 0; c < kN; ++c) {
      float want = fp8_round(x.t.row<float>(r)[c], s) * 448 * (s * 1.0f);
      ASSERT_EQ(y.t.row<float>(r)[c], want) << r << " " << c;
    }
  }
}

TEST_P(CpuMatmul, ARowsBitsDoNotDependOnItsBatchOrTheThreads) {
  int threads = thread_count();
  for (DType t : kTypes) {
    for (auto [fp8, in] : {std::pair{false, 301}, {true, 301}, {false, 3301}}) {
      TestWeight w(203, in);
      Data x(t, 411, in, 1), dy(t, 411, 203, 2), y(t, 411, 203, 3), one(t, 1, 203, 3),
          few(t, 29, 203, 4), dw(DType::kF32, 203, in, 5), dw1(DType::kF32, 203, in, 5),
          y1(t, 411, 203, 6);
      cpu->matmul(x.t, w.w, nullptr, y.t, fp8);
      cpu->matmul(x.t.row_range(100, 29), w.w, nullptr, few.t, fp8);
      EXPECT_TRUE(same_bits(y.t.row_range(100, 29), few.t));
      for (int64_t r : {0, 5, 77, 410}) {
        cpu->matmul(x.t.row_range(r, 1), w.w, nullptr, one.t, fp8);
        EXPECT_TRUE(same_bits(y.t.row_range(r, 1), one.t)) << r;
      }
      cpu->matmul_dw(dy.t, x.t, dw.t, Accum::kSet, fp8);
      set_thread_count(threads == 1 ? 2 : 1);
      cpu->matmul(x.t, w.w, nullptr, y1.t, fp8);
      cpu->matmul_dw(dy.t, x.t, dw1.t, Accum::kSet, fp8);
      set_thread_count(threads);
      EXPECT_TRUE(same_bits(y.t, y1.t));
      EXPECT_TRUE(same_bits(dw.t, dw1.t));
    }
  }
}

TEST_P(CpuMatmul, GemmEqualsRefInEveryTransposition) {
  for (bool ta : {false, true}) {
    for (bool tb : {false, true}) {
      for (auto [m, k, n] : kShapes) {
        Data a(DType::kF32, ta ? k : m, ta ? m : k, 1, 1, 2),
            b(DType::kF32, tb ? n : k, tb ? k : n, 2);
        for (auto [alpha, beta] :
             {std::pair{1.0f, 0.0f}, {0.5f, 0.0f}, {2.0f, 1.0f}, {-1.5f, 0.7f}}) {
          Data c(DType::kF32, m, n, 3), c2(DType::kF32, m, n, 3);
          cpu->gemm(a.t, ta, b.t, tb, alpha, beta, c.t);
          ref.gemm(a.t, ta, b.t, tb, alpha, beta, c2.t);
          EXPECT_LT(difference(c.t, c2.t), 3e-5) << ta << tb << " " << m << "x" << k << "x" << n;
        }
      }
    }
  }
}

TEST_P(CpuMatmul, ColumnSumEqualsRef) {
  for (DType t : kTypes) {
    for (int64_t n : {0, 1, 77}) {
      for (Accum a : {Accum::kSet, Accum::kAdd}) {
        Data dy(t, n, 149, 1), db(DType::kF32, 1, 149, 2), db2(DType::kF32, 1, 149, 2);
        cpu->column_sum(dy.t, db.t, a);
        ref.column_sum(dy.t, db2.t, a);
        EXPECT_LT(difference(db.t, db2.t), 1e-5);
      }
    }
  }
}

// Some tokens of each row beside its target; rows 1, 4, ... keep none of the first 600.
std::vector<int32_t> some_kept(std::span<const int32_t> ids, int64_t vocab) {
  size_t words = static_cast<size_t>(vocab + 31) / 32;
  std::vector<int32_t> kept(ids.size() * words);
  Rng rng(8);
  auto keep = [&](size_t row, uint64_t v) {
    kept[row * words + v / 32] |= static_cast<int32_t>(1u << (v % 32));
  };
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0) continue;
    keep(i, static_cast<uint64_t>(ids[i]));
    uint64_t from = i % 3 == 1 && vocab > 600 ? 600 : 0;
    for (int j = 0; j < 20; ++j) keep(i, from + rng.below(static_cast<uint64_t>(vocab) - from));
  }
  return kept;
}

TEST_P(CpuMatmul, TokenLogpOverKeptTokensAtATemperatureAndItsGradientEqualRef) {
  for (DType t : kTypes) {
    for (auto [n, d, vocab] : {Shape{1, 8, 3}, {7, 33, 700}, {230, 48, 1290}}) {
      SCOPED_TRACE(testing::Message() << name(t) << " " << n << "x" << d << "x" << vocab);
      TestWeight head(vocab, d);
      Data h(t, n, d, 1, 3.0f), dlogp(DType::kF32, n, 1, 2);
      std::vector<int32_t> ids(static_cast<size_t>(n));
      Rng rng(3);
      for (size_t i = 0; i < ids.size(); ++i)
        ids[i] = i % 5 == 3 ? -1 : static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab)));
      std::vector<int32_t> kept = some_kept(ids, vocab);
      Targets target(Tensor(ids.data(), DType::kI32, 1, n),
                     Tensor(kept.data(), DType::kI32, n, (vocab + 31) / 32), 0.8);
      Data logp(DType::kF32, n, 1, 4), lse(DType::kF32, n, 1, 4), logp2(DType::kF32, n, 1, 4),
          lse2(DType::kF32, n, 1, 4), all(DType::kF32, n, 1, 4);
      cpu->token_logp(h.t, head.w, target, logp.t, lse.t);
      ref.token_logp(h.t, head.w, target, logp2.t, lse2.t);
      EXPECT_LT(difference(logp.t, logp2.t), t == DType::kF32 ? 1e-5 : 0.02);
      ref.token_logp(h.t, head.w, target.id, all.t, Tensor());
      if (n > 1) {
        EXPECT_GT(difference(logp.t, all.t), 0.1);
      }
      double most = t == DType::kF32 ? 1e-5 : 0.01;
      Data dh(t, n, d, 5), dh2(t, n, d, 5), dw(DType::kF32, vocab, d, 6),
          dw2(DType::kF32, vocab, d, 6);
      cpu->token_logp_backward(h.t, head.w, target, lse.t, dlogp.t, dh.t, Accum::kSet, dw.t,
                               Accum::kSet);
      ref.token_logp_backward(h.t, head.w, target, lse2.t, dlogp.t, dh2.t, Accum::kSet, dw2.t,
                              Accum::kSet);
      EXPECT_LT(difference_of_largest(dh.t, dh2.t), most);
      EXPECT_LT(difference_of_largest(dw.t, dw2.t), most);
      Data again(DType::kF32, n, 1, 4);
      cpu->token_logp_and_gradient(h.t, head.w, target, dlogp.t, again.t, dh.t, dw.t, Accum::kSet);
      EXPECT_TRUE(same_bits(again.t, logp.t));
      EXPECT_LT(difference_of_largest(dh.t, dh2.t), most);
      EXPECT_LT(difference_of_largest(dw.t, dw2.t), most);
    }
  }
}

TEST_P(CpuMatmul, TokenLogpAndItsGradientEqualRef) {
  for (DType t : kTypes) {
    for (auto [n, d, vocab] : {Shape{1, 8, 3}, {7, 33, 700}, {110, 64, 1290}, {230, 48, 2100}}) {
      SCOPED_TRACE(testing::Message() << name(t) << " " << n << "x" << d << "x" << vocab);
      TestWeight head(vocab, d);
      Data h(t, n, d, 1, 3.0f), dlogp(DType::kF32, n, 1, 2);
      std::vector<int32_t> ids(static_cast<size_t>(n));
      Rng rng(3);
      for (int64_t i = 0; i < n; ++i) {
        ids[static_cast<size_t>(i)] =
            i < 97 || i % 4 == 0 ? static_cast<int32_t>(rng.below(vocab)) : -1;
      }
      if (n > 3) ids[3] = -1;
      Tensor target(ids.data(), DType::kI32, 1, n);
      Data logp(DType::kF32, n, 1, 4), lse(DType::kF32, n, 1, 4), logp2(DType::kF32, n, 1, 4),
          lse2(DType::kF32, n, 1, 4);
      cpu->token_logp(h.t, head.w, target, logp.t, lse.t);
      ref.token_logp(h.t, head.w, target, logp2.t, lse2.t);
      EXPECT_LT(difference(logp.t, logp2.t), t == DType::kF32 ? 1e-5 : 0.02);
      EXPECT_LT(difference(lse.t, lse2.t), t == DType::kF32 ? 1e-5 : 0.02);
      Data one(DType::kF32, 1, 1, 4);
      cpu->token_logp(h.t.row_range(n - 1, 1), head.w, target.col_range(n - 1, 1), one.t, Tensor());
      EXPECT_TRUE(same_bits(one.t, logp.t.row_range(n - 1, 1)));
      for (Accum a : {Accum::kSet, Accum::kAdd}) {
        Data dh(t, n, d, 5), dh2(t, n, d, 5), dw(DType::kF32, vocab, d, 6),
            dw2(DType::kF32, vocab, d, 6);
        cpu->token_logp_backward(h.t, head.w, target, lse2.t, dlogp.t, dh.t, a, dw.t, a);
        ref.token_logp_backward(h.t, head.w, target, lse2.t, dlogp.t, dh2.t, a, dw2.t, a);
        double most =
            t == DType::kF32 ? 1e-5 : 0.01;  // bf16: the gradient of the logits is rounded to it
        EXPECT_LT(difference_of_largest(dh.t, dh2.t), most);
        EXPECT_LT(difference_of_largest(dw.t, dw2.t), most);
      }
    }
  }
}

// Forward products with block types round x: quant_test.cc.
TEST_P(CpuMatmul, WeightsOfEveryFileTypeEqualTheirDecodedValues) {
  for (const QuantFormat& format : quant_formats()) {
    constexpr int64_t kOut = 130, kIn = 512;
    TestWeight plain(kOut, kIn);
    Weight packed = plain.w;
    packed.cache = nullptr;
    std::vector<uint8_t> blocks(static_cast<size_t>(kOut * row_bytes(format.dtype, kIn)));
    packed.value = {Tensor(blocks.data(), format.dtype, kOut, kIn)};
    for (int64_t r = 0; r < kOut; ++r) {
      float* row = plain.w.value[0].row<float>(r);
      format.encode(row, nullptr, packed.value[0].row_raw(r), kIn);
      format.decode(packed.value[0].row_raw(r), row, kIn);
    }
    for (DType t : kTypes) {
      Data x(t, 9, kIn, 1), y(t, 9, kOut, 2), y2(t, 9, kOut, 3);
      if (!is_quantised(format.dtype)) {
        cpu->matmul(x.t, packed, nullptr, y.t);
        cpu->matmul(x.t, plain.w, nullptr, y2.t);
        EXPECT_TRUE(same_bits(y.t, y2.t)) << format.gguf_name << " " << name(t);
      }
      Data dx(t, 9, kIn, 2), dx2(t, 9, kIn, 3), dy(t, 9, kOut, 4);
      cpu->matmul_dx(dy.t, packed, dx.t, Accum::kSet);
      cpu->matmul_dx(dy.t, plain.w, dx2.t, Accum::kSet);
      EXPECT_TRUE(same_bits(dx.t, dx2.t)) << format.gguf_name << " " << name(t);
    }
  }
}

// The f32 weight of the same values.
TestWeight decoded(const TestWeight& w) {
  TestWeight out(w.w.rows, w.w.cols, w.w.experts());
  for (int64_t e = 0; e < w.w.experts(); ++e) {
    float* to = out.w.value[static_cast<size_t>(e)].row<float>(0);
    weight_rows_f32(w.w, e, 0, w.w.rows, to);
  }
  return out;
}

TEST_P(CpuMatmul, WeightsInTheTypeOfACheckpointGiveTheBitsOfTheirValues) {
  for (DType stored : {DType::kBF16, DType::kF16, DType::kF8E4M3}) {
    for (DType t : kTypes) {
      for (auto [in, out] :
           {std::pair<int64_t, int64_t>{1, 1}, {130, 80}, {257, 129}, {1101, 200}, {3203, 300}}) {
        TestWeight w(out, in, 1, stored), plain = decoded(w), bias(1, out);
        for (int64_t n : {1, 2, 3, 4, 5, 6, 7, 12, 13, 30}) {
          SCOPED_TRACE(testing::Message()
                       << name(stored) << " " << name(t) << " " << n << "x" << in << "x" << out);
          Data x(t, n, in, 1, 1, 3), y(t, n, out, 2), y2(t, n, out, 3);
          cpu->matmul(x.t, w.w, &bias.w, y.t);
          cpu->matmul(x.t, plain.w, &bias.w, y2.t);
          EXPECT_TRUE(same_bits(y.t, y2.t));
        }
      }
      TestWeight gate(200, 300, 5, stored), up(200, 300, 5, stored), plain_gate = decoded(gate),
                                                                     plain_up = decoded(up);
      int32_t offsets[] = {0, 3, 3, 60, 61, 70};
      Tensor o(offsets, DType::kI32, 1, 6);
      Data x(t, 70, 300, 1), y(t, 70, 200, 2), y2(t, 70, 200, 3);
      cpu->gated_matmul(x.t, gate.w, up.w, o, y.t, Tensor(), Tensor());
      cpu->gated_matmul(x.t, plain_gate.w, plain_up.w, o, y2.t, Tensor(), Tensor());
      EXPECT_TRUE(same_bits(y.t, y2.t)) << name(stored) << " " << name(t);
    }
  }
}

TEST_P(CpuMatmul, NaNCodesOfE4m3AreRefused) {
  struct Place {
    int64_t row, col;
    uint8_t code;
  };
  Data x(DType::kF32, 4, 130, 1), y(DType::kF32, 4, 70, 2);
  int32_t offsets[] = {0, 2, 4};
  auto multiply = [&](std::initializer_list<Place> places) {
    TestWeight w(70, 130, 2, DType::kF8E4M3);
    for (const Place& p : places) w.w.value[1].row_raw(p.row)[p.col] = p.code;
    cpu->grouped_matmul(x.t, w.w, Tensor(offsets, DType::kI32, 1, 3), y.t);
  };
  for (const Place& p :
       {Place{69, 129, 0xff}, {0, 0, 0x7f}, {5, 63, 0xff}, {69, 7, 0x7f}, {3, 128, 0x7f}})
    EXPECT_THROW(multiply({p}), Error) << p.row << " " << p.col;
  EXPECT_NO_THROW(multiply({{0, 0, 0x7e}, {0, 1, 0xfe}, {0, 2, 0x80}, {69, 129, 0xfe}}));
}

TEST_P(CpuMatmul, AWeightInATypeWithoutDecoderIsRefused) {
  TestWeight w(4, 256);
  w.w.value[0].dtype = DType::kI64;
  w.w.value[0].cols = w.w.value[0].stride = 128;
  w.w.cols = 128;
  Data x(DType::kF32, 2, 128, 1), y(DType::kF32, 2, 4, 2);
  EXPECT_THROW(cpu->matmul(x.t, w.w, nullptr, y.t), Error);
}

INSTANTIATE_TEST_SUITE_P(Isa, CpuMatmul,
                         testing::Values("avx2", "avx512", "avx512_vnni", "avx512_bf16"),
                         [](const auto& info) { return std::string(info.param); });

TEST(CpuDevice, AnUnknownInstructionSetIsAnError) { EXPECT_THROW(CpuDevice("avx1024"), Error); }

}  // namespace
}  // namespace wels
