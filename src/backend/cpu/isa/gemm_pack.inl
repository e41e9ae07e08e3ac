// Packing into panels of 4-byte units: one f32, or two bf16 that follow each other in k.

// Both kinds of source as floats.
WELS_INLINE Vec load_any(const void* row, bool bf16, int64_t i, int n) {
  return bf16 ? load_first_bf16((const uint16_t*)row + i, n) : load_first((const float*)row + i, n);
}
WELS_INLINE const uint8_t* row_of(const void* p, bool bf16, int64_t stride, int64_t r) {
  return (const uint8_t*)p + r * stride * (bf16 ? 2 : 4);
}

struct F32Units {
  static constexpr int kDepth = 1;  // elements of k in a unit
  using Element = float;
  // kLanes units that lie along n (columns [j, j + cols) of row k); along k (kLanes units of a row
  // from k on).
  static WELS_INLINE Vec along_n(const PackBlock& p, int64_t k, int64_t j, int cols) {
    return load_any(row_of(p.src, p.src_bf16, p.src_stride, k), p.src_bf16, j, cols);
  }
  static WELS_INLINE Vec along_k(const PackBlock& p, int64_t n, int64_t k) {
    int64_t left = p.k - k;
    return load_any(row_of(p.src, p.src_bf16, p.src_stride, n), p.src_bf16, k,
                    left < kLanes ? (int)left : kLanes);
  }
  static WELS_INLINE void put(float* p, Vec v, int n) {
    n == kLanes ? store(p, v) : store_part(p, v, n);
  }
};

#ifdef __AVX512BF16__
struct PairUnits {
  static constexpr int kDepth = 2;
  using Element = uint16_t;
  static WELS_INLINE __m512i half(const PackBlock& p, int64_t k, int64_t j, int cols) {
    if (k >= p.k) return _mm512_setzero_si512();
    const uint8_t* row = row_of(p.src, p.src_bf16, p.src_stride, k);
    if (p.src_bf16) {
      __mmask16 m = (__mmask16)((1u << cols) - 1);
      return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const uint16_t*)row + j));
    }
    return _mm512_cvtepu16_epi32(to_bf16(load_first((const float*)row + j, cols)));
  }
  static WELS_INLINE Vec along_n(const PackBlock& p, int64_t k, int64_t j, int cols) {
    return (Vec)_mm512_or_si512(half(p, k, j, cols),
                                _mm512_slli_epi32(half(p, k + 1, j, cols), 16));
  }
  static WELS_INLINE Vec along_k(const PackBlock& p, int64_t n, int64_t k) {
    const uint8_t* row = row_of(p.src, p.src_bf16, p.src_stride, n);
    int64_t left = p.k - k;
    if (p.src_bf16) {
      __mmask32 m = left < 32 ? (__mmask32)((1ull << left) - 1) : (__mmask32)-1;
      return (Vec)_mm512_maskz_loadu_epi16(m, (const uint16_t*)row + k);
    }
    const float* f = (const float*)row + k;
    int low = left < 16 ? (int)left : 16, high = left < 16 ? 0 : left < 32 ? (int)left - 16 : 16;
    return (Vec)_mm512_cvtne2ps_pbh(high ? load_first(f + 16, high) : zero(), load_first(f, low));
  }
  static WELS_INLINE void put(uint16_t* p, Vec v, int n) {
    n == kLanes ? store_bf16(p, v) : store_part_bf16(p, v, n);
  }
};

// The weight gradient's packing of bf16 rows in whole steps of two. Returns how many columns are
// done: all but fewer than 32.
template <int kWidth>
int64_t pack_row_pairs(const PackBlock& p) {
  int64_t done = p.n / 32 * 32, steps = p.k / 2;
  const uint16_t* even = (const uint16_t*)p.src;
  uint8_t* dst = (uint8_t*)p.dst;
  for (int64_t s = 0; s < steps; ++s, even += 2 * p.src_stride, dst += kWidth * 4) {
    for (int64_t c = 0; c < done; c += 32) {
      __m512i v[2];
      interleave(even + c, even + p.src_stride + c, v);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        int64_t j = c + i * kLanes;
        _mm512_storeu_si512(dst + j / kWidth * p.panel_bytes + j % kWidth * 4, v[i]);
      }
    }
  }
  return done;
}
#endif

// Row by row as memory lies, so that the source streams; a panel takes whole vectors of it. p by
// value: a store through a pointer could change what a reference means.
template <class Units, int kWidth>
void pack_rows(PackBlock p) {
  static_assert(kWidth % 16 == 0);
  int64_t first = 0;
#ifdef __AVX512BF16__
  if (Units::kDepth == 2 && p.src_bf16 && p.k % 2 == 0) first = pack_row_pairs<kWidth>(p);
#endif
  uint8_t* dst = (uint8_t*)p.dst;
  for (int64_t k = 0; k < p.k; k += Units::kDepth, dst += kWidth * 4) {
    int64_t j = first;
    for (uint8_t* to = dst; j + kWidth <= p.n; j += kWidth, to += p.panel_bytes) {
#pragma GCC unroll 6
      for (int c = 0; c < kWidth; c += kLanes)
        store((float*)to + c, Units::along_n(p, k, j + c, kLanes));
    }
    for (; j < p.n; j += kLanes) {
      int cols = p.n - j < kLanes ? (int)(p.n - j) : kLanes;  // zeros after them
      store((float*)(dst + j / kWidth * p.panel_bytes) + j % kWidth, Units::along_n(p, k, j, cols));
    }
  }
}

template <class Units>
void pack_k_major(const PackBlock& p) {
  p.width == kPanel ? pack_rows<Units, kPanel>(p) : pack_rows<Units, kTransposedWidth>(p);
}

// Rows become columns: r[i] lane j goes to r[j] lane i.
WELS_INLINE void transpose(Vec* r) {
#ifdef __AVX512F__
  Vec t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = (Vec)_mm512_unpacklo_pd((__m512d)t[i], (__m512d)t[i + 2]);
    r[i + 1] = (Vec)_mm512_unpackhi_pd((__m512d)t[i], (__m512d)t[i + 2]);
    r[i + 2] = (Vec)_mm512_unpacklo_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
    r[i + 3] = (Vec)_mm512_unpackhi_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
#else
  Vec t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    r[i] = (Vec)_mm256_unpacklo_pd((__m256d)t[i], (__m256d)t[i + 2]);
    r[i + 1] = (Vec)_mm256_unpackhi_pd((__m256d)t[i], (__m256d)t[i + 2]);
    r[i + 2] = (Vec)_mm256_unpacklo_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
    r[i + 3] = (Vec)_mm256_unpackhi_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
#endif
}

template <class Units>
void pack_n_major(const PackBlock& p) {
  int64_t steps = (p.k + Units::kDepth - 1) / Units::kDepth;
  for (int64_t j = 0; j < p.n; j += kLanes) {
    uint8_t* dst = (uint8_t*)p.dst + j / kPanel * p.panel_bytes + j % kPanel * 4;
    int rows = p.n - j < kLanes ? (int)(p.n - j) : kLanes;
    for (int64_t s = 0; s < steps; s += kLanes) {
      Vec r[kLanes];
      for (int i = 0; i < kLanes; ++i)
        r[i] = i < rows ? Units::along_k(p, j + i, s * Units::kDepth) : zero();
      transpose(r);
      int64_t left = steps - s < kLanes ? steps - s : kLanes;
      for (int64_t i = 0; i < left; ++i) store((float*)(dst + (s + i) * kPanel * 4), r[i]);
    }
  }
}
