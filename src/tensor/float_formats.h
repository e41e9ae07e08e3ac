// Narrow floating point beyond bf16 (dtype.h) and single E4M3 codes (fp8.h): IEEE half precision,
// and V3's block-wise FP8 quantisation of whole matrices (V3 section 3.3.2; scales as recipe 1.6).
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace wels {

// IEEE binary16: 1 sign, 5 exponent (bias 15), 10 mantissa bits. Exact; NaN stays NaN.
inline float half_to_float(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  uint32_t exponent = h >> 10 & 31, mantissa = h & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {  // subnormal: mantissa · 2^-24, which float32 holds exactly
    float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

// Nearest half, ties to even; above 65519.99 infinity; NaN stays NaN.
inline uint16_t float_to_half(float x) {
  uint32_t u = std::bit_cast<uint32_t>(x);
  uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00);
  if (u >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00);  // 2^16 and more
  if (u < 0x38800000u) {  // below 2^-14: subnormal, in steps of 2^-24
    // Adding 0.5 puts the rounding position of float32 at 2^-24: the hardware rounds to nearest
    // even.
    float shifted = std::bit_cast<float>(u) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  u += 0xfff + (u >> 13 & 1);  // a carry into the exponent is right, up to infinity
  return static_cast<uint16_t>(sign | ((u - 0x38000000u) >> 13));
}

// The smallest power of two >= scale (V3.1's ue8m0 scales). scale: positive, normal.
float round_up_to_power_of_two(float scale);

// Quantises each 1 × 128 tile of x: scale = max(amax, 1e-4) / 448, code = E4M3(x / scale).
//   x [rows, cols] f32, rows `stride` apart · codes [rows, cols] · scales [rows, ceil(cols / 128)]
//   ue8m0: scales rounded up to powers of two. Source: V3 section 3.3.2; DeepSeek-V3
//   inference/kernel.py act_quant.
void fp8_quantise_tiles(const float* x, int64_t rows, int64_t cols, int64_t stride, bool ue8m0,
                        uint8_t* codes, float* scales);

// Quantises each 128 × 128 block of w: scale = amax / 448 (1 for an all-zero block), edges as if
// padded with zeros.
//   w [rows, cols] f32 · codes [rows, cols] · scales [ceil(rows / 128), ceil(cols / 128)] (HF:
//   weight_scale_inv)
void fp8_quantise_blocks(const float* w, int64_t rows, int64_t cols, bool ue8m0, uint8_t* codes,
                         float* scales);

// out[r][c] = codes[r][c] · scales[r / block_rows][c / block_cols], in float32.
void fp8_dequantise_blocks(const uint8_t* codes, const float* scales, int64_t rows, int64_t cols,
                           int64_t block_rows, int64_t block_cols, float* out);

}  // namespace wels
