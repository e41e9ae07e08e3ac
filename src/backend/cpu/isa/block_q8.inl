// Blocks of Q8_0, as rows of a KV cache may be kept: value = d · q. device.h (scatter_rows) says
// how they are made.

struct BlockQ8 {
  uint16_t d;  // a half
  int8_t q[32];
};
static_assert(sizeof(BlockQ8) == 34);

inline Vec load_i8(const int8_t* p) {
#ifdef __AVX512F__
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#else
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#endif
}
// Rounded to nearest, ties to even; |x| <= 127.
inline void store_i8(int8_t* p, Vec x) {
#ifdef __AVX512F__
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
#else
  __m256i v = _mm256_cvtps_epi32(x);
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(words, words));
#endif
}

// put(i, values, lanes) for n values, from `block` on; lanes < kLanes only at the end.
template <class Put>
inline __attribute__((always_inline)) void decode_q8(const BlockQ8* block, long n, Put put) {
  for (long begin = 0; begin < n; begin += 32, ++block) {
    const Vec d = set1(_cvtsh_ss(block->d));
    const int count = n - begin < 32 ? (int)(n - begin) : 32;
    for (int i = 0; i < count; i += kLanes)
      put(begin + i, mul(d, load_i8(block->q + i)), count - i < kLanes ? count - i : kLanes);
  }
}

// n values, get(i, lanes) with zeros beyond the lanes, to blocks.
template <class Get>
inline __attribute__((always_inline)) void encode_q8(long n, BlockQ8* block, Get get) {
  for (long begin = 0; begin < n; begin += 32, ++block) {
    Vec x[32 / kLanes], top = zero(), poison = zero();
    for (int i = 0; i < 32 / kLanes; ++i) {
      const long at = begin + i * kLanes, left = n - at;
      x[i] = left <= 0 ? zero() : get(at, left < kLanes ? (int)left : kLanes);
      top = max(top, max(x[i], sub(zero(), x[i])));
      poison = fma(x[i], zero(), poison);
    }
    uint16_t half = _cvtss_sh(max_of(top) / 127.0f, _MM_FROUND_TO_NEAREST_INT);
    const float d = _cvtsh_ss(half);
    const bool whole = sum(poison) == 0.0f && d - d == 0.0f;
    const float inverse = whole && d > 0.0f ? 1.0f / d : 0.0f;
    block->d = whole ? half : 0x7e00;
    const Vec by = set1(inverse), most = set1(127.0f), least = set1(-127.0f);
    for (int i = 0; i < 32 / kLanes; ++i) {
      Vec q = inverse > 0.0f ? max(least, min(most, mul(x[i], by))) : zero();
      store_i8(block->q + i * kLanes, q);
    }
  }
}
