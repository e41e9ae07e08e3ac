// Blocks of 32 values with one scale, or one scale and an offset (layouts: quant.h).
#include "tensor/quant_encode.h"

#include <cstring>

#include "tensor/quant_levels.h"

namespace wels::quant {
namespace {

void pack_nibbles(const uint8_t* q, uint8_t* out) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
}
void pack_fifth(const uint8_t* q, uint8_t* out) {
  uint32_t fifth = 0;
  for (int i = 0; i < 32; ++i) fifth |= static_cast<uint32_t>(q[i] >> 4 & 1) << i;
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(fifth >> 8 * i);
}

// Stores the scale and gives the codes. Plain: the largest value at the lowest level.
template <class Levels>
void encode_scaled(const float* x, const float* w, uint8_t* scale, uint8_t* q) {
  float d = as_half(fit_scale<Levels, 32>(x, w));
  float plain = as_half(largest<32>(x) / Levels::kLowest);
  if (!(error<Levels, 32>(x, w, d) <= error<Levels, 32>(x, w, plain))) d = plain;
  store_half(scale, d);
  assign<Levels, 32>(x, d, q);
}

// Plain: smallest value at code 0, largest at the top.
template <int kTop>
void encode_affine(const float* x, const float* w, uint8_t* header, uint8_t* q) {
  auto rounded = [](Affine a) { return Affine{as_half(a.scale), as_half(a.offset)}; };
  auto [low, high] = std::minmax_element(x, x + 32);
  Affine fit = rounded(fit_affine<kTop, 32, 8>(x, w, false));
  Affine plain = rounded({(*high - *low) / kTop, *low});
  if (!(error<kTop, 32>(x, w, fit) <= error<kTop, 32>(x, w, plain))) fit = plain;
  store_half(header, fit.scale);
  store_half(header + 2, fit.offset);
  assign<kTop, 32>(x, fit, q);
}

// E2M1's values, doubled.
struct Fp4Levels {
  static F4 nearest(F4 v) {
    F4 a = v < 0 ? -v : v;
    // Comparisons give 0 or -1.
    auto above = (a > 0.5f) + (a > 1.5f) + (a > 2.5f) + (a > 3.5f) + 2 * ((a > 5.0f) + (a > 7.0f)) +
                 4 * (a > 10.0f);
    F4 q = __builtin_convertvector(-above, F4);
    return v < 0 ? -q : q;
  }
  static uint8_t code(float level) {
    auto at = std::find(kTwiceE2M1, kTwiceE2M1 + 8, std::fabs(level));
    return static_cast<uint8_t>((at - kTwiceE2M1) | (level < 0 ? 8 : 0));
  }
};

}  // namespace

void q8_0_encode(const float* x, const float* w, uint8_t* out) {
  uint8_t q[32];
  encode_scaled<Q8Levels>(x, w, out, q);
  for (int i = 0; i < 32; ++i) out[2 + i] = static_cast<uint8_t>(q[i] - 127);
}
void q4_0_encode(const float* x, const float* w, uint8_t* out) {
  uint8_t q[32];
  encode_scaled<Q4Levels>(x, w, out, q);
  pack_nibbles(q, out + 2);
}
void q5_0_encode(const float* x, const float* w, uint8_t* out) {
  uint8_t q[32];
  encode_scaled<Q5Levels>(x, w, out, q);
  pack_fifth(q, out + 2);
  pack_nibbles(q, out + 6);
}
void q4_1_encode(const float* x, const float* w, uint8_t* out) {
  uint8_t q[32];
  encode_affine<15>(x, w, out, q);
  pack_nibbles(q, out + 4);
}
void q5_1_encode(const float* x, const float* w, uint8_t* out) {
  uint8_t q[32];
  encode_affine<31>(x, w, out, q);
  pack_fifth(q, out + 4);
  pack_nibbles(q, out + 8);
}
void iq4_nl_encode(const float* x, const float* w, uint8_t* out) {
  uint8_t q[32];
  encode_scaled<UnevenLevels>(x, w, out, q);
  pack_nibbles(q, out + 2);
}

// Scales are powers of two. Plain: the one that puts the largest value at 4 or above (OCP
// Microscaling 1.0, 6.3), which clips what is beyond 6; its neighbours are tried too.
void mxfp4_encode(const float* x, const float* w, uint8_t* out) {
  float m = std::fabs(largest<32>(x)), least = 0;
  int exponent = m > 0 ? std::ilogb(m) - 2 + 127 : 0, best = 0;
  for (int e = std::max(exponent - 1, 0); e <= std::clamp(exponent + 1, 0, 254); ++e) {
    float left = error<Fp4Levels, 32>(x, w, std::ldexp(1.0f, e - 128));
    if (e == std::max(exponent - 1, 0) || left < least) {
      least = left;
      best = e;
    }
  }
  uint8_t q[32];
  out[0] = static_cast<uint8_t>(best);
  assign<Fp4Levels, 32>(x, std::ldexp(1.0f, best - 128), q);
  pack_nibbles(q, out + 1);
}

}  // namespace wels::quant
