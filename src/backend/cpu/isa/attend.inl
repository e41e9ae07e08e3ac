// Attention's tiles: layouts here, products in attend_product.inl, forward and backward in
// attend_tile.inl.
//
// Operand types. Bf16: two bf16 per unit, products by vdpbf16ps (only where the instruction
// exists). F32: one float per unit; also what bf16 activations are converted to where it does not.

inline Vec round_to_int(Vec x) {
#ifdef __AVX512F__
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
}
// x · 2^n for n <= 127; anything below the normal range becomes 0 on AVX2.
inline Vec times_power_of_2(Vec x, Vec n) {
#ifdef __AVX512F__
  return _mm512_scalef_ps(x, n);
#else
  __m256i i = _mm256_cvtps_epi32(max(set1(-127.0f), n));
  return mul(
      x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(i, _mm256_set1_epi32(127)), 23)));
#endif
}
// a > b ? x : y, lane by lane; false where NaN.
inline Vec where_greater(Vec a, Vec b, Vec x, Vec y) {
#ifdef __AVX512F__
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), x);
#else
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
#endif
}
inline bool all_equal(Vec a, Vec b) {
#ifdef __AVX512F__
  return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) == 0xffff;
#else
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) == 0xff;
#endif
}

// 2^t for t <= 0 (a little above is fine). Exactly 1 at 0. Relative error 7e-6 with kShort, where
// the result is rounded to bf16 anyway, else 1e-7. Polynomials: (2^r - 1) / r interpolated at the
// Chebyshev nodes of [-1/2, 1/2].
template <bool kShort>
inline Vec exp2_fast(Vec t) {
  Vec n = round_to_int(t);
  Vec r = sub(t, n), p;
  if constexpr (kShort) {
    p = fma(set1(0.009656710288544356f), r, set1(0.055838282946219855f));
    p = fma(p, r, set1(0.24022530097412242f));
    p = fma(p, r, set1(0.6931367338836215f));
  } else {
    p = fma(set1(0.0001545316294512069f), r, set1(0.0013390863364671234f));
    p = fma(p, r, set1(0.009618082557277852f));
    p = fma(p, r, set1(0.05550357114219078f));
    p = fma(p, r, set1(0.24022650760568126f));
    p = fma(p, r, set1(0.6931471880262288f));
  }
  return times_power_of_2(fma(p, r, set1(1.0f)), n);
}

struct OperandF32 {
  using Element = float;
  static constexpr int kPair = 1;
  static constexpr bool kShortExp = false;
  static Vec mac(Vec a, Vec b, Vec c) { return fma(a, b, c); }
  // The same with *a in every lane.
  static Vec mac_unit(const float* a, Vec b, Vec c) { return fma(set1(*a), b, c); }
  // Scores of keys j, j + 1 (64 apart) at `dst`, where the products find them.
  static void store_pair(float* dst, Vec even, Vec odd) {
    store(dst, even);
    store(dst + kAttendCols, odd);
  }
  // The same as rows of columns; one buffer serves as both.
  static void store_rows(float*, Vec, Vec) {}
};

#ifdef __AVX512BF16__
struct OperandBf16 {
  using Element = uint16_t;
  static constexpr int kPair = 2;
  static constexpr bool kShortExp = true;
  static Vec mac(Vec a, Vec b, Vec c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
  // GCC 12 would broadcast by an instruction of its own: 174 in place of 232 of 235 GFLOP/s on
  // Zen 4 where each is used once.
  static Vec mac_unit(const float* a, Vec b, Vec c) {
    asm("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(c) : "m"(*a), "v"(b));
    return c;
  }
  // One unit per column: (even, odd).
  static void store_pair(float* dst, Vec even, Vec odd) {
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(dst, _mm512_permutexvar_epi16(order, both));
  }
  // Two rows of columns, neighbouring columns in one unit.
  static void store_rows(float* dst, Vec even, Vec odd) {
    _mm256_storeu_si256((__m256i*)dst, (__m256i)_mm512_cvtneps_pbh(even));
    _mm256_storeu_si256((__m256i*)(dst + kAttendCols / 2), (__m256i)_mm512_cvtneps_pbh(odd));
  }
};
#endif

// --- layouts ---

inline Vec load_as_f32(const float* p) { return load(p); }
inline Vec load_as_f32(const uint16_t* p) { return load_bf16(p); }
inline Vec load_part_as_f32(const float* p, int n) { return load_part(p, n); }
inline Vec load_part_as_f32(const uint16_t* p, int n) { return load_part_bf16(p, n); }
inline void store_as(float* p, Vec v) { store(p, v); }
inline void store_as(uint16_t* p, Vec v) { store_bf16(p, v); }
inline void store_part_as(float* p, Vec v, int n) { store_part(p, v, n); }
inline void store_part_as(uint16_t* p, Vec v, int n) { store_part_bf16(p, v, n); }

// d elements of T at src -> element `at` of the unit row dst; what lies behind them is overwritten
// later or zeroed before.
template <class E, class T>
inline void put_elements(const T* src, int d, float* dst, int at) {
  if constexpr (E::kPair == 1 || sizeof(T) != sizeof(typename E::Element)) {
    typename E::Element* out = (typename E::Element*)dst + at;
    int i = 0;
    for (; i + kLanes <= d; i += kLanes) store_as(out + i, load_as_f32(src + i));
    if (i < d) store_part_as(out + i, load_part_as_f32(src + i, d - i), d - i);
  } else {
#ifdef __AVX512BF16__
    uint16_t* out = (uint16_t*)dst + at;
    int i = 0;
    for (; i + 32 <= d; i += 32) _mm512_storeu_si512(out + i, _mm512_loadu_si512(src + i));
    // In whole vectors as far as they go.
    if (i + 16 <= d) {
      _mm256_storeu_si256((__m256i*)(out + i), _mm256_loadu_si256((const __m256i*)(src + i)));
      i += 16;
    }
    if (i < d) {
      __mmask16 part = (__mmask16)((1u << (d - i)) - 1);
      _mm256_mask_storeu_epi16(out + i, part, _mm256_maskz_loadu_epi16(part, src + i));
    }
#endif
  }
}

template <class E>
inline void put_elements(const BlockQ8* src, int d, float* dst, int at) {
  typename E::Element* out = (typename E::Element*)dst + at;
  decode_q8(src, d, [&](long i, Vec v, int lanes) {
    lanes == kLanes ? store_as(out + i, v) : store_part_as(out + i, v, lanes);
  });
}

template <class E, class T>
void attend_rows(const void* const* a, int da, const void* const* b, int db, int n, float* dst,
                 int ld) {
  int width = ld * E::kPair;
  for (int i = 0; i < n; ++i, dst += ld) {
    if (da + db < width) {  // the padding is less than 16 elements
      for (int u = ld - 16 / E::kPair; u < ld; ++u) dst[u] = 0;
    }
    put_elements<E>((const T*)a[i], da, dst, 0);
    if (b) put_elements<E>((const T*)b[i], db, dst, da);
  }
}

// kLanes × kLanes floats in registers.
inline void transpose_block(Vec (&r)[kLanes]) {
#ifdef __AVX512F__
  Vec t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
  }
#else
  Vec t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  Vec u[8];
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
#endif
}

// rows [n][ld] -> [units][dst_ld]; lanes n .. up to the next multiple of 16 are zero.
inline void attend_transpose(const float* rows, int ld, int n, int units, float* dst, int dst_ld) {
  int lanes = (n + 15) / 16 * 16;
  for (int c = 0; c < lanes; c += kLanes) {
    for (int u = 0; u < units; u += kLanes) {
      int w = units - u < kLanes ? units - u : kLanes;
      Vec r[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        r[i] = c + i >= n    ? zero()
               : w == kLanes ? load(rows + (c + i) * ld + u)
                             : load_part(rows + (c + i) * ld + u, w);
      }
      transpose_block(r);
      for (int i = 0; i < w; ++i) store(dst + (u + i) * dst_ld + c, r[i]);
    }
  }
}

template <class E>
void attend_pairs(const float* rows, int ld, int n, int d_pad, float* dst) {
  if constexpr (E::kPair == 1) {
    for (int i = 0; i < n; ++i) {
      for (int c = 0; c < d_pad; c += kLanes) store(dst + i * d_pad + c, load(rows + i * ld + c));
    }
  } else {
#ifdef __AVX512BF16__
    for (int i = 0; i < n; i += 2, dst += d_pad) {
      const uint16_t* even = (const uint16_t*)(rows + i * ld);
      const uint16_t* odd = (const uint16_t*)(rows + (i + 1) * ld);
      int c = 0;
      if (i + 1 < n) {
        for (; c + 32 <= d_pad; c += 32) {
          __m512i both[2];
          interleave(even + c, odd + c, both);
          _mm512_storeu_si512(dst + c, both[0]);
          _mm512_storeu_si512(dst + c + 16, both[1]);
        }
      }
      for (; c < d_pad; c += 16) {
        __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(even + c)));
        if (i + 1 < n) {
          __m512i y = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(odd + c)));
          x = _mm512_or_si512(x, _mm512_slli_epi32(y, 16));
        }
        _mm512_storeu_si512(dst + c, x);
      }
    }
#endif
  }
}

template <class E>
void attend_row_dots(const float* a, const float* b, int ld, int n, float* dots) {
  for (int i = 0; i < n; ++i, a += ld, b += ld) {
    Vec s = zero();
    if constexpr (E::kPair == 1) {
      for (int c = 0; c < ld; c += kLanes) s = fma(load(a + c), load(b + c), s);
    } else {
      const uint16_t *x = (const uint16_t*)a, *y = (const uint16_t*)b;
      for (int c = 0; c < 2 * ld; c += kLanes) s = fma(load_bf16(x + c), load_bf16(y + c), s);
    }
    dots[i] = sum(s);
  }
}

template <class T>
void attend_store_rows(const float* src, int ld, int n, int d, const float* factor, int factor_step,
                       void* const* dst) {
  for (int i = 0; i < n; ++i, src += ld) {
    T* out = (T*)dst[i];
    Vec f = set1(factor[i * factor_step]);
    int c = 0;
    for (; c + kLanes <= d; c += kLanes) store_as(out + c, mul(load(src + c), f));
    if (c < d) store_part_as(out + c, mul(load(src + c), f), d - c);
  }
}

#include "backend/cpu/isa/attend_ahead.inl"
#include "backend/cpu/isa/attend_product.inl"
#include "backend/cpu/isa/attend_tile.inl"

template <class E, class T>
constexpr AttendTable attend_table() {
  return {E::kPair,
          {attend_rows<E, float>, attend_rows<E, uint16_t>, attend_rows<E, BlockQ8>},
          attend_transpose,
          attend_pairs<E>,
          attend_row_dots<E>,
          attend_store_rows<T>,
          forward_tile<E>,
          backward_tile<E>,
          attend_merge<E>,
          attend_product<E>};
}
#ifdef __AVX512BF16__
const AttendKernels kAttend{attend_table<OperandF32, float>(),
                            attend_table<OperandBf16, uint16_t>()};
#else
const AttendKernels kAttend{attend_table<OperandF32, float>(),
                            attend_table<OperandF32, uint16_t>()};
#endif
