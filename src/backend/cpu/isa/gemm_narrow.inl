// Panels whose values are stored in fewer than 4 bytes (PanelType): widened in registers where few
// rows use them, so that decoding reads no more than the checkpoint has; unpacked to the operands'
// units, part by part, where many rows do. Both give the bits of panels stored as units.

struct PanelBf16 {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  static WELS_INLINE Vec load(const uint8_t* p, int v, Vec) {
    return load_bf16((const uint16_t*)p + v * kLanes);
  }
};

struct PanelF16 {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  static WELS_INLINE Vec load(const uint8_t* p, int v, Vec) {
#ifdef __AVX512F__
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p + v));
#else
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + v));
#endif
  }
};

// A code's bits, moved to where binary16 has sign, exponent and mantissa, are 2^-8 of its value
// (the biases are 7 and 15), subnormal codes too; the factor goes into the scale, where it is
// exact.
struct PanelE4m3 {
  static constexpr int kBytes = 1;
  static constexpr bool kScaled = true;
  static WELS_INLINE Vec load(const uint8_t* p, int v, Vec scale) {
#ifdef __AVX512F__
    __m256i h = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p + v));
    h = _mm256_and_si256(_mm256_slli_epi16(h, 7), _mm256_set1_epi16((short)0xbfff));
    return mul(_mm512_cvtph_ps(h), scale);
#else
    __m128i h = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i*)(p + v * kLanes)));
    h = _mm_and_si128(_mm_slli_epi16(h, 7), _mm_set1_epi16((short)0xbfff));
    return mul(_mm256_cvtph_ps(h), scale);
#endif
  }
};

// How a kernel takes narrow values: a vector of units of kDepth values of k, `step` bytes apart.
// Scale: what depends on the scale of 128 values of k alone.
template <class P>
struct Singles {
  static constexpr int kDepth = 1, kBytes = P::kBytes;
  static constexpr bool kScaled = P::kScaled;
  using Step = StepF32;
  using Scale = Vec;
  static WELS_INLINE Scale scale(float s) { return set1(s * 256.0f); }
  static WELS_INLINE Vec load(const uint8_t* p, int64_t, int v, const Scale& s) {
    return P::load(p, v, s);
  }
  static WELS_INLINE Vec load_last(const uint8_t* p, int v, const Scale& s) {
    return P::load(p, v, s);
  }
};

#ifdef __AVX512BF16__
template <class P>
struct Pairs : Singles<P> {
  static constexpr int kDepth = 2;
  using Step = StepBf16;
  static WELS_INLINE Vec join(Vec first, Vec second) {
    return (Vec)_mm512_or_si512(_mm512_cvtepu16_epi32(to_bf16(first)),
                                _mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(second)), 16));
  }
  static WELS_INLINE Vec load(const uint8_t* p, int64_t step, int v, const Vec& s) {
    return join(P::load(p, v, s), P::load(p + step, v, s));
  }
  static WELS_INLINE Vec load_last(const uint8_t* p, int v, const Vec& s) {
    return join(P::load(p, v, s), zero());
  }
};

// Codes times their scale, rounded to bf16: the 128 that are not negative are made once for 128
// values of k, and looked up.
template <>
struct Pairs<PanelE4m3> {
  static constexpr int kDepth = 2, kBytes = 1;
  static constexpr bool kScaled = true;
  using Step = StepBf16;
  struct Scale {
    __m512i products[4];
  };
  static WELS_INLINE Scale scale(float s) {
    Vec factor = set1(s * 256.0f);
    Scale out;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      alignas(16) uint8_t codes[32];
      for (int c = 0; c < 32; ++c) codes[c] = (uint8_t)(32 * i + c);
      out.products[i] = _mm512_inserti64x4(
          _mm512_castsi256_si512((__m256i)to_bf16(PanelE4m3::load(codes, 0, factor))),
          (__m256i)to_bf16(PanelE4m3::load(codes, 1, factor)), 1);
    }
    return out;
  }
  static WELS_INLINE Vec look_up(__m128i first, __m128i second, const Scale& s) {
    __m512i codes = _mm512_cvtepi8_epi16(
        _mm256_set_m128i(_mm_unpackhi_epi8(first, second), _mm_unpacklo_epi8(first, second)));
    __m512i low = _mm512_permutex2var_epi16(s.products[0], codes, s.products[1]);
    __m512i high = _mm512_permutex2var_epi16(s.products[2], codes, s.products[3]);
    __m512i product =
        _mm512_mask_blend_epi16(_mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40)), low, high);
    // product ^ (codes & sign)
    return (Vec)_mm512_ternarylogic_epi32(product, codes, _mm512_set1_epi16((short)0x8000), 0x78);
  }
  static WELS_INLINE Vec load(const uint8_t* p, int64_t step, int v, const Scale& s) {
    return look_up(_mm_loadu_si128((const __m128i*)p + v),
                   _mm_loadu_si128((const __m128i*)(p + step) + v), s);
  }
  static WELS_INLINE Vec load_last(const uint8_t* p, int v, const Scale& s) {
    return look_up(_mm_loadu_si128((const __m128i*)p + v), _mm_setzero_si128(), s);
  }
};
#endif

constexpr int kScaleDepth = 128;  // of k for one scale: tensor/fp8.h
constexpr int64_t kAhead = 4096;  // bytes of a panel that are asked for early: the hardware's own
                                  // reading ahead stops at every page of 4 KB

template <class Source>
WELS_INLINE typename Source::Scale scale_of(const float* scales, int64_t k) {
  return Source::scale(Source::kScaled ? scales[k / kScaleDepth] : 0);
}

template <class Source, int R, int V>
void narrow_kernel(const GemmBlock& g, const NarrowPanels& p, const uint8_t* b, const float* scales,
                   int64_t i0, int64_t j0) {
  using Step = typename Source::Step;
  constexpr int64_t kScaleSteps = kScaleDepth / Source::kDepth;
  Vec acc[R][V];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = zero();
  }
  const uint8_t* a = (const uint8_t*)g.a + i0 * g.a_row;
  const int64_t step = p.step, ahead = i0 == 0 ? kAhead : 0;  // later passes find it in L1
  for (int64_t k = 0; k < g.steps; k += kScaleSteps) {
    const typename Source::Scale scale = scale_of<Source>(scales, k * Source::kDepth);
    const int64_t end = g.steps - k < kScaleSteps ? g.steps - k : kScaleSteps;
    for (int64_t s = 0; s < end; ++s, a += g.a_step, b += Source::kDepth * step) {
      Vec bv[V];
#pragma GCC unroll 2
      for (int d = 0; d < Source::kDepth; ++d) {
#pragma GCC unroll 4
        for (int i = 0; i < V * kLanes * Source::kBytes; i += 64)
          __builtin_prefetch(b + d * step + ahead + i);
      }
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) bv[v] = Source::load(b, step, v, scale);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        Vec av = Step::spread(a + r * g.a_row);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = Step::multiply_add(av, bv[v], acc[r][v]);
      }
    }
  }
  if (g.half_step) {
    const typename Source::Scale scale = scale_of<Source>(scales, g.steps * Source::kDepth);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Vec bv = Source::load_last(b, v, scale);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r)
        acc[r][v] = Step::multiply_add(Step::spread_half(a + r * g.a_row), bv, acc[r][v]);
    }
  }
  alignas(64) float tile[R][V][kLanes];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(tile[r][v], acc[r][v]);
  }
  int64_t left = g.n - j0;
  finish(g, tile[0][0], R, V, i0, j0, left < V * kLanes ? (int)(left - (V - 1) * kLanes) : kLanes);
}

using NarrowKernel = void (*)(const GemmBlock&, const NarrowPanels&, const uint8_t*, const float*,
                              int64_t, int64_t);

// All rows times one panel, in passes of equal numbers of rows: the panel is read again from L1.
template <class Source, int V>
void narrow_panel(const GemmBlock& g, const NarrowPanels& p, const uint8_t* b, const float* scales,
                  int64_t j0) {
  static constexpr NarrowKernel kRows[] = {
      nullptr,
      narrow_kernel<Source, 1, V>,
      narrow_kernel<Source, 2, V>,
      narrow_kernel<Source, 3, V>,
      narrow_kernel<Source, 4, V>,
      narrow_kernel<Source, 5, V>,
      narrow_kernel<Source, 6, V>,
  };
  constexpr int64_t kPass = 6;
  for (int64_t i = 0, passes = (g.m + kPass - 1) / kPass; passes > 0; --passes) {
    int64_t rows = (g.m - i + passes - 1) / passes;
    kRows[rows](g, p, b, scales, i, j0);
    i += rows;
  }
}

template <class Source>
void multiply_narrow_type(const GemmBlock& g, const NarrowPanels& p) {
  const uint8_t* b = (const uint8_t*)g.b;
  for (int64_t j = 0; j < g.n; j += kPanel, b += g.b_panel) {
    const float* scales =
        Source::kScaled ? p.scales + (p.first_row + j) / kScaleDepth * p.scales_stride : nullptr;
    int64_t left = g.n - j;
    switch (left >= kPanel ? kPanelVecs : (int)((left + kLanes - 1) / kLanes)) {
      case 1:
        narrow_panel<Source, 1>(g, p, b, scales, j);
        break;
#ifdef __AVX512F__
      case 2:
        narrow_panel<Source, 2>(g, p, b, scales, j);
        break;
      case 3:
        narrow_panel<Source, 3>(g, p, b, scales, j);
        break;
#endif
      default:
        narrow_panel<Source, kPanelVecs>(g, p, b, scales, j);
        break;
    }
  }
}

template <template <class> class Source>
void multiply_narrow(const GemmBlock& g, const NarrowPanels& p) {
  switch (p.type) {
    case PanelType::kBf16:
      return multiply_narrow_type<Source<PanelBf16>>(g, p);
    case PanelType::kF16:
      return multiply_narrow_type<Source<PanelF16>>(g, p);
    default:
      return multiply_narrow_type<Source<PanelE4m3>>(g, p);
  }
}

template <class Source>
void unpack_type(const uint8_t* b, const float* scales, int64_t k, void* units) {
  constexpr int64_t kStep = kPanel * Source::kBytes;
  float* to = (float*)units;
  for (int64_t from = 0; from < k; from += kScaleDepth) {
    const typename Source::Scale scale = scale_of<Source>(scales, from);
    const int64_t end = k - from < kScaleDepth ? k - from : kScaleDepth;
    int64_t i = 0;
    for (; i + Source::kDepth <= end; i += Source::kDepth, b += Source::kDepth * kStep) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVecs; ++v, to += kLanes)
        store(to, Source::load(b, kStep, v, scale));
    }
    if (i < end) {
      for (int v = 0; v < kPanelVecs; ++v, to += kLanes) store(to, Source::load_last(b, v, scale));
    }
  }
}

template <template <class> class Source>
void unpack(const uint8_t* panel, PanelType type, const float* scales, int64_t k, void* units) {
  switch (type) {
    case PanelType::kBf16:
      return unpack_type<Source<PanelBf16>>(panel, scales, k, units);
    case PanelType::kF16:
      return unpack_type<Source<PanelF16>>(panel, scales, k, units);
    default:
      return unpack_type<Source<PanelE4m3>>(panel, scales, k, units);
  }
}

// 8 rows of 8 values of 2 bytes to columns.
WELS_INLINE void transpose_8x8(const uint16_t* src, int64_t stride, uint16_t* dst, int64_t to) {
  __m128i r[8], a[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = _mm_loadu_si128((const __m128i*)(src + i * stride));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm_unpacklo_epi16(r[i], r[i + 4]);
    a[2 * i + 1] = _mm_unpackhi_epi16(r[i], r[i + 4]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    r[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_si128((__m128i*)(dst + 2 * i * to), _mm_unpacklo_epi16(r[i], r[i + 4]));
    _mm_storeu_si128((__m128i*)(dst + (2 * i + 1) * to), _mm_unpackhi_epi16(r[i], r[i + 4]));
  }
}
// 16 rows of 16 values of 1 byte to columns: four rounds of perfect shuffles.
WELS_INLINE void transpose_16x16(const uint8_t* src, int64_t stride, uint8_t* dst, int64_t to) {
  __m128i r[16], a[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm_loadu_si128((const __m128i*)(src + i * stride));
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      a[2 * i] = _mm_unpacklo_epi8(r[i], r[i + 8]);
      a[2 * i + 1] = _mm_unpackhi_epi8(r[i], r[i + 8]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) r[i] = a[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm_storeu_si128((__m128i*)(dst + i * to), r[i]);
}

WELS_INLINE void transpose_tile(const uint16_t* src, int64_t stride, uint16_t* dst) {
  transpose_8x8(src, stride, dst, kPanel);
}
WELS_INLINE void transpose_tile(const uint8_t* src, int64_t stride, uint8_t* dst) {
  transpose_16x16(src, stride, dst, kPanel);
}

// Whole lines, past the cache: nothing reads a panel before all are packed, and a line that is
// stored through the cache is read from memory first.
template <class T>
WELS_INLINE void store_past_cache(const T* from, T* to, int n) {
  if ((uintptr_t)to % 16 != 0) return (void)__builtin_memcpy(to, from, n * sizeof(T));
  for (int i = 0; i < n; i += 16 / sizeof(T))
    _mm_stream_si128((__m128i*)(to + i), _mm_load_si128((const __m128i*)(from + i)));
}

// One panel: rows [n, k] of a weight, n <= kPanel, to [k][kPanel], zeros after the n-th.
template <class T>
void pack_narrow_panel(const T* src, int64_t stride, int64_t n, int64_t k, T* dst) {
  constexpr int kTile = sizeof(T) == 2 ? 8 : 16;
  int64_t rows = n / kTile * kTile, depth = k / kTile * kTile;
  alignas(64) T columns[kTile * kPanel];
  for (int64_t c = 0; c < depth; c += kTile) {
    T* to = n == kPanel ? columns : dst + c * kPanel;
    for (int64_t r = 0; r < rows; r += kTile) transpose_tile(src + r * stride + c, stride, to + r);
    if (n == kPanel) store_past_cache(columns, dst + c * kPanel, kTile * kPanel);
  }
  for (int64_t c = 0; c < k; ++c) {
    for (int64_t r = c < depth ? rows : 0; r < kPanel; ++r)
      dst[c * kPanel + r] = r < n ? src[r * stride + c] : (T)0;
  }
}

void pack_narrow(const void* src, int64_t stride, int64_t n, int64_t k, PanelType type, void* dst) {
  for (int64_t j = 0; j < n; j += kPanel) {
    int64_t rows = n - j < kPanel ? n - j : kPanel;
    if (type == PanelType::kE4m3) {
      pack_narrow_panel((const uint8_t*)src + j * stride, stride, rows, k, (uint8_t*)dst + j * k);
    } else {
      pack_narrow_panel((const uint16_t*)src + j * stride, stride, rows, k, (uint16_t*)dst + j * k);
    }
  }
  _mm_sfence();  // the panels are in memory before anybody is told of them
}
