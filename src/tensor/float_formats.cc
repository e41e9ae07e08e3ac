#include "tensor/float_formats.h"

#include <algorithm>

#include "base/check.h"
#include "tensor/fp8.h"

namespace wels {

float round_up_to_power_of_two(float scale) {
  CHECK(scale >= 0x1p-126f);
  CHECK(std::isfinite(scale));
  uint32_t u = std::bit_cast<uint32_t>(scale);
  return std::bit_cast<float>((u + 0x7fffffu) & 0x7f800000u);
}

void fp8_quantise_tiles(const float* x, int64_t rows, int64_t cols, int64_t stride, bool ue8m0,
                        uint8_t* codes, float* scales) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t begin = 0; begin < cols; begin += kFp8Block) {
      int64_t end = std::min<int64_t>(begin + kFp8Block, cols);
      float amax = 0;
      for (int64_t c = begin; c < end; ++c) amax = std::max(amax, std::fabs(x[r * stride + c]));
      float scale = fp8_activation_scale(amax);
      if (ue8m0) scale = round_up_to_power_of_two(scale);
      for (int64_t c = begin; c < end; ++c)
        codes[r * cols + c] = float_to_fp8(x[r * stride + c] / scale);
      *scales++ = scale;
    }
  }
}

void fp8_quantise_blocks(const float* w, int64_t rows, int64_t cols, bool ue8m0, uint8_t* codes,
                         float* scales) {
  for (int64_t r0 = 0; r0 < rows; r0 += kFp8Block) {
    int64_t r1 = std::min<int64_t>(r0 + kFp8Block, rows);
    for (int64_t c0 = 0; c0 < cols; c0 += kFp8Block) {
      int64_t c1 = std::min<int64_t>(c0 + kFp8Block, cols);
      float amax = 0;
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) amax = std::max(amax, std::fabs(w[r * cols + c]));
      }
      float scale = fp8_weight_scale(amax);
      if (ue8m0) scale = round_up_to_power_of_two(scale);
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c)
          codes[r * cols + c] = float_to_fp8(w[r * cols + c] / scale);
      }
      *scales++ = scale;
    }
  }
}

void fp8_dequantise_blocks(const uint8_t* codes, const float* scales, int64_t rows, int64_t cols,
                           int64_t block_rows, int64_t block_cols, float* out) {
  CHECK(block_rows > 0);
  CHECK(block_cols > 0);
  int64_t scale_cols = (cols + block_cols - 1) / block_cols;
  for (int64_t r = 0; r < rows; ++r) {
    const float* scale = scales + r / block_rows * scale_cols;
    for (int64_t c = 0; c < cols; ++c)
      out[r * cols + c] = fp8_to_float(codes[r * cols + c]) * scale[c / block_cols];
  }
}

}  // namespace wels
