// How the encoders of quantised types choose scales. A block x with weights w (importance of each
// column, all 1 where nothing is known) becomes x ≈ d · level, or x ≈ a · code - b, with
// Σ w (x - y)² as small as a search finds: candidates of the scale around the one that maps the
// largest value to the last level; each rounds x to levels, and the least squares scale for these
// levels has a closed form (Σ w x q / Σ w q²; with an offset a 2 × 2 system). The candidate that
// leaves least is rounded and solved again until nothing changes much. Clipping the largest value
// is thus found where it pays.
//
// Levels are numbers, so that loops run over floats, four at a time, without tables where steps are
// even. Sums keep eight lanes: the same bits whatever the compiler makes of them.
//
// Source: the idea is Lloyd's (1957), alternating assignment and least squares.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace wels::quant {

// Four floats in a register (GCC and Clang; every 64-bit machine has such).
using F4 = float __attribute__((vector_size(16)));
inline F4 load(const float* p) {
  F4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline F4 all(float v) { return F4{v, v, v, v}; }
inline float sum_of(F4 a, F4 b) {
  F4 s = a + b;
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// Nearest whole number, ties to even, of |v| < 2^22.
template <class T>
T round_even(T v) {
  return (v + 0x1.8p23f) - 0x1.8p23f;
}
// v within [low, high], rounded.
inline F4 round_within(F4 v, float low, float high) {
  v = v < low ? all(low) : v;
  return round_even(v > high ? all(high) : v);
}

// Levels low, low + 1, ..., high. Candidates map the largest value to low (1 + from) up to
// low (1 + to), and to high likewise.
template <int kLow, int kHigh, int kTries>
struct EvenSteps {
  static constexpr float kLowest = kLow, kHighest = kHigh;
  static constexpr int kCandidates = kTries;
  // Fine levels gain nothing from clipping, coarse ones much.
  static constexpr float kFrom = -1.2f / -kLow, kTo = (kLow < -8 ? 1.2f : 2.4f) / -kLow;
  static F4 nearest(F4 v) { return round_within(v, kLowest, kHighest); }
  static uint8_t code(float level) { return static_cast<uint8_t>(static_cast<int>(level) - kLow); }
};

struct Sums {
  float xq, qq;  // Σ w x q, Σ w q²
};

template <class Levels, int n>
Sums sums(const float* x, const float* w, float inverse) {
  F4 xq[2] = {}, qq[2] = {};
  for (int i = 0; i < n; i += 4) {
    F4 v = load(x + i), q = Levels::nearest(v * inverse), wq = load(w + i) * q;
    xq[i / 4 % 2] += wq * v;
    qq[i / 4 % 2] += wq * q;
  }
  return {sum_of(xq[0], xq[1]), sum_of(qq[0], qq[1])};
}

inline float inverse_of(float d) {
  float i = 1 / d;
  return std::isfinite(i) ? i : 0;
}

// Σ w (x - d level)² with the nearest levels.
template <class Levels, int n>
float error(const float* x, const float* w, float d) {
  float inverse = inverse_of(d);
  F4 sum[2] = {};
  for (int i = 0; i < n; i += 4) {
    F4 v = load(x + i), e = v - d * Levels::nearest(v * inverse);
    sum[i / 4 % 2] += load(w + i) * e * e;
  }
  return sum_of(sum[0], sum[1]);
}

// The value of largest magnitude, with its sign.
template <int n>
float largest(const float* x) {
  float m = 0;
  for (int i = 0; i < n; ++i) m = std::fabs(x[i]) > std::fabs(m) ? x[i] : m;
  return m;
}

// The scale d of x ≈ d · level; 0 where all are 0.
template <class Levels, int n>
float fit_scale(const float* x, const float* w) {
  float m = largest<n>(x), best = m / Levels::kLowest, most = -1;
  if (m == 0) return 0;
  auto consider = [&](float d) {
    Sums s = sums<Levels, n>(x, w, inverse_of(d));
    if (!(s.qq > 0)) return false;
    float gain = s.xq * (s.xq / s.qq);  // Σ w x² less the error
    if (!(gain > most)) return false;
    most = gain;
    best = s.xq / s.qq;
    return true;
  };
  for (float end : {Levels::kLowest, Levels::kHighest}) {
    for (int i = 0; i < Levels::kCandidates; ++i) {
      float by = Levels::kFrom + (Levels::kTo - Levels::kFrom) * static_cast<float>(i) /
                                     static_cast<float>(Levels::kCandidates - 1);
      consider(m / (end * (1 + by)));
    }
  }
  for (int i = 0; i < 4 && consider(best); ++i) {
  }
  return best;
}

struct Affine {
  float scale = 0, offset = 0;  // x ≈ scale · code + offset
};

// Codes 0 to kTop.
template <int kTop>
struct Codes {
  static F4 nearest(F4 v) { return round_within(v, 0, kTop); }
};

// Σ w (x - scale code - offset)² with the nearest codes.
template <int kTop, int n>
float error(const float* x, const float* w, Affine a) {
  float inverse = inverse_of(a.scale);
  F4 sum[2] = {};
  for (int i = 0; i < n; i += 4) {
    F4 v = load(x + i) - a.offset, e = v - a.scale * Codes<kTop>::nearest(v * inverse);
    sum[i / 4 % 2] += load(w + i) * e * e;
  }
  return sum_of(sum[0], sum[1]);
}

struct AffineSums {
  float q, qq, xq;  // Σ w q, Σ w q², Σ w x q
};
template <int kTop, int n>
AffineSums affine_sums(const float* x, const float* w, Affine a) {
  float inverse = inverse_of(a.scale);
  F4 q1[2] = {}, qq[2] = {}, xq[2] = {};
  for (int i = 0; i < n; i += 4) {
    F4 v = load(x + i), q = Codes<kTop>::nearest((v - a.offset) * inverse), wq = load(w + i) * q;
    q1[i / 4 % 2] += wq;
    qq[i / 4 % 2] += wq * q;
    xq[i / 4 % 2] += wq * v;
  }
  return {sum_of(q1[0], q1[1]), sum_of(qq[0], qq[1]), sum_of(xq[0], xq[1])};
}

// Scale and offset of x ≈ scale · code + offset. never_above: offsets are at most 0 (K types store
// what is subtracted, without a sign). kTries candidates of the scale for each of three offsets.
template <int kTop, int n, int kTries>
Affine fit_affine(const float* x, const float* w, bool never_above) {
  float low = *std::min_element(x, x + n), high = *std::max_element(x, x + n);
  if (never_above) low = std::min(low, 0.0f);
  if (!(high > low)) return {0, low};
  float sum_w = 0, sum_x = 0;
  for (int i = 0; i < n; ++i) {
    sum_w += w[i];
    sum_x += w[i] * x[i];
  }
  constexpr float kSteps = kTop;
  Affine best{(high - low) / kSteps, low};
  float most = -1;
  auto consider = [&](Affine a) {
    AffineSums s = affine_sums<kTop, n>(x, w, a);
    float determinant = sum_w * s.qq - s.q * s.q;
    if (!(determinant > 0) || !(s.qq > 0)) return false;
    Affine solved{(sum_w * s.xq - sum_x * s.q) / determinant,
                  (s.qq * sum_x - s.q * s.xq) / determinant};
    if (never_above && solved.offset > 0) solved = {s.xq / s.qq, 0};
    float gain = solved.scale * s.xq + solved.offset * sum_x;  // Σ w x² less the error
    if (!(gain > most) || !(solved.scale > 0)) return false;
    most = gain;
    best = solved;
    return true;
  };
  for (float lift : {0.0f, 0.4f, 0.8f}) {
    float from = low + (high - low) * lift / (2 * kSteps);
    if (never_above) from = std::min(from, 0.0f);
    for (int i = 0; i < kTries; ++i) {
      float steps = kSteps - 0.9f + 2.4f * static_cast<float>(i) / static_cast<float>(kTries - 1);
      consider({(high - from) / steps, from});
    }
  }
  for (int i = 0; i < 4 && consider(best); ++i) {
  }
  return best;
}

}  // namespace wels::quant
