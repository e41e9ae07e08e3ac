// Blocks taken apart and put together again are the decoder's values, for every block type.
#include "tensor/quant_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "tensor/quant.h"

namespace wels {
namespace {

TEST(QuantCodes, EveryBlockTypeIsScaleTimesCodePlusMinimum) {
  Rng rng(1);
  int types = 0;
  for (const QuantFormat& f : quant_formats()) {
    if (!is_quantised(f.dtype)) continue;
    ++types;
    const QuantSplit* split = find_quant_split(f.dtype);
    ASSERT_NE(split, nullptr) << f.gguf_name;
    EXPECT_TRUE(split->offset == 0 || !split->has_min) << f.gguf_name;
    int n = info(f.dtype).block;
    for (int round = 0; round < 300; ++round) {
      std::vector<uint8_t> block(static_cast<size_t>(info(f.dtype).bytes));
      for (uint8_t& b : block) b = static_cast<uint8_t>(rng.below(256));
      std::vector<float> want(static_cast<size_t>(n));
      f.decode(block.data(), want.data(), n);
      QuantCodes c;
      split->split(block.data(), c);
      for (int i = 0; i < n; ++i) {
        float s = c.scale[i / split->group], m = c.min[i / split->group];
        float got = s * static_cast<float>(c.code[i] - split->offset) + m;
        float value = want[static_cast<size_t>(i)];
        if (std::isnan(value)) {
          EXPECT_TRUE(std::isnan(got));
        } else {
          ASSERT_EQ(got, value) << f.gguf_name << " value " << i;
        }
      }
    }
  }
  EXPECT_EQ(types, 13);
}

TEST(QuantCodes, PlainTypesHaveNone) { EXPECT_EQ(find_quant_split(DType::kF16), nullptr); }

}  // namespace
}  // namespace wels
