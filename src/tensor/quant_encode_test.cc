// How good the encoders' blocks are: known figures on normal values, plain rounding as the bar on
// others, importance, and what no search must break on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using Floats = std::vector<float>;

constexpr int64_t kValues = 256 * 64;

Floats normal_values(uint64_t seed) {
  Rng rng(seed);
  Floats x(static_cast<size_t>(kValues));
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}
// A few values of 20 times the others' size, as weights of trained models have.
Floats heavy_values(uint64_t seed) {
  Rng rng(seed);
  Floats x(static_cast<size_t>(kValues));
  for (float& v : x) {
    double wide = std::exp(1.0 * rng.normal());
    v = static_cast<float>(rng.normal() * wide);
  }
  return x;
}
// Columns that matter from 1/50 to 50 times the mean.
Floats importance_values(uint64_t seed) {
  Rng rng(seed);
  Floats w(static_cast<size_t>(kValues));
  for (float& v : w) v = static_cast<float>(std::exp(1.5 * rng.normal()));
  return w;
}

Floats round_trip(const QuantFormat& f, const Floats& x, const float* importance) {
  int64_t n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> bytes(static_cast<size_t>(row_bytes(f.dtype, n)));
  Floats y(x.size());
  f.encode(x.data(), importance, bytes.data(), n);
  f.decode(bytes.data(), y.data(), n);
  return y;
}

double squares(const Floats& x, const Floats& y, const Floats* w = nullptr) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double e = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += e * e * (w ? static_cast<double>((*w)[i]) : 1.0);
  }
  return sum;
}
double relative_rmse(const Floats& x, const Floats& y) {
  return std::sqrt(squares(x, y) / squares(x, Floats(x.size())));
}

// What is known of each quantised type.
struct Known {
  DType dtype;
  double low, high;      // relative RMSE on normal values
  double normal, heavy;  // at most so much of plain rounding's squared error
  double importance;     // weighted squared error with importance over that without
  size_t group;          // of plain rounding: values under one scale
  int lowest, highest;   // its levels; lowest 0: with an offset; both 0: others
};
const Known kKnown[] = {
    {DType::kQ8_0, 0.00494, 0.00514, 0.9, 0.98, 0.78, 32, -127, 127},
    {DType::kQ4_0, 0.07998, 0.08325, 0.92, 0.97, 0.73, 32, -8, 7},
    {DType::kQ4_1, 0.06773, 0.07050, 0.8, 0.64, 0.63, 32, 0, 15},
    {DType::kQ5_0, 0.03931, 0.04092, 0.91, 0.98, 0.75, 32, -16, 15},
    {DType::kQ5_1, 0.03283, 0.03417, 0.8, 0.81, 0.64, 32, 0, 31},
    {DType::kQ2_K, 0.25501, 0.26542, 0.65, 0.44, 0.56, 16, 0, 3},
    {DType::kQ3_K, 0.14112, 0.14688, 0.9, 0.97, 0.65, 16, -4, 3},
    {DType::kQ4_K, 0.06835, 0.07114, 0.81, 0.66, 0.63, 32, 0, 15},
    {DType::kQ5_K, 0.03370, 0.03508, 0.85, 0.87, 0.66, 32, 0, 31},
    {DType::kQ6_K, 0.01661, 0.01729, 0.83, 0.97, 0.69, 16, -32, 31},
    {DType::kIQ4_NL, 0.07210, 0.07504, 0.87, 0.95, 0.7, 32, 0, 0},
    {DType::kIQ4_XS, 0.07266, 0.07563, 0.88, 0.97, 0.7, 32, 0, 0},
    {DType::kMXFP4, 0.10989, 0.11438, 0.97, 0.88, 0.99, 32, 0, 0},
};

const Known& known(const QuantFormat& f) {
  auto at = std::find_if(std::begin(kKnown), std::end(kKnown),
                         [&](const Known& k) { return k.dtype == f.dtype; });
  EXPECT_NE(at, std::end(kKnown)) << f.gguf_name << " has no row here";
  return *at;
}

// Levels that plain rounding has: even ones, IQ4's or FP4's.
Floats levels(const Known& k) {
  if (k.dtype == DType::kMXFP4)
    return {-6, -4, -3, -2, -1.5f, -1, -0.5f, 0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  if (k.highest == 0)
    return {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  Floats out;
  for (int l = k.lowest; l <= k.highest; ++l) out.push_back(static_cast<float>(l));
  return out;
}

// The largest value at the last level (smallest and largest at both ends where there is an
// offset), every value at the nearest level; scales exact, which is better than any file.
Floats plain_rounding(const Known& k, const Floats& x) {
  Floats y(x.size()), level = levels(k);
  for (size_t begin = 0; begin < x.size(); begin += k.group) {
    auto first = x.begin() + static_cast<std::ptrdiff_t>(begin);
    auto last = first + static_cast<std::ptrdiff_t>(k.group);
    auto [low, high] = std::minmax_element(first, last);
    float most = -*low > *high ? *low : *high;
    bool offset = k.lowest == 0 && k.highest > 0;
    // K types subtract their minima, which have no sign.
    float base = offset ? info(k.dtype).block == 256 ? std::min(*low, 0.0f) : *low : 0;
    float d = offset ? (*high - base) / level.back() : most / level.front();
    if (k.dtype == DType::kMXFP4)
      d = std::ldexp(1.0f, std::ilogb(std::max(std::fabs(most), 1e-30f)) - 2);
    for (size_t i = begin; i < begin + k.group; ++i) {
      float best = std::numeric_limits<float>::max();
      for (float l : level) {
        float v = d * l + base;
        if (std::fabs(v - x[i]) < std::fabs(best - x[i])) best = v;
      }
      y[i] = best;
    }
  }
  return y;
}

void for_quantised(const std::function<void(const QuantFormat&, const Known&)>& check) {
  for (const QuantFormat& f : quant_formats()) {
    if (!is_quantised(f.dtype)) continue;
    SCOPED_TRACE(f.gguf_name);
    check(f, known(f));
  }
}

TEST(QuantEncoders, LeaveTheKnownErrorOnNormalValues) {
  Floats x = normal_values(1);
  for_quantised([&](const QuantFormat& f, const Known& k) {
    double rmse = relative_rmse(x, round_trip(f, x, nullptr));
    RecordProperty(f.gguf_name, std::to_string(rmse));
    EXPECT_GT(rmse, k.low);
    EXPECT_LT(rmse, k.high);
  });
}

TEST(QuantEncoders, BeatPlainRounding) {
  for (bool heavy : {false, true}) {
    Floats x = heavy ? heavy_values(2) : normal_values(2);
    for_quantised([&](const QuantFormat& f, const Known& k) {
      double ratio = squares(x, round_trip(f, x, nullptr)) / squares(x, plain_rounding(k, x));
      RecordProperty(std::string(f.gguf_name) + (heavy ? "_heavy" : "_normal"),
                     std::to_string(ratio));
      EXPECT_LT(ratio, heavy ? k.heavy : k.normal);
    });
  }
}

TEST(QuantEncoders, ImportanceLowersTheWeightedError) {
  Floats x = normal_values(3), w = importance_values(4);
  for_quantised([&](const QuantFormat& f, const Known& k) {
    double with = squares(x, round_trip(f, x, w.data()), &w);
    double without = squares(x, round_trip(f, x, nullptr), &w);
    RecordProperty(f.gguf_name, std::to_string(with / without));
    EXPECT_LT(with / without, k.importance);
  });
}

TEST(QuantEncoders, ARowIsItsBlocksOneByOne) {
  Floats x = heavy_values(5), w = importance_values(6);
  for_quantised([&](const QuantFormat& f, const Known&) {
    Floats whole = round_trip(f, x, w.data());
    size_t block = static_cast<size_t>(info(f.dtype).block);
    for (size_t i = 0; i < x.size(); i += block * 7) {
      auto at = static_cast<std::ptrdiff_t>(i), end = at + static_cast<std::ptrdiff_t>(block);
      Floats one = round_trip(f, Floats(x.begin() + at, x.begin() + end), w.data() + i);
      EXPECT_EQ(one, Floats(whole.begin() + at, whole.begin() + end));
    }
  });
}

TEST(QuantEncoders, ColumnsWithoutImportanceCountAlikeWhereThereIsNothingElse) {
  Floats x = normal_values(7), zero(x.size(), 0.0f), few(x.size(), 0.0f);
  for (size_t i = 0; i < few.size(); i += 50) few[i] = 1;
  for_quantised([&](const QuantFormat& f, const Known& k) {
    EXPECT_EQ(round_trip(f, x, zero.data()), round_trip(f, x, nullptr));
    // A column that no input reached gets some value of its block's size, not a wild one.
    for (float y : round_trip(f, x, few.data())) ASSERT_LT(std::fabs(y), 12.0f);
    EXPECT_LE(squares(x, round_trip(f, x, few.data()), &few),
              squares(x, round_trip(f, x, nullptr), &few) * 1.0001);
  });
}

// Rows of one kind of value each, as damaged, pruned or untrained models have them.
TEST(QuantEncoders, OddRowsAreNotWorseThanPlainRounding) {
  struct Row {
    const char* name;
    std::function<float(size_t)> value;
  };
  const Row rows[] = {
      {"zero", [](size_t) { return 0.0f; }},
      {"constant", [](size_t) { return 0.37f; }},
      {"negative", [](size_t) { return -0.01f; }},
      {"one spike", [](size_t i) { return i % 256 == 77 ? -3.0f : 0.0f; }},
      {"ramp", [](size_t i) { return static_cast<float>(i % 256) / 256; }},
      {"two values", [](size_t i) { return i % 3 ? 1.0f : -1.0f; }},
      {"small", [](size_t i) { return 1e-4f * static_cast<float>(std::sin(double(i * i))); }},
      {"large", [](size_t i) { return 1e4f * static_cast<float>(std::sin(double(i * i))); }},
      {"zero groups", [](size_t i) { return i / 32 % 2 ? std::sin(float(i)) : 0.0f; }},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Floats x(1024);
    for (size_t i = 0; i < x.size(); ++i) x[i] = row.value(i);
    double size = squares(x, Floats(x.size()));
    for_quantised([&](const QuantFormat& f, const Known& k) {
      Floats y = round_trip(f, x, nullptr);
      for (float v : y) ASSERT_TRUE(std::isfinite(v));
      // Scales in half precision and whole multiples cost up to 1e-4 where plain rounding is exact.
      EXPECT_LE(squares(x, y), squares(x, plain_rounding(k, x)) + 1e-4 * size);
    });
  }
}

TEST(QuantEncoders, ValuesBeyondHalfPrecisionStayFinite) {
  for (float size : {1e-44f, 1e-30f, 1e-9f, 1e20f, 3.4e38f}) {
    SCOPED_TRACE(size);
    Floats x(512);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = size * static_cast<float>(std::sin(static_cast<double>(i * i)));
    for_quantised([&](const QuantFormat& f, const Known&) {
      for (float y : round_trip(f, x, nullptr)) {
        ASSERT_TRUE(std::isfinite(y));
        ASSERT_LE(std::fabs(y), 1.5f * size);
      }
    });
  }
}

}  // namespace
}  // namespace wels
