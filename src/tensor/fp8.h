// FP8 E4M3FN and V3's block scaling (V3 §3.3): 1 sign, 4 exponent (bias 7), 3 mantissa bits; no
// infinities, 0x7f/0xff NaN, largest 448, smallest normal 2^-6, smallest subnormal 2^-9. An
// activation tile is 1 row × 128 columns, a weight block 128 × 128; each has one f32 scale, value =
// code · scale.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace wels {

inline constexpr int kFp8Block = 128;
inline constexpr float kFp8Max = 448.0f;

inline float fp8_to_float(uint8_t code) {
  int exponent = code >> 3 & 15, mantissa = code & 7;
  float magnitude = exponent == 0
                        ? std::ldexp(static_cast<float>(mantissa), -9)
                        : std::ldexp(1.0f + static_cast<float>(mantissa) / 8, exponent - 7);
  if ((code & 0x7f) == 0x7f) magnitude = std::numeric_limits<float>::quiet_NaN();
  return code & 0x80 ? -magnitude : magnitude;
}

// Nearest code, ties to even, saturating at ±448; NaN stays NaN.
inline uint8_t float_to_fp8(float x) {
  uint8_t sign = std::signbit(x) ? 0x80 : 0;
  float a = std::fabs(x);
  if (std::isnan(a)) return static_cast<uint8_t>(sign | 0x7f);
  if (a >= kFp8Max) return static_cast<uint8_t>(sign | 0x7e);
  // The spacing of codes around a: 2^-9 below the smallest normal, else 2^(exponent - 3).
  int exponent = std::max(a > 0 ? std::ilogb(a) : -6, -6);
  float steps = std::nearbyint(std::ldexp(a, 3 - exponent));  // exact scaling; ties to even
  int code = static_cast<int>(steps) +
             (exponent + 6) * 8;  // a carry into the next exponent comes out right
  return static_cast<uint8_t>(sign | std::min(code, 0x7e));
}

// x / scale rounded to E4M3, as a float.
inline float fp8_round(float x, float scale) { return fp8_to_float(float_to_fp8(x / scale)); }

// Scale of an activation tile (recipe: amax clamped to 1e-4) and of a weight block (an all-zero
// block gets scale 1).
inline float fp8_activation_scale(float amax) { return std::max(amax, 1e-4f) / kFp8Max; }
inline float fp8_weight_scale(float amax) { return amax > 0 ? amax / kFp8Max : 1.0f; }

}  // namespace wels
