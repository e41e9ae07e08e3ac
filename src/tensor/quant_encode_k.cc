// Blocks of 256 values: groups of 16 or 32 whose scales are whole multiples of the block's
// (layouts: quant.h).
//
// The groups' own best scales set the block's d; then, in turns, every group tries the whole
// numbers around its own by the error that its values really get, and d (and dmin) are solved by
// least squares for all codes of the block. A turn that does not lower the error ends the search.
#include "tensor/quant_encode.h"

#include <cstring>

#include "tensor/quant_levels.h"

namespace wels::quant {
namespace {

constexpr int kTurns = 3;

// --- x ≈ d · scale · level ---

template <class Levels, int n>
struct Scaled {
  static constexpr int kGroups = 256 / n;
  float d = 0;
  int scale[kGroups] = {};

  float left(const float* x, const float* w, int j, int s) const {
    return error<Levels, n>(x + j * n, w + j * n, d * static_cast<float>(s));
  }
  // The best whole scales within one of the present ones; returns the block's error.
  float improve_scales(const float* x, const float* w, int lowest, int highest) {
    float total = 0;
    for (int j = 0; j < kGroups; ++j) {
      int best = scale[j];
      float least = left(x, w, j, best);
      for (int s : {scale[j] - 1, scale[j] + 1}) {
        if (s < lowest || s > highest) continue;
        float e = left(x, w, j, s);
        if (e < least) {
          least = e;
          best = s;
        }
      }
      scale[j] = best;
      total += least;
    }
    return total;
  }
  // d by least squares for the present codes.
  void solve(const float* x, const float* w) {
    double xq = 0, qq = 0;
    for (int j = 0; j < kGroups; ++j) {
      float s = static_cast<float>(scale[j]);
      Sums g = sums<Levels, n>(x + j * n, w + j * n, inverse_of(d * s));
      xq += static_cast<double>(s * g.xq);
      qq += static_cast<double>(s * s * g.qq);
    }
    if (qq > 0) d = as_half(static_cast<float>(xq / qq));
  }
};

// Clamped first: beyond an int there is no conversion.
int nearest(float v, int lowest, int highest) {
  return static_cast<int>(
      round_even(std::clamp(v, static_cast<float>(lowest), static_cast<float>(highest))));
}

// lowest, highest: of the whole scales; the largest scale of a group becomes `lowest`, which has
// one step more.
template <class Levels, int n>
Scaled<Levels, n> fit_scaled(const float* x, const float* w, int lowest, int highest) {
  using Block = Scaled<Levels, n>;
  auto search = [&](const float* wanted, float& least) {
    Block block, best;
    float m = largest<Block::kGroups>(wanted);
    block.d = block_scale(m, lowest);
    float inverse = inverse_of(block.d);
    for (int j = 0; j < Block::kGroups; ++j) {
      block.scale[j] = nearest(wanted[j] * inverse, lowest, highest);
    }
    for (int turn = 0; turn < kTurns; ++turn) {
      float e = block.improve_scales(x, w, lowest, highest);
      if (turn > 0 && !(e < least)) break;
      least = e;
      best = block;
      block.solve(x, w);
    }
    return best;
  };
  float fitted[Block::kGroups], plain[Block::kGroups], least, least_plain;
  for (int j = 0; j < Block::kGroups; ++j) {
    fitted[j] = fit_scale<Levels, n>(x + j * n, w + j * n);
    plain[j] = largest<n>(x + j * n) / Levels::kLowest;
  }
  Block best = search(fitted, least), other = search(plain, least_plain);
  return least <= least_plain ? best : other;
}

// --- x ≈ d · scale · code - dmin · min ---

template <int kTop, int n>
struct Offset {
  static constexpr int kGroups = 256 / n;
  float d = 0, dmin = 0;
  int scale[kGroups] = {}, min[kGroups] = {};

  Affine group(int s, int m) const {
    return {d * static_cast<float>(s), -dmin * static_cast<float>(m)};
  }
  float improve(const float* x, const float* w, int highest) {
    float total = 0;
    for (int j = 0; j < kGroups; ++j) {
      int s0 = scale[j], m0 = min[j];
      float least = error<kTop, n>(x + j * n, w + j * n, group(s0, m0));
      for (int s = std::max(s0 - 1, 0); s <= std::min(s0 + 1, highest); ++s) {
        for (int m = std::max(m0 - 1, 0); m <= std::min(m0 + 1, highest); ++m) {
          if (s == s0 && m == m0) continue;
          float e = error<kTop, n>(x + j * n, w + j * n, group(s, m));
          if (e < least) {
            least = e;
            scale[j] = s;
            min[j] = m;
          }
        }
      }
      total += least;
    }
    return total;
  }
  // d and dmin by least squares for the present codes, x = d (s q) - dmin m.
  void solve(const float* x, const float* w) {
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int j = 0; j < kGroups; ++j) {
      const float *xj = x + j * n, *wj = w + j * n;
      double s = scale[j], m = min[j], sum_w = 0, sum_x = 0;
      AffineSums g = affine_sums<kTop, n>(xj, wj, group(scale[j], min[j]));
      for (int i = 0; i < n; ++i) {
        sum_w += static_cast<double>(wj[i]);
        sum_x += static_cast<double>(wj[i] * xj[i]);
      }
      aa += s * s * static_cast<double>(g.qq);
      ab -= s * m * static_cast<double>(g.q);
      bb += m * m * sum_w;
      xa += s * static_cast<double>(g.xq);
      xb -= m * sum_x;
    }
    double determinant = aa * bb - ab * ab;
    if (determinant > 1e-9 * aa * bb) {
      double a = (xa * bb - xb * ab) / determinant, b = (xb * aa - xa * ab) / determinant;
      if (a > 0 && b >= 0) {
        d = as_half(static_cast<float>(a));
        dmin = as_half(static_cast<float>(b));
      }
    } else if (bb == 0 && aa > 0) {
      d = as_half(static_cast<float>(xa / aa));
    }
  }
};

// highest: of the whole scales and minima.
template <int kTop, int n, int kTries>
Offset<kTop, n> fit_offset(const float* x, const float* w, int highest) {
  using Block = Offset<kTop, n>;
  auto search = [&](const Affine* wanted, float& least) {
    Block block, best;
    float most_scale = 0, most_min = 0;
    for (int j = 0; j < Block::kGroups; ++j) {
      most_scale = std::max(most_scale, wanted[j].scale);
      most_min = std::max(most_min, -wanted[j].offset);
    }
    block.d = block_scale(most_scale, highest);
    block.dmin = block_scale(most_min, highest);
    float scales = inverse_of(block.d), mins = inverse_of(block.dmin);
    for (int j = 0; j < Block::kGroups; ++j) {
      block.scale[j] = nearest(wanted[j].scale * scales, 0, highest);
      block.min[j] = nearest(-wanted[j].offset * mins, 0, highest);
    }
    for (int turn = 0; turn < kTurns; ++turn) {
      float e = block.improve(x, w, highest);
      if (turn > 0 && !(e < least)) break;
      least = e;
      best = block;
      block.solve(x, w);
    }
    return best;
  };
  Affine fitted[Block::kGroups], plain[Block::kGroups];
  for (int j = 0; j < Block::kGroups; ++j) {
    const float* xj = x + j * n;
    fitted[j] = fit_affine<kTop, n, kTries>(xj, w + j * n, true);
    float low = std::min(0.0f, *std::min_element(xj, xj + n));
    plain[j] = {(std::max(low, *std::max_element(xj, xj + n)) - low) / kTop, low};
  }
  float least, least_plain;
  Block best = search(fitted, least), other = search(plain, least_plain);
  return least <= least_plain ? best : other;
}

// --- packing ---

// Bits 0 and 1 of each code: byte i of each half's 32 holds those of values i, i + 32, i + 64 and
// i + 96, lowest first.
void pack_pairs(const uint8_t* q, uint8_t* out) {
  std::memset(out, 0, 64);
  for (int i = 0; i < 256; ++i) {
    out[i / 128 * 32 + i % 32] |= static_cast<uint8_t>((q[i] & 3) << 2 * (i % 128 / 32));
  }
}

// The eight 6-bit (scale, min) pairs of Q4_K and Q5_K in 12 bytes.
void pack_scale_min(const int* scale, const int* min, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    int s = scale[j + 4], m = min[j + 4];
    out[j] = static_cast<uint8_t>(scale[j] | (s >> 4) << 6);
    out[j + 4] = static_cast<uint8_t>(min[j] | (m >> 4) << 6);
    out[j + 8] = static_cast<uint8_t>((s & 15) | (m & 15) << 4);
  }
}

template <int kTop, int kTries>
void encode_q45(const float* x, const float* w, uint8_t* out, uint8_t* fifth, uint8_t* qs) {
  Offset<kTop, 32> block = fit_offset<kTop, 32, kTries>(x, w, 63);
  store_half(out, block.d);
  store_half(out + 2, block.dmin);
  pack_scale_min(block.scale, block.min, out + 4);
  if (fifth) std::memset(fifth, 0, 32);
  for (int j = 0; j < 8; ++j) {
    uint8_t q[32];
    assign<kTop, 32>(x + j * 32, block.group(block.scale[j], block.min[j]), q);
    for (int l = 0; l < 32; ++l) {
      uint8_t& byte = qs[j / 2 * 32 + l];
      byte = static_cast<uint8_t>(j % 2 == 0 ? q[l] & 15 : byte | (q[l] & 15) << 4);
      if (fifth) fifth[l] |= static_cast<uint8_t>((q[l] >> 4 & 1) << j);
    }
  }
}

}  // namespace

void q2_k_encode(const float* x, const float* w, uint8_t* out) {
  Offset<3, 16> block = fit_offset<3, 16, 12>(x, w, 15);
  uint8_t q[256];
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<uint8_t>(block.scale[j] | block.min[j] << 4);
    assign<3, 16>(x + j * 16, block.group(block.scale[j], block.min[j]), q + j * 16);
  }
  pack_pairs(q, out + 16);
  store_half(out + 80, block.d);
  store_half(out + 82, block.dmin);
}

void q3_k_encode(const float* x, const float* w, uint8_t* out) {
  Scaled<Q3KLevels, 16> block = fit_scaled<Q3KLevels, 16>(x, w, -32, 31);
  uint8_t *high = out, *packed = out + 96, q[256];
  std::memset(high, 0, 32);
  std::memset(packed, 0, 12);
  for (int j = 0; j < 16; ++j) {
    int s = block.scale[j] + 32;
    packed[j % 8] |= static_cast<uint8_t>((s & 15) << (j < 8 ? 0 : 4));
    packed[8 + j % 4] |= static_cast<uint8_t>((s >> 4) << 2 * (j / 4));
    assign<Q3KLevels, 16>(x + j * 16, block.d * static_cast<float>(block.scale[j]), q + j * 16);
  }
  pack_pairs(q, out + 32);
  for (int i = 0; i < 256; ++i)
    high[i % 32] |= static_cast<uint8_t>((q[i] >> 2) << (i / 128 * 4 + i % 128 / 32));
  store_half(out + 108, block.d);
}

void q4_k_encode(const float* x, const float* w, uint8_t* out) {
  encode_q45<15, 8>(x, w, out, nullptr, out + 16);
}
void q5_k_encode(const float* x, const float* w, uint8_t* out) {
  encode_q45<31, 8>(x, w, out, out + 16, out + 48);
}

void q6_k_encode(const float* x, const float* w, uint8_t* out) {
  Scaled<Q6KLevels, 16> block = fit_scaled<Q6KLevels, 16>(x, w, -128, 127);
  uint8_t *low = out, *high = out + 128, q[256];
  for (int j = 0; j < 16; ++j) {
    out[192 + j] = static_cast<uint8_t>(block.scale[j]);
    assign<Q6KLevels, 16>(x + j * 16, block.d * static_cast<float>(block.scale[j]), q + j * 16);
  }
  std::memset(out, 0, 192);
  for (int i = 0; i < 256; ++i) {
    int half = i / 128, plane = i % 128 / 32, l = i % 32;
    low[half * 64 + plane % 2 * 32 + l] |= static_cast<uint8_t>((q[i] & 15) << (plane < 2 ? 0 : 4));
    high[half * 32 + l] |= static_cast<uint8_t>((q[i] >> 4) << 2 * plane);
  }
  store_half(out + 208, block.d);
}

void iq4_xs_encode(const float* x, const float* w, uint8_t* out) {
  Scaled<UnevenLevels, 32> block = fit_scaled<UnevenLevels, 32>(x, w, -32, 31);
  uint32_t high = 0;
  std::memset(out + 4, 0, 4);
  for (int j = 0; j < 8; ++j) {
    int s = block.scale[j] + 32;
    out[4 + j / 2] |= static_cast<uint8_t>((s & 15) << 4 * (j % 2));
    high |= static_cast<uint32_t>(s >> 4) << 2 * j;
    uint8_t q[32];
    assign<UnevenLevels, 32>(x + j * 32, block.d * static_cast<float>(block.scale[j]), q);
    for (int l = 0; l < 16; ++l) out[8 + j * 16 + l] = static_cast<uint8_t>(q[l] | q[l + 16] << 4);
  }
  store_half(out, block.d);
  store_u16(out + 2, static_cast<uint16_t>(high));
}

}  // namespace wels::quant
