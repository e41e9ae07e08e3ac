// Products with some of the experts packed against products with all of them: the same bits, and
// the experts that are called most are found.
#include "backend/cpu/expert_packs.h"

#include <gtest/gtest.h>

#include <cstring>

#include "backend/cpu/cpu_device.h"
#include "base/rng.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"

namespace wels {
namespace {

constexpr int64_t kExperts = 8, kIn = 256, kOut = 96;

// A stack of random experts of one type.
struct Stack {
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
  Weight w;
  Stack(DType type, uint64_t seed) {
    Rng rng(seed);
    int64_t n = kExperts * kOut * kIn;
    bytes.resize(static_cast<size_t>(row_bytes(type, n)));
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = static_cast<float>(rng.normal());
    if (type == DType::kF8E4M3) {
      for (size_t i = 0; i < values.size(); ++i) bytes[i] = float_to_fp8(values[i]);
    } else if (const QuantFormat* format = find_quant_format(type)) {
      format->encode(values.data(), nullptr, bytes.data(), n);
    }
    w.name = "experts";
    w.rows = kOut;
    w.cols = kIn;
    scales.assign(2, 0.5f);
    for (int64_t e = 0; e < kExperts; ++e) {
      w.value.emplace_back(bytes.data() + row_bytes(type, e * kOut * kIn), type, kOut, kIn);
      if (type == DType::kF8E4M3) w.scale.emplace_back(scales.data(), DType::kF32, 1, 2);
    }
  }
};

// Rows for experts: mostly the first two, now and then any.
std::vector<int32_t> some_offsets(Rng& rng) {
  std::vector<int32_t> o{0};
  for (int64_t e = 0; e < kExperts; ++e)
    o.push_back(o.back() + (e < 2 ? 3 : rng.below(5) == 0 ? 2 : 0));
  return o;
}

TEST(ExpertPacks, BitsDoNotDependOnWhichExpertsStayAndTheHotOnesDo) {
  for (DType type : {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kQ8_0, DType::kQ4_K}) {
    for (DType activations : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::string(name(type)) + " " + std::string(name(activations)));
      Stack gate(type, 1), up(type, 2), all_gate(type, 1), all_up(type, 2);
      CpuDevice some, all;
      some.set_expert_share(0.25);  // 2 of 8
      Rng rng(5);
      for (int call = 0; call < 60; ++call) {
        std::vector<int32_t> o = some_offsets(rng);
        int64_t n = o.back();
        std::vector<float> values(static_cast<size_t>(n * kIn));
        for (float& v : values) v = static_cast<float>(rng.normal());
        std::vector<uint8_t> x(static_cast<size_t>(row_bytes(activations, n * kIn)));
        Tensor tx(x.data(), activations, n, kIn);
        all.copy(Tensor(values.data(), DType::kF32, n, kIn), tx, Accum::kSet);
        Tensor offsets(o.data(), DType::kI32, 1, kExperts + 1);
        auto run = [&](CpuDevice& dev, Weight& g, Weight& u, bool gated) {
          std::vector<uint8_t> y(static_cast<size_t>(row_bytes(activations, n * kOut)));
          Tensor ty(y.data(), activations, n, kOut);
          gated ? dev.gated_matmul(tx, g, u, offsets, ty, {}, {}, false)
                : dev.grouped_matmul(tx, g, offsets, ty, false);
          return y;
        };
        for (bool gated : {true, false})
          ASSERT_EQ(run(some, gate.w, up.w, gated), run(all, all_gate.w, all_up.w, gated)) << call;
      }
      // Two of the experts with rows are always there after the first calls.
      double found = static_cast<double>(some.expert_counts().found);
      EXPECT_GT(found, 2 * 3 * 57);
      EXPECT_LT(found, static_cast<double>(some.expert_counts().uses));
      EXPECT_EQ(all.expert_counts().uses, 0);
    }
  }
}

TEST(ExpertPacks, AnExpertThatIsCalledMoreTakesThePlaceOfOneThatIsNot) {
  ExpertCounts counts;
  Pool pool;
  auto slots = std::make_shared<ExpertSlots>(4);
  auto call = [&](std::vector<int32_t> experts) {
    std::vector<int32_t> o(5);
    for (int32_t e : experts) ++o[static_cast<size_t>(e) + 1];
    for (size_t e = 0; e < 4; ++e) o[e + 1] += o[e];
    ExpertUse use(0.5, o, pool, counts);
    EXPECT_TRUE(use.limited(4));
    EXPECT_FALSE(use.limited(1));
    std::vector<int32_t> missing = use.take(slots, 1000);
    for (int32_t e : experts) EXPECT_TRUE(slots->pack[static_cast<size_t>(e)]);
    return missing.size();
  };
  EXPECT_EQ(call({0, 1}), 2u);
  EXPECT_EQ(call({0, 1}), 0u);
  EXPECT_EQ(call({2, 3}), 2u);  // used less: only passing
  EXPECT_FALSE(slots->pack[2] || slots->pack[3]);
  EXPECT_EQ(call({0, 1}), 0u);
  for (int i = 0; i < 5; ++i) call({2});
  EXPECT_TRUE(slots->pack[2]);
  EXPECT_NE(slots->pack[0] == nullptr, slots->pack[1] == nullptr);
  EXPECT_EQ(slots->resident, 2);
  EXPECT_EQ(call({0, 1, 2, 3}), 2u);
  EXPECT_EQ(slots->resident, 2);
  int there = 0;
  for (const auto& p : slots->pack) there += p != nullptr;
  EXPECT_EQ(there, 2);
  EXPECT_EQ(pool.bytes_now(), 0);
}

TEST(ExpertPacks, DamagedExpertsAreRefusedEveryTime) {
  Stack bad(DType::kF8E4M3, 1);
  bad.bytes[5] = 0x7f;
  CpuDevice dev;
  dev.set_expert_share(0.25);
  std::vector<float> x(kIn), y(kOut);
  std::vector<int32_t> o{0, 1, 1, 1, 1, 1, 1, 1, 1};
  for (int i = 0; i < 2; ++i) {
    EXPECT_ANY_THROW(dev.grouped_matmul(Tensor(x.data(), DType::kF32, 1, kIn), bad.w,
                                        Tensor(o.data(), DType::kI32, 1, kExperts + 1),
                                        Tensor(y.data(), DType::kF32, 1, kOut), false));
  }
}

}  // namespace
}  // namespace wels
