// The levels of each type and the last step of an encoder: scales as the file holds them (half
// precision), codes nearest to x under these.
#pragma once
#include "tensor/quant_bytes.h"
#include "tensor/quant_fit.h"

namespace wels::quant {

using Q8Levels = EvenSteps<-127, 127, 4>;
using Q4Levels = EvenSteps<-8, 7, 10>;
using Q5Levels = EvenSteps<-16, 15, 8>;
using Q3KLevels = EvenSteps<-4, 3, 12>;
using Q6KLevels = EvenSteps<-32, 31, 6>;

// kUnevenSteps, found by way of a table over half steps.
struct UnevenLevels {
  static constexpr float kLowest = -127, kHighest = 113, kFrom = -0.18f, kTo = 0.3f;
  static constexpr int kCandidates = 10;
  static F4 nearest(F4 v) {
    static const std::array<int8_t, 513> table = make_table();
    F4 twice = round_within(2 * v, -256, 256);
    for (int l = 0; l < 4; ++l) twice[l] = table[static_cast<size_t>(twice[l] + 256)];
    return twice;
  }
  static uint8_t code(float level) {
    return static_cast<uint8_t>(std::lower_bound(kUnevenSteps, kUnevenSteps + 16, level) -
                                kUnevenSteps);
  }

 private:
  static std::array<int8_t, 513> make_table() {
    std::array<int8_t, 513> t;
    for (int i = 0; i <= 512; ++i) {
      int best = 0;
      for (int c = 1; c < 16; ++c) {
        if (std::abs(2 * kUnevenSteps[c] - (i - 256)) <
            std::abs(2 * kUnevenSteps[best] - (i - 256)))
          best = c;
      }
      t[static_cast<size_t>(i)] = kUnevenSteps[best];
    }
    return t;
  }
};

// What becomes of a scale in the file. Larger ones than half precision has are cut, not infinite.
inline float as_half(float d) {
  return half_to_float(float_to_half(std::clamp(d, -65504.0f, 65504.0f)));
}

// The same for a scale that is multiplied by whole numbers up to highest: values so small that
// their d would be 0 take smaller numbers instead.
inline float block_scale(float largest, int highest) {
  float d = as_half(largest / static_cast<float>(highest));
  return d == 0 && largest != 0 ? std::copysign(0x1p-24f, largest / static_cast<float>(highest))
                                : d;
}

// Codes of n values.
template <class Levels, int n>
void assign(const float* x, float d, uint8_t* q) {
  float inverse = inverse_of(d);
  for (int i = 0; i < n; i += 4) {
    F4 level = Levels::nearest(load(x + i) * inverse);
    for (int l = 0; l < 4; ++l) q[i + l] = Levels::code(level[l]);
  }
}
template <int kTop, int n>
void assign(const float* x, Affine a, uint8_t* q) {
  float inverse = inverse_of(a.scale);
  for (int i = 0; i < n; i += 4) {
    F4 code = Codes<kTop>::nearest((load(x + i) - a.offset) * inverse);
    for (int l = 0; l < 4; ++l) q[i + l] = static_cast<uint8_t>(code[l]);
  }
}

}  // namespace wels::quant
