#include "tensor/quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"

namespace wels {
namespace {

TEST(Half, EveryCodeSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    float x = half_to_float(static_cast<uint16_t>(h));
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(x))));
    } else {
      EXPECT_EQ(float_to_half(x), h);
    }
  }
}

TEST(Half, EveryCodeHasItsValue) {
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    int exponent = static_cast<int>(h >> 10), mantissa = static_cast<int>(h & 1023);
    double want =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    ASSERT_EQ(static_cast<double>(half_to_float(static_cast<uint16_t>(h))), want);
    ASSERT_EQ(static_cast<double>(half_to_float(static_cast<uint16_t>(h | 0x8000))), -want);
  }
  EXPECT_TRUE(std::isinf(half_to_float(0x7c00)));
}

TEST(Half, RoundsToTheNearestTiesToEven) {
  // Halfway between neighbours goes to the even one, the next float on either side to the nearer
  // one.
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    float low = half_to_float(static_cast<uint16_t>(h)),
          high = half_to_float(static_cast<uint16_t>(h + 1));
    float middle = (low + high) / 2;
    uint32_t even = h % 2 == 0 ? h : h + 1;
    ASSERT_EQ(float_to_half(middle), even);
    ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), h);
    ASSERT_EQ(float_to_half(std::nextafter(middle, 1e9f)), h + 1);
    ASSERT_EQ(float_to_half(-middle), even | 0x8000);
  }
  EXPECT_EQ(float_to_half(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(float_to_half(1e-10f), 0);
}

TEST(Fp8, PowerOfTwoScalesAreTheNextAbove) {
  EXPECT_EQ(round_up_to_power_of_two(1.0f), 1.0f);
  EXPECT_EQ(round_up_to_power_of_two(std::nextafter(1.0f, 2.0f)), 2.0f);
  EXPECT_EQ(round_up_to_power_of_two(0.3f), 0.5f);
  EXPECT_EQ(round_up_to_power_of_two(1e-4f / 448), 0x1p-22f);
}

TEST(Fp8, TilesAndBlocksOfOddShapesStayWithinHalfAStep) {
  for (int64_t rows : {1, 127, 129}) {
    for (int64_t cols : {1, 128, 131}) {
      Rng rng(1, static_cast<uint64_t>(rows * 1000 + cols));
      std::vector<float> x(static_cast<size_t>(rows * cols)), out(x.size());
      for (float& v : x) v = static_cast<float>(rng.normal());
      std::vector<uint8_t> codes(x.size());
      std::vector<float> scales(static_cast<size_t>((rows + 127) / 128 * ((cols + 127) / 128)));
      fp8_quantise_blocks(x.data(), rows, cols, false, codes.data(), scales.data());
      fp8_dequantise_blocks(codes.data(), scales.data(), rows, cols, 128, 128, out.data());
      for (size_t i = 0; i < x.size(); ++i)
        EXPECT_NEAR(out[i], x[i], std::max(std::fabs(x[i]) / 16, 0x1p-9f * 0.02f));
      scales.resize(static_cast<size_t>(rows * ((cols + 127) / 128)));
      fp8_quantise_tiles(x.data(), rows, cols, cols, true, codes.data(), scales.data());
      fp8_dequantise_blocks(codes.data(), scales.data(), rows, cols, 1, 128, out.data());
      for (size_t i = 0; i < x.size(); ++i)
        EXPECT_NEAR(out[i], x[i], std::max(std::fabs(x[i]) / 16, 0x1p-9f * 0.02f));
    }
  }
  std::vector<float> zero(256, 0.0f), scale(2, -1.0f);
  std::vector<uint8_t> codes(256, 1);
  fp8_quantise_blocks(zero.data(), 1, 256, false, codes.data(), scale.data());
  EXPECT_EQ(scale, (std::vector<float>{1.0f, 1.0f}));
  EXPECT_EQ(codes, std::vector<uint8_t>(256, 0));
}

TEST(QuantFormats, TheTableIsConsistent) {
  for (const QuantFormat& f : quant_formats()) {
    EXPECT_EQ(find_quant_format(f.dtype), &f);
    EXPECT_EQ(find_quant_format_by_ggml_type(f.ggml_type), &f);
    std::string lower = f.gguf_name;
    for (char& c : lower) c = static_cast<char>(std::tolower(c));
    EXPECT_EQ(lower, name(f.dtype));
  }
  EXPECT_EQ(find_quant_format(DType::kI64), nullptr);
  EXPECT_EQ(find_quant_format_by_ggml_type(4), nullptr);
}

TEST(QuantFormats, EveryEncoderStaysWithinAStepOfItsInput) {
  for (const QuantFormat& f : quant_formats()) {
    Rng rng(3);
    std::vector<float> x(512), out(512);
    for (size_t i = 0; i < x.size(); ++i) x[i] = i < 32 ? 0.0f : static_cast<float>(rng.normal());
    x[100] = 1e-30f;
    std::vector<uint8_t> bytes(512 / static_cast<size_t>(info(f.dtype).block) *
                               static_cast<size_t>(info(f.dtype).bytes));
    f.encode(x.data(), nullptr, bytes.data(), 512);
    f.decode(bytes.data(), out.data(), 512);
    double bits = 8.0 * info(f.dtype).bytes / info(f.dtype).block;
    for (size_t block = 0; block < 512; block += 32) {
      float amax = 0;
      for (size_t i = block; i < block + 32; ++i) amax = std::max(amax, std::fabs(x[i]));
      // A block of b bits per weight has steps of at most 2 amax / 2^(b - 1); plain types round
      // relative to each value.
      float step = 2 * amax / static_cast<float>(std::exp2(std::floor(bits) - 1));
      float relative = f.dtype == DType::kF32 ? 0 : f.dtype == DType::kF16 ? 0x1p-11f : 0x1p-8f;
      for (size_t i = block; i < block + 32; ++i) {
        float bound = is_quantised(f.dtype) ? step
                                            : std::max(relative * std::fabs(x[i]),
                                                       f.dtype == DType::kF16 ? 0x1p-25f : 0);
        EXPECT_LE(std::fabs(out[i] - x[i]), bound) << f.gguf_name << " " << i;
      }
    }
  }
}

TEST(QuantFormats, EncodersSurviveSubnormalsAndHugeValues) {
  for (const QuantFormat& f : quant_formats()) {
    for (float v : {1e-44f, 1e38f, -3.4e38f}) {
      std::vector<float> x(256, v), out(256);
      x[0] = -v / 2;
      std::vector<uint8_t> bytes(256 / static_cast<size_t>(info(f.dtype).block) *
                                 static_cast<size_t>(info(f.dtype).bytes));
      f.encode(x.data(), nullptr, bytes.data(), 256);
      f.decode(bytes.data(), out.data(), 256);
      for (float y : out)
        EXPECT_FALSE(v == 1e-44f && y != 0.0f && std::fabs(y) > 1e-43f) << f.gguf_name << y;
    }
  }
}

}  // namespace
}  // namespace wels
