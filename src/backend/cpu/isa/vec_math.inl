// Elementary functions over Vec, shared by all kernels (attention, activation, output head).

// e^x, all of f32's range: error <= 0.91 ulp where the result is normal; x -> -inf gives 0,
// above 88.72 +inf, NaN stays NaN. x = n·ln2 + r with |r| <= ln2/2, e^r by a polynomial of degree 6
// through Chebyshev nodes (as exact as Taylor's of degree 7), then 2^n.
inline Vec exp(Vec x) {
  // max(a, b) returns b where either is NaN, so the argument comes second.
  x = min(set1(89.0f), max(set1(-104.0f), x));
#ifdef __AVX512F__
  Vec n = _mm512_roundscale_ps(mul(x, set1(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  Vec n = _mm256_round_ps(mul(x, set1(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
  Vec r = fma(n, set1(-0.693145752f), x);  // the upper bits of ln2: n times it is exact
  r = fma(n, set1(-1.42860677e-6f), r);    // the rest of ln2
  Vec p = set1(1.39336859e-3f);
  p = fma(p, r, set1(8.36918438e-3f));
  p = fma(p, r, set1(4.16664646e-2f));
  p = fma(p, r, set1(1.66665049e-1f));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
#ifdef __AVX512F__
  return _mm512_scalef_ps(p, n);
#else
  // 2^n in two steps, so that n = 128 and the subnormal results come out right.
  __m256i i = _mm256_cvtps_epi32(n);
  __m256i half = _mm256_srai_epi32(i, 1);
  __m256i bias = _mm256_set1_epi32(127);
  Vec a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  Vec b =
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23));
  return mul(mul(p, a), b);
#endif
}

// 2^x for x <= 127: relative error <= 1.3 · 2^-24; below -126 it stays at 2^-126, NaN stays NaN.
// x = n + r with |r| <= 1/2, 2^r by a polynomial of degree 6 through Chebyshev nodes. A quarter
// less work than e^x.
inline Vec exp2(Vec x) {
  x = max(set1(-126.0f), x);
#ifdef __AVX512F__
  Vec n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  Vec n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
  Vec r = sub(x, n);
  Vec p = set1(1.54614449e-4f);
  p = fma(p, r, set1(1.3400428e-3f));
  p = fma(p, r, set1(9.61805694e-3f));
  p = fma(p, r, set1(5.55032715e-2f));
  p = fma(p, r, set1(2.40226507e-1f));
  p = fma(p, r, set1(6.93147182e-1f));
  p = fma(p, r, set1(1.0f));
#ifdef __AVX512F__
  return _mm512_scalef_ps(p, n);
#else
  __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return mul(p, _mm256_castsi256_ps(_mm256_slli_epi32(i, 23)));
#endif
}

// 1 / (1 + e^-x)
inline Vec sigmoid(Vec x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }
