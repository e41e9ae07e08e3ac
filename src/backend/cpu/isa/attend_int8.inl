// Scores in int8 (attend_int8_kernels.h) by vpdpbusd of AVX-512 VNNI.
namespace int8 {

struct Block {  // of Q8_0
  uint16_t d;   // a half
  int8_t k[32];
};
static_assert(sizeof(Block) == 34);

inline void pack_part(const Block* from, int blocks, uint8_t* k, float* scale) {
  const __m256i sign = _mm256_set1_epi8(-128);
  for (int b = 0; b < blocks; ++b) {
    __m256i x = _mm256_loadu_si256((const __m256i*)from[b].k);
    _mm256_storeu_si256((__m256i*)(k + 32 * b), _mm256_xor_si256(x, sign));
    scale[b] = _cvtsh_ss(from[b].d);
  }
}

void pack(const void* const* a, int a_blocks, const void* const* b, int b_blocks, int n,
          const AttendInt8Keys& to) {
  const int blocks = a_blocks + b_blocks;
  for (int i = 0; i < n; ++i) {
    uint8_t* k = to.k + (long)i * blocks * 32;
    float* scale = to.scale + (long)i * blocks;
    pack_part((const Block*)a[i], a_blocks, k, scale);
    if (b_blocks > 0) pack_part((const Block*)b[i], b_blocks, k + 32 * a_blocks, scale + a_blocks);
  }
}

// kKeys keys against one vector of columns. lines: that are asked for a block.
template <int kKeys>
__attribute__((noinline)) void score_keys(const uint8_t* k, const float* k_scale, int blocks,
                                          const int8_t* q, const float* q_scale,
                                          const int32_t* start, float* s, LinesAhead& ahead,
                                          long lines) {
  const long row = 32L * blocks;
  __m512 sum[kKeys];
#pragma GCC unroll 8
  for (int i = 0; i < kKeys; ++i) sum[i] = _mm512_setzero_ps();
  for (int b = 0; b < blocks; ++b, k += 32, q += 512, q_scale += 16, start += 16, ++k_scale) {
    ahead.ask(lines);
    __m512i acc[kKeys];
#pragma GCC unroll 8
    for (int i = 0; i < kKeys; ++i) acc[i] = _mm512_loadu_si512(start);
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
      const __m512i qv = _mm512_loadu_si512(q + 64 * step);
#pragma GCC unroll 8
      for (int i = 0; i < kKeys; ++i) {
        acc[i] = _mm512_dpbusd_epi32(
            acc[i], _mm512_set1_epi32(*(const int32_t*)(k + i * row + 4 * step)), qv);
      }
    }
    const __m512 dq = _mm512_loadu_ps(q_scale);
#pragma GCC unroll 8
    for (int i = 0; i < kKeys; ++i) {
      sum[i] = _mm512_fmadd_ps(_mm512_mul_ps(dq, _mm512_cvtepi32_ps(acc[i])),
                               _mm512_set1_ps(k_scale[(long)i * blocks]), sum[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kKeys; ++i) _mm512_storeu_ps(s + i * kAttendCols, sum[i]);
}

void scores(const AttendInt8Scores& x, int first, int n, int lanes, float* s,
            const AttendAhead& ahead) {
  LinesAhead next(ahead);
  for (int c = 0; c < lanes; c += 16) {
    const long vector = (long)(c / 16) * x.blocks;
    for (int i = 0; i < n;) {
      auto group = [&](auto* fn, int keys) {
        const long share = (long)n * x.blocks;
        fn(x.k.k + (long)(first + i) * x.blocks * 32, x.k.scale + (long)(first + i) * x.blocks,
           x.blocks, x.q.q + vector * 512, x.q.scale + vector * 16, x.q.start + vector * 16,
           s + i * kAttendCols + c, next, (next.count() * keys + share - 1) / share);
        i += keys;
      };
      n - i >= 8 ? group(score_keys<8>, 8) : group(score_keys<1>, 1);
    }
  }
}

}  // namespace int8

const AttendInt8 kAttendInt8{int8::pack, int8::scores};
