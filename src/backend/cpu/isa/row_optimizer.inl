// What optimisers are made of.

// acc[0..1] += x², in f64.
#ifdef __AVX512F__
using Vec64 = __m512d;
inline Vec64 zero64() { return _mm512_setzero_pd(); }
inline Vec64 lower64(Vec v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
inline Vec64 upper64(Vec v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
inline Vec64 fma64(Vec64 a, Vec64 b, Vec64 c) { return _mm512_fmadd_pd(a, b, c); }
inline double sum64(Vec64 a, Vec64 b) { return _mm512_reduce_add_pd(_mm512_add_pd(a, b)); }
#else
using Vec64 = __m256d;
inline Vec64 zero64() { return _mm256_setzero_pd(); }
inline Vec64 lower64(Vec v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
inline Vec64 upper64(Vec v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
inline Vec64 fma64(Vec64 a, Vec64 b, Vec64 c) { return _mm256_fmadd_pd(a, b, c); }
inline double sum64(Vec64 a, Vec64 b) {
  Vec64 s = _mm256_add_pd(a, b);
  __m128d t = _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd(s, 1));
  return _mm_cvtsd_f64(_mm_add_sd(t, _mm_unpackhi_pd(t, t)));
}
#endif

template <class X>
double sum_squares_row(const void* x, int64_t n) {
  Vec64 a = zero64(), b = zero64();
  sweep(n, [&](int64_t i, auto m) {
    Vec v = get<X>(x, i, m);
    Vec64 lo = lower64(v), hi = upper64(v);
    a = fma64(lo, lo, a);
    b = fma64(hi, hi, b);
  });
  return sum64(a, b);
}

// m = b1·m + (1-b1)·g, v = b2·v + (1-b2)·g², w = w·keep - rate·m / (sqrt(v·spread) + eps).
void adamw_row(float* w, const float* grad, float* m, float* v, int64_t n, const AdamWScalars& p) {
  Vec scale = set1(p.grad_scale), b1 = set1(p.beta1), b2 = set1(p.beta2), eps = set1(p.eps);
  Vec c1 = set1(1.0f - p.beta1), c2 = set1(1.0f - p.beta2), keep = set1(p.keep);
  Vec rate = set1(-p.rate), spread = set1(p.spread);
  sweep(n, [&](int64_t i, auto k) {
    Vec g = mul(get<F32>(grad, i, k), scale);
    Vec first = fma(b1, get<F32>(m, i, k), mul(c1, g));
    Vec second = fma(b2, get<F32>(v, i, k), mul(mul(c2, g), g));
    put<F32>(m, i, k, first);
    put<F32>(v, i, k, second);
    Vec step = div(first, add(sqrt(mul(second, spread)), eps));
    put<F32>(w, i, k, fma(rate, step, mul(get<F32>(w, i, k), keep)));
  });
}

void axpby_row(float a, const float* x, float b, float* y, int64_t n) {
  Vec fa = set1(a), fb = set1(b);
  sweep(n, [&](int64_t i, auto m) {
    put<F32>(y, i, m, fma(fa, get<F32>(x, i, m), mul(fb, get<F32>(y, i, m))));
  });
}
