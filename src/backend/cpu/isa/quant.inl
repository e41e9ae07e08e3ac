// Products of rows rounded to int8 with quantised weights (quant_kernels.h), once for every
// instruction set: IVec is a register of 32-bit lanes, lane = output row. Eight steps of a tile's
// codes are taken from their packed width, multiplied with broadcast groups of four of x, and the
// whole sum of 32 (or 16) columns goes through one conversion and fused multiply-adds in the order
// that device.h fixes. All that differs between instruction sets is exact.
namespace quant {

#define WELS_INLINE inline __attribute__((always_inline))
constexpr int kHalves = kQuantLanes / kLanes;  // registers of a panel

#ifdef __AVX512F__
using IVec = __m512i;
typedef uint16_t Words __attribute__((vector_size(64)));
WELS_INLINE IVec load_bytes(const void* p) { return _mm512_loadu_si512(p); }
WELS_INLINE void store_bytes(void* p, IVec v) { _mm512_storeu_si512(p, v); }
WELS_INLINE IVec set_bytes(int x) { return _mm512_set1_epi8((char)x); }
WELS_INLINE IVec set_ints(int x) { return _mm512_set1_epi32(x); }
WELS_INLINE Vec to_float(IVec v) { return _mm512_cvtepi32_ps(v); }
// a | (b & mask)
WELS_INLINE IVec or_masked(IVec a, IVec b, IVec mask) {
  return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}
WELS_INLINE IVec look_up(IVec table, IVec index) { return _mm512_shuffle_epi8(table, index); }
WELS_INLINE IVec table_of(const uint8_t* t) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)t));
}
WELS_INLINE Vec halves_at(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
WELS_INLINE IVec bytes_at(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
}
WELS_INLINE IVec signed_bytes_at(const uint8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
}
WELS_INLINE IVec add_ints(IVec a, IVec b) { return _mm512_add_epi32(a, b); }
WELS_INLINE IVec add_words(IVec a, IVec b) { return _mm512_add_epi16(a, b); }
WELS_INLINE IVec pairs_of_bytes(IVec u, IVec s) { return _mm512_maddubs_epi16(u, s); }
WELS_INLINE IVec pairs_of_words(IVec a) { return _mm512_madd_epi16(a, _mm512_set1_epi16(1)); }
WELS_INLINE IVec magnitude(IVec a) { return _mm512_abs_epi8(a); }
WELS_INLINE IVec with_sign_of(IVec a, IVec sign) {
  return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(sign), _mm512_setzero_si512(), a);
}
WELS_INLINE IVec max_bits(IVec a, IVec b) { return _mm512_max_epi32(a, b); }
WELS_INLINE int largest(IVec a) { return _mm512_reduce_max_epi32(a); }
WELS_INLINE int total(IVec a) { return _mm512_reduce_add_epi32(a); }
WELS_INLINE IVec round_to_int(Vec a) { return _mm512_cvtps_epi32(a); }
WELS_INLINE void store_int8(int8_t* p, IVec v) {
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(v));
}
WELS_INLINE IVec shift_left(IVec a, int n) { return _mm512_sllv_epi32(a, _mm512_set1_epi32(n)); }
#else
using IVec = __m256i;
typedef uint16_t Words __attribute__((vector_size(32)));
WELS_INLINE IVec load_bytes(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
WELS_INLINE void store_bytes(void* p, IVec v) { _mm256_storeu_si256((__m256i*)p, v); }
WELS_INLINE IVec set_bytes(int x) { return _mm256_set1_epi8((char)x); }
WELS_INLINE IVec set_ints(int x) { return _mm256_set1_epi32(x); }
WELS_INLINE Vec to_float(IVec v) { return _mm256_cvtepi32_ps(v); }
WELS_INLINE IVec or_masked(IVec a, IVec b, IVec mask) { return a | (b & mask); }
WELS_INLINE IVec look_up(IVec table, IVec index) { return _mm256_shuffle_epi8(table, index); }
WELS_INLINE IVec table_of(const uint8_t* t) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)t));
}
WELS_INLINE Vec halves_at(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
WELS_INLINE IVec bytes_at(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
WELS_INLINE IVec signed_bytes_at(const uint8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
WELS_INLINE IVec add_ints(IVec a, IVec b) { return _mm256_add_epi32(a, b); }
WELS_INLINE IVec add_words(IVec a, IVec b) { return _mm256_add_epi16(a, b); }
WELS_INLINE IVec pairs_of_bytes(IVec u, IVec s) { return _mm256_maddubs_epi16(u, s); }
WELS_INLINE IVec pairs_of_words(IVec a) { return _mm256_madd_epi16(a, _mm256_set1_epi16(1)); }
WELS_INLINE IVec magnitude(IVec a) { return _mm256_abs_epi8(a); }
WELS_INLINE IVec with_sign_of(IVec a, IVec sign) { return _mm256_sign_epi8(a, sign); }
WELS_INLINE IVec max_bits(IVec a, IVec b) { return _mm256_max_epi32(a, b); }
WELS_INLINE int largest(IVec a) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
WELS_INLINE int total(IVec a) {
  __m128i m = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
WELS_INLINE IVec round_to_int(Vec a) { return _mm256_cvtps_epi32(a); }
WELS_INLINE void store_int8(int8_t* p, IVec v) {
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(words, words));
}
WELS_INLINE IVec shift_left(IVec a, int n) { return _mm256_slli_epi32(a, n); }
#endif
WELS_INLINE IVec right(IVec a, int n) { return (IVec)((Words)a >> (uint16_t)n); }
WELS_INLINE IVec left(IVec a, int n) { return (IVec)((Words)a << (uint16_t)n); }
// A shift by n to the left, or by -n to the right.
WELS_INLINE IVec moved(IVec a, int n) { return n >= 0 ? left(a, n) : right(a, -n); }
WELS_INLINE IVec masked(IVec a, int mask) { return a & set_bytes(mask); }
WELS_INLINE float as_float(int bits) { return __builtin_bit_cast(float, bits); }

// --- codes of a tile, lanes from `p` on ---

WELS_INLINE void take_nibbles(const uint8_t* p, IVec* c) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    IVec v = load_bytes(p + 64 * j);
    c[j] = masked(v, 15);
    c[j + 4] = masked(right(v, 4), 15);
  }
}
// The two bits of each code go to bit `to`.
WELS_INLINE void add_pairs(const uint8_t* p, IVec* c, int to) {
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    IVec v = moved(load_bytes(p + s / 4 * 64), to - s % 4 * 2);
    c[s] = or_masked(c[s], v, set_bytes(3 << to));
  }
}
WELS_INLINE void add_bits(const uint8_t* p, IVec* c, int to) {
  IVec v = load_bytes(p);
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s)
    c[s] = or_masked(c[s], moved(v, to - plane_bit(s)), set_bytes(1 << to));
}
WELS_INLINE void translate(const uint8_t* table, IVec* c) {
  IVec t = table_of(table);
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) c[s] = look_up(t, c[s]);
}

// Uneven steps + 128 and doubled E2M1 + 12, as tensor/quant_codes.cc has them.
alignas(16) constexpr uint8_t kUnevenCodes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                  129, 141, 153, 166, 181, 197, 217, 241};
alignas(16) constexpr uint8_t kE2M1Codes[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                12, 11, 10, 9,  8,  6,  4,  0};

// --- types ---
// kSums16: how many pairs of products fit in 16 bits (maddubs; 0: not even one does).
// codes(p, c): p is the tile at the first lane. scales(p, t, lane, s, m): p is the group's scales.

template <int kType, int kSums>
struct Type {
  static constexpr QuantPanel kPanel = kQuantPanels[kType];
  static constexpr int kGroups = 32 / kPanel.group, kSums16 = kSums, kCodes = kPanel.codes;
  static constexpr bool kMin = kPanel.has_min;
  static WELS_INLINE const uint8_t* row(const uint8_t* scales, int64_t t) {
    return scales + t / kPanel.tiles * kPanel.scales;
  }
};
template <int kType, int kSums>
struct OneLevel : Type<kType, kSums> {  // a half per tile, or two
  using Base = Type<kType, kSums>;
  static WELS_INLINE void scales(const uint8_t* p, int64_t t, int lane, Vec* s, Vec* m) {
    const uint8_t* d = Base::row(p, t) + 2 * lane;
    s[0] = halves_at(d);
    if (Base::kMin) m[0] = halves_at(d + 32);
  }
};
// Signed scales under one half per 8 tiles.
template <int kType, int kSums>
struct TwoLevel : Type<kType, kSums> {
  using Base = Type<kType, kSums>;
  static WELS_INLINE void scales(const uint8_t* p, int64_t t, int lane, Vec* s, Vec*) {
    const uint8_t* block = Base::row(p, t);
    Vec d = halves_at(block + 2 * lane);
    const uint8_t* q = block + 32 + t % 8 * Base::kGroups * 16 + lane;
    for (int j = 0; j < Base::kGroups; ++j) s[j] = mul(d, to_float(signed_bytes_at(q + 16 * j)));
  }
};
struct Q4_0 : OneLevel<0, 8> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { take_nibbles(p, c); }
};
struct Q4_1 : OneLevel<1, 8> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { take_nibbles(p, c); }
};
struct Q5_0 : OneLevel<2, 4> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) {
    take_nibbles(p, c);
    add_bits(p + 256, c, 4);
  }
};
struct Q5_1 : OneLevel<3, 4> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { Q5_0::codes(p, c); }
};
struct Q8_0 : OneLevel<4, 0> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) {
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) c[s] = load_bytes(p + 64 * s);
  }
};
WELS_INLINE void take_pairs(const uint8_t* p, IVec* c) {
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) c[s] = masked(right(load_bytes(p + s / 4 * 64), s % 4 * 2), 3);
}
struct Q2_K : Type<5, 4> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { take_pairs(p, c); }
  static WELS_INLINE void scales(const uint8_t* p, int64_t t, int lane, Vec* s, Vec* m) {
    const uint8_t* block = row(p, t);
    Vec d = halves_at(block + 2 * lane), least = sub(zero(), halves_at(block + 32 + 2 * lane));
    for (int j = 0; j < 2; ++j) {
      IVec both = bytes_at(block + 64 + t % 8 * 32 + 16 * j + lane);
      s[j] = mul(d, to_float(both & set_ints(15)));
      m[j] = mul(least, to_float(right(both, 4)));
    }
  }
};
struct Q3_K : TwoLevel<6, 4> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) {
    take_pairs(p, c);
    add_bits(p + 128, c, 2);
  }
};
template <int kType, int kSums>
struct ScaleAndMin : Type<kType, kSums> {
  using Base = Type<kType, kSums>;
  static WELS_INLINE void scales(const uint8_t* p, int64_t t, int lane, Vec* s, Vec* m) {
    const uint8_t *block = Base::row(p, t), *q = block + 64 + t % 8 * 32 + lane;
    s[0] = mul(halves_at(block + 2 * lane), to_float(bytes_at(q)));
    m[0] = mul(sub(zero(), halves_at(block + 32 + 2 * lane)), to_float(bytes_at(q + 16)));
  }
};
struct Q4_K : ScaleAndMin<7, 8> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { take_nibbles(p, c); }
};
struct Q5_K : ScaleAndMin<8, 4> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { Q5_0::codes(p, c); }
};
struct Q6_K : TwoLevel<9, 2> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) {
    take_nibbles(p, c);
    add_pairs(p + 256, c, 4);
  }
};
struct IQ4_NL : OneLevel<10, 0> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) {
    take_nibbles(p, c);
    translate(kUnevenCodes, c);
  }
};
struct IQ4_XS : TwoLevel<11, 0> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { IQ4_NL::codes(p, c); }
};
struct MXFP4 : Type<12, 4> {
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) {
    take_nibbles(p, c);
    translate(kE2M1Codes, c);
  }
  // 2^(e - 128) by its bits; e = 0 and 1 are subnormal.
  static WELS_INLINE void scales(const uint8_t* p, int64_t t, int lane, Vec* s, Vec*) {
    IVec e = bytes_at(row(p, t) + lane);
    IVec normal = shift_left(add_ints(e, set_ints(-1)), 23);
    IVec low = add_ints(shift_left(e, 21), set_ints(0x200000));
#ifdef __AVX512F__
    s[0] = (Vec)_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, set_ints(2)), low);
#else
    s[0] = (Vec)_mm256_blendv_epi8(normal, low, _mm256_cmpgt_epi32(set_ints(2), e));
#endif
  }
};

// A group of kSide panels after unpack(): whole codes, scales (and minima) in f32. 6 KB a side stay
// in L1 with the rows that pass over them.
#ifdef __AVX512VNNI__
constexpr int kSide = 2;  // one broadcast of x for two products
#else
constexpr int kSide = 1;
#endif
struct Part {
  alignas(64) uint8_t codes[kQuantGroup][8][kSide][64];
  alignas(64) float scales[kQuantGroup][4][kSide][kQuantLanes];
};

// Whole codes are read where they are.
#ifdef __AVX512VNNI__
template <class T>
constexpr bool kInPlace = T::kCodes == 512;
#else
template <class T>
constexpr bool kInPlace = false;
#endif

// Scales of a group's tiles, out [tiles][4][ld]: two of scales, two of minima.
template <class T>
WELS_INLINE void decode_scales(const uint8_t* scales, int64_t tiles, int lane, float* out, int ld) {
  for (int64_t t = 0; t < tiles; ++t, out += 4 * ld) {
    Vec s[2], m[2];
    T::scales(scales, t, lane, s, m);
#pragma GCC unroll 2
    for (int j = 0; j < T::kGroups; ++j) {
      store(out + j * ld, s[j]);
      if (T::kMin) store(out + (2 + j) * ld, m[j]);
    }
  }
}

// The tiles of a group of one panel, to its side of a part.
template <class T>
__attribute__((noinline)) void unpack(const uint8_t* scales, int64_t tiles, int side, Part& out) {
  const uint8_t* codes = scales + quant_scale_bytes(T::kPanel, tiles);
  for (int lane = 0; lane < kQuantLanes; lane += kLanes) {
    decode_scales<T>(scales, tiles, lane, out.scales[0][0][side] + lane, kSide * kQuantLanes);
    for (int64_t t = 0; !kInPlace<T> && t < tiles; ++t) {
      IVec c[8];
      T::codes(codes + t * T::kCodes + 4 * lane, c);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) store_bytes(out.codes[t][i][side] + 4 * lane, c[i]);
    }
  }
}

// --- products ---

#ifndef __AVX512VNNI__
// A tile of a part as a type whose codes are whole.
template <class T>
struct Unpacked {
  static constexpr int kGroups = T::kGroups, kSums16 = T::kSums16;
  static constexpr bool kMin = T::kMin;
  static constexpr int kCodes = 512;
  static WELS_INLINE void codes(const uint8_t* p, IVec* c) { Q8_0::codes(p, c); }
};
#endif

#ifndef __AVX512VNNI__
// start + sum of code · q over `kSteps` steps of four columns.
template <int kSums16, int kSteps>
WELS_INLINE IVec dot(const IVec* c, const int8_t* q, IVec start) {
  if (kSums16 == 0) {  // |code - 128| · (± q): a pair is at most 2 · 128 · 127
    IVec sum = set_ints(0);
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s) {
      IVec w = c[s] ^ set_bytes(0x80);
      IVec x = with_sign_of(set_ints(*(const int32_t*)(q + 4 * s)), w);
      sum = add_ints(sum, pairs_of_words(pairs_of_bytes(magnitude(w), x)));
    }
    return sum;  // 128 is the types' offset: start is in it
  }
  constexpr int kRun = kSums16 == 0 || kSums16 > kSteps ? kSteps : kSums16;
#pragma GCC unroll 8
  for (int s = 0; s < kSteps; s += kRun) {
    IVec words = pairs_of_bytes(c[s], set_ints(*(const int32_t*)(q + 4 * s)));
#pragma GCC unroll 8
    for (int i = s + 1; i < s + kRun; ++i)
      words = add_words(words, pairs_of_bytes(c[i], set_ints(*(const int32_t*)(q + 4 * i))));
    start = add_ints(start, pairs_of_words(words));
  }
  return start;
}
#endif

// The whole sums of group j for R rows. With VNNI step by step, so that their chains overlap.
template <class T, int kSteps, int R>
WELS_INLINE void dots(const IVec* c, const QuantRecord* const* q, int j, IVec* whole) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) whole[r] = set_ints(T::kMin ? 0 : q[r]->start[j]);
#ifdef __AVX512VNNI__
#pragma GCC unroll 8
  for (int s = 0; s < kSteps; ++s) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const int8_t* x = q[r]->q + j * 16 + 4 * s;
      whole[r] = _mm512_dpbusd_epi32(whole[r], c[s], set_ints(*(const int32_t*)x));
    }
  }
#else
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) whole[r] = dot<T::kSums16, kSteps>(c, q[r]->q + j * 16, whole[r]);
#endif
}

// acc[r] goes on over the tiles of a group, of R rows `stride` bytes apart; scales as decode_scales
// leaves them. kShare bytes from `ahead` on are asked for with each tile, to L2.
template <class T, int R, int kShare = 0>
WELS_INLINE void sum_tiles(const uint8_t* codes, const float* scales, int lane, int64_t tiles,
                           const QuantRecord* x, int64_t stride, Vec* acc,
                           const uint8_t* ahead = nullptr) {
  constexpr int kSteps = 8 / T::kGroups;
  for (int64_t t = 0; t < tiles; ++t, ++x, scales += 4 * kQuantLanes) {
    IVec c[8];
    Vec s[2], m[2];
#pragma GCC unroll 10
    for (int b = 0; b < kShare; b += 64) __builtin_prefetch(ahead + t * kShare + b, 0, 2);
    T::codes(codes + t * T::kCodes + 4 * lane, c);
#pragma GCC unroll 2
    for (int j = 0; j < T::kGroups; ++j) {
      s[j] = load(scales + j * kQuantLanes);
      if (T::kMin) m[j] = load(scales + (2 + j) * kQuantLanes);
    }
    constexpr int kBeside = R < 4 ? R : 4;  // rows whose integer sums run side by side
#pragma GCC unroll 2
    for (int r0 = 0; r0 < R; r0 += kBeside) {
      const QuantRecord* q[kBeside];
      Vec sum[kBeside];
#pragma GCC unroll 4
      for (int r = 0; r < kBeside; ++r)
        q[r] = (const QuantRecord*)((const uint8_t*)x + (r0 + r) * stride);
#pragma GCC unroll 2
      for (int j = 0; j < T::kGroups; ++j) {
        IVec whole[kBeside];
        dots<T, kSteps, kBeside>(c + j * kSteps, q, j, whole);
#pragma GCC unroll 4
        for (int r = 0; r < kBeside; ++r)
          sum[r] = j == 0 ? mul(s[0], to_float(whole[r])) : fma(s[j], to_float(whole[r]), sum[r]);
      }
#pragma GCC unroll 4
      for (int r = 0; r < kBeside; ++r) {
        if (T::kMin) {
#pragma GCC unroll 2
          for (int j = 0; j < T::kGroups; ++j) sum[r] = fma(m[j], set1(q[r]->sum[j]), sum[r]);
        }
        acc[r0 + r] = fma(sum[r], set1(q[r]->scale), acc[r0 + r]);
      }
    }
  }
}

WELS_INLINE void put(const QuantBlock& g, int64_t i, int64_t j, Vec sum) {
  int n = g.n - j < kLanes ? (int)(g.n - j) : kLanes;
  if (n <= 0) return;
  if (g.bias) sum = add(sum, n == kLanes ? load(g.bias + j) : load_part(g.bias + j, n));
  if (g.c_bf16) {
    uint16_t* p = (uint16_t*)g.c + i * g.c_stride + j;
    n == kLanes ? store_bf16(p, sum) : store_part_bf16(p, sum, n);
  } else {
    float* p = (float*)g.c + i * g.c_stride + j;
    n == kLanes ? store(p, sum) : store_part(p, sum, n);
  }
}

// A panel is read strictly from front to back, the scales of a group before its codes. For one row
// and two nothing is asked for, as the hardware's own reading ahead does better; the first four
// rows take so long that the next group is asked for (docs/log.md, 2026-11-30).
template <class T, int R>
void few_rows(const QuantBlock& g, const uint8_t* panel, int64_t j, int64_t i0) {
  constexpr int64_t kGroup = quant_group_bytes(T::kPanel);
  constexpr int kShare = R == 4 ? ((int)kGroup / 64 + kQuantGroup - 1) / kQuantGroup * 64 : 0;
  for (int lane = 0; lane < kQuantLanes; lane += kLanes) {
    const QuantRecord* x = (const QuantRecord*)((const uint8_t*)g.x + i0 * g.x_stride);
    const uint8_t* group = panel;
    Vec acc[R];
    for (int r = 0; r < R; ++r) acc[r] = zero();
    for (int64_t t = 0; t < g.k / 32; t += kQuantGroup, group += kGroup, x += kQuantGroup) {
      int64_t tiles = quant_group_tiles(g.k, t);
      const uint8_t* codes = group + quant_scale_bytes(T::kPanel, tiles);
      alignas(64) float scales[kQuantGroup][4][kQuantLanes];
      decode_scales<T>(group, tiles, lane, scales[0][0], kQuantLanes);
      if (kShare > 0 && i0 == 0) {
        sum_tiles<T, R, kShare>(codes, scales[0][0], lane, tiles, x, g.x_stride, acc,
                                group + kGroup);
      } else {
        sum_tiles<T, R>(codes, scales[0][0], lane, tiles, x, g.x_stride, acc);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) put(g, i0 + r, j + lane, acc[r]);
  }
}

// acc[r][v] goes on over the tiles of a part, of R rows and V panels.
#ifdef __AVX512VNNI__
template <class T, int R, int V>
WELS_INLINE void sum_part(const QuantBlock& g, const Part& part, const uint8_t* group, int,
                          int64_t tiles, const QuantRecord* x, Vec (*acc)[V]) {
  constexpr int kSteps = 8 / T::kGroups;
  constexpr int64_t kStep = kInPlace<T> ? 64 : kSide * 64;
  const int64_t stride = g.x_stride, side = kInPlace<T> ? g.w_panel : 64;
  const uint8_t* codes =
      kInPlace<T> ? group + quant_scale_bytes(T::kPanel, tiles) : part.codes[0][0][0];
  for (int64_t t = 0; t < tiles; ++t, ++x) {
    const QuantRecord* q[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) q[r] = (const QuantRecord*)((const uint8_t*)x + r * stride);
    Vec sum[R][V];
#pragma GCC unroll 2
    for (int j = 0; j < T::kGroups; ++j) {
      IVec whole[R][V];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) whole[r][v] = set_ints(T::kMin ? 0 : q[r]->start[j]);
      }
#pragma GCC unroll 8
      for (int s = 0; s < kSteps; ++s) {
        IVec c[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v)
          c[v] = load_bytes(codes + (t * 8 + j * kSteps + s) * kStep + v * side);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          IVec xs = set_ints(*(const int32_t*)(q[r]->q + j * 16 + 4 * s));
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) whole[r][v] = _mm512_dpbusd_epi32(whole[r][v], c[v], xs);
        }
      }
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        Vec scale = load(part.scales[t][j][v]);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          Vec f = to_float(whole[r][v]);
          sum[r][v] = j == 0 ? mul(scale, f) : fma(scale, f, sum[r][v]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 2
        for (int j = 0; T::kMin && j < T::kGroups; ++j)
          sum[r][v] = fma(load(part.scales[t][2 + j][v]), set1(q[r]->sum[j]), sum[r][v]);
        acc[r][v] = fma(sum[r][v], set1(q[r]->scale), acc[r][v]);
      }
    }
  }
}
#else
template <class T, int R, int V>
WELS_INLINE void sum_part(const QuantBlock& g, const Part& part, const uint8_t*, int lane,
                          int64_t tiles, const QuantRecord* x, Vec (*acc)[V]) {
  static_assert(V == 1);
  sum_tiles<Unpacked<T>, R>(part.codes[0][0][0], part.scales[0][0][0] + lane, lane, tiles, x,
                            g.x_stride, &acc[0][0]);
}
#endif

// R rows from row i0 on over a part of V panels, whose group begins at tile `begin`; sums wait in
// g.sums between parts.
template <class T, int R, int V>
void part_rows(const QuantBlock& g, const Part& part, const uint8_t* group, int64_t begin,
               int64_t tiles, int64_t j, int64_t i0) {
  const QuantRecord* x = (const QuantRecord*)((const uint8_t*)g.x + i0 * g.x_stride) + begin;
  const bool last = begin + tiles == g.k / 32;
  for (int lane = 0; lane < kQuantLanes; lane += kLanes) {
    Vec acc[R][V];
    float* sums = g.sums + i0 * kQuantSumLanes + lane;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        acc[r][v] = begin == 0 ? zero() : load(sums + r * kQuantSumLanes + v * kQuantLanes);
    }
    sum_part<T, R, V>(g, part, group, lane, tiles, x, acc);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        if (last) {
          put(g, i0 + r, j + v * kQuantLanes + lane, acc[r][v]);
        } else {
          store(sums + r * kQuantSumLanes + v * kQuantLanes, acc[r][v]);
        }
      }
    }
  }
}

// Groups are asked for one ahead, a share with each few rows, so that they come from memory while
// the rows are multiplied.
struct Ahead {
  const uint8_t* next;
  int64_t left, share;  // bytes
  Ahead() = default;
  Ahead(const uint8_t* next, int64_t bytes, int64_t parts)
      : next(next), left(bytes), share((bytes / parts + 63) / 64 * 64) {}
  WELS_INLINE void ask() {
    for (int64_t i = 0; i < share && left > 0; i += 64, next += 64, left -= 64)
      __builtin_prefetch(next, 0, 2);
  }
};

// All rows with V panels from column j on.
template <class T, int V>
void many_rows(const QuantBlock& g, const uint8_t* panel, int64_t j) {
  constexpr int kRows = kSide == 1 && kLanes == kQuantLanes ? 8 : 4;
  constexpr int64_t kGroup = quant_group_bytes(T::kPanel);
  const int64_t steps = (g.m + kRows - 1) / kRows;
  const uint8_t* group = panel;
  Part part;
  for (int64_t t = 0; t < g.k / 32; t += kQuantGroup, group += kGroup) {
    int64_t tiles = quant_group_tiles(g.k, t), i = 0;
    for (int v = 0; v < V; ++v) unpack<T>(group + v * g.w_panel, tiles, v, part);
    bool last = t + tiles == g.k / 32, end = last && j + V * kQuantLanes >= g.n;
    const uint8_t* next = last ? panel + V * g.w_panel : group + kGroup;
    Ahead ahead[V];
    for (int v = 0; v < V; ++v) ahead[v] = Ahead(next + v * g.w_panel, end ? 0 : kGroup, steps);
    // One row alone takes as long as two or three: 9 rows are 4, 3 and 2.
    while (g.m - i >= kRows && g.m - i != kRows + 1) {
      for (int v = 0; v < V; ++v) ahead[v].ask();
      part_rows<T, kRows, V>(g, part, group, t, tiles, j, i), i += kRows;
    }
    for (int v = 0; v < V; ++v) ahead[v].ask();
    if (kRows > 4 && g.m - i >= 4 && g.m - i != 5)
      part_rows<T, 4, V>(g, part, group, t, tiles, j, i), i += 4;
    if (g.m - i == 3 || g.m - i == 5) part_rows<T, 3, V>(g, part, group, t, tiles, j, i), i += 3;
    if (g.m - i >= 2) part_rows<T, 2, V>(g, part, group, t, tiles, j, i), i += 2;
    if (g.m - i == 1) part_rows<T, 1, V>(g, part, group, t, tiles, j, i);
  }
}

// Up to so many rows codes are unpacked in registers where they are used, again for every four; for
// more, a part of a panel is unpacked to the L1 cache for all rows.
#ifdef __AVX512VNNI__
constexpr int64_t kFewRows = 8;
#else
constexpr int64_t kFewRows = 4;
#endif

template <class T>
void multiply(const QuantBlock& g) {
  const uint8_t* panel = g.w;
  int64_t j = 0;
  if (g.m > kFewRows) {
    for (; kSide > 1 && j + kQuantLanes < g.n; j += kSide * kQuantLanes, panel += kSide * g.w_panel)
      many_rows<T, kSide>(g, panel, j);
    for (; j < g.n; j += kQuantLanes, panel += g.w_panel) many_rows<T, 1>(g, panel, j);
    return;
  }
  for (; j < g.n; j += kQuantLanes, panel += g.w_panel) {
    int64_t i = 0;
    for (; g.m - i >= 4; i += 4) few_rows<T, 4>(g, panel, j, i);
    if (g.m - i >= 2) few_rows<T, 2>(g, panel, j, i), i += 2;
    if (g.m - i == 1) few_rows<T, 1>(g, panel, j, i);
  }
}

// --- rows of x ---

WELS_INLINE Vec load_x(const QuantRows& r, int64_t row, int64_t col) {
  if (r.bf16) return load_bf16((const uint16_t*)r.x + row * r.x_stride + col);
  return load((const float*)r.x + row * r.x_stride + col);
}

void round_rows(const QuantRows& r) {
  constexpr int kVecs = 32 / kLanes;
  const QuantPanel& panel = kQuantPanels[r.type];
  for (int64_t i = 0; i < r.rows; ++i) {
    QuantRecord* out = (QuantRecord*)((uint8_t*)r.out + i * r.out_stride);
    for (int64_t t = 0; t < r.cols / 32; ++t, ++out) {
      Vec x[kVecs];
      IVec bits = set_ints(0);
      for (int v = 0; v < kVecs; ++v) {
        x[v] = load_x(r, i, t * 32 + v * kLanes);
        bits = max_bits(bits, (IVec)x[v] & set_ints(0x7fffffff));
      }
      int most = largest(bits);  // NaN is above infinity
      bool finite = most < 0x7f800000;
      float amax = as_float(most), inverse = 0;
      out->scale = finite ? 0 : as_float(0x7fc00000);
      if (finite && amax >= 0x1p-100f) {
        out->scale = amax / 127;
        inverse = 1 / out->scale;
      }
      int sum[2] = {};
      for (int v = 0; v < kVecs; ++v) {
        IVec q = finite ? round_to_int(mul(x[v], set1(inverse))) : set_ints(0);
        store_int8(out->q + v * kLanes, q);
        sum[v * kLanes / panel.group] += total(q);
      }
      for (int j = 0; j < 2; ++j) {
        if (panel.has_min) {
          out->sum[j] = (float)sum[j];
        } else {
          out->start[j] = -panel.offset * sum[j];
        }
      }
      out->unused = 0;
    }
  }
}

// The ceiling: independent sums, operands in registers.
double peak(int64_t rounds) {
#ifdef __AVX512F__
  constexpr int kSums = 24;
#else
  constexpr int kSums = 8;
#endif
  // Of the instruction's own type: GCC 12 would store sums of IVec, which halves the rate.
  typedef int Lanes __attribute__((vector_size(sizeof(IVec))));
  Lanes acc[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) acc[i] = (Lanes)set_ints(i);
  IVec a = set_bytes(1), b = set_bytes(2);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) {
      asm volatile("" : "+v"(a));  // else the loop would be folded, or a product shared
#ifdef __AVX512VNNI__
      acc[i] = (Lanes)_mm512_dpbusd_epi32((IVec)acc[i], a, b);
#else
      acc[i] = (Lanes)add_ints((IVec)acc[i], pairs_of_words(pairs_of_bytes(a, b)));
#endif
    }
  }
  IVec all = set_ints(0);
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) all = add_ints(all, (IVec)acc[i]);
  volatile int used = total(all);
  (void)used;
  return (double)rounds * kSums * kLanes * 8;
}

#include "backend/cpu/isa/quant_pack.inl"

const QuantKernels kQuant{
    {pack_panel<0, q4_0>, pack_panel<1, q4_1>, pack_panel<2, q5_0>, pack_panel<3, q5_1>,
     pack_panel<4, q8_0>, pack_panel<5, q2_k>, pack_panel<6, q3_k>, pack_panel<7, q4_k>,
     pack_panel<8, q5_k>, pack_panel<9, q6_k>, pack_panel<10, q4_0>, pack_panel<11, iq4_xs>,
     pack_panel<12, mxfp4>},
    round_rows,
    {multiply<Q4_0>, multiply<Q4_1>, multiply<Q5_0>, multiply<Q5_1>, multiply<Q8_0>, multiply<Q2_K>,
     multiply<Q3_K>, multiply<Q4_K>, multiply<Q5_K>, multiply<Q6_K>, multiply<IQ4_NL>,
     multiply<IQ4_XS>, multiply<MXFP4>},
    peak};

}  // namespace quant
using quant::kQuant;
