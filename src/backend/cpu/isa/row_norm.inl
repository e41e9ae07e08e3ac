// RMSNorm and RoPE.

template <class X, class Y>
float rms_norm_row(const void* x, const float* gain, float eps, void* y, int64_t n) {
  float squares = reduce(n, [&](Vec acc, int64_t i, auto m) {
    Vec v = get<X>(x, i, m);
    return fma(v, v, acc);
  });
  float inv = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(squares / (float)n + eps)));
  Vec scale = set1(inv);
  sweep(n, [&](int64_t i, auto m) {
    put<Y>(y, i, m, mul(mul(get<X>(x, i, m), scale), get<F32>(gain, i, m)));
  });
  return inv;
}

template <class X, class D>
void rms_norm_backward_row(const void* x, const float* gain, float inv, const void* dy, void* dx,
                           bool accum, float* dgain, int64_t n) {
  Vec scale = set1(inv);
  float dot = reduce(n, [&](Vec acc, int64_t i, auto m) {
    Vec t = mul(get<D>(dy, i, m), mul(get<X>(x, i, m), scale));  // dy∘x̂
    if (dgain) put<F32>(dgain, i, m, add(get<F32>(dgain, i, m), t));
    return fma(t, get<F32>(gain, i, m), acc);
  });
  if (!dx) return;
  Vec mean = set1(dot / (float)n * inv);  // x̂·mean = x·(inv·mean)
  sweep(n, [&](int64_t i, auto m) {
    Vec g = mul(get<D>(dy, i, m), get<F32>(gain, i, m));
    Vec d = mul(scale, sub(g, mul(get<X>(x, i, m), mean)));
    put<X>(dx, i, m, accum ? add(get<X>(dx, i, m), d) : d);
  });
}

// Pairs of lanes (2i, 2i+1): exchange; load n/2 floats and repeat each; a·b - c in even lanes and
// a·b + c in odd ones.
#ifdef __AVX512F__
inline Vec swap_pairs(Vec v) { return _mm512_permute_ps(v, 0xB1); }
inline Vec load_twice(const float* p, int n) {
  Vec v = _mm512_maskz_loadu_ps((__mmask16)((1u << (n / 2)) - 1), p);
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                               v);
}
inline Vec fma_sub_add(Vec a, Vec b, Vec c) { return _mm512_fmaddsub_ps(a, b, c); }
#else
inline Vec swap_pairs(Vec v) { return _mm256_permute_ps(v, 0xB1); }
inline Vec load_twice(const float* p, int n) {
  return _mm256_permutevar8x32_ps(load_part(p, n / 2), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
inline Vec fma_sub_add(Vec a, Vec b, Vec c) { return _mm256_fmaddsub_ps(a, b, c); }
#endif
inline int lanes(Full) { return kLanes; }
inline int lanes(Part m) { return m.n; }

// (a, b) → (a·cos - b·sin, a·sin + b·cos).
template <class T>
void rope_head(const void* x, const float* cos, const float* sin, int rotated, bool interleaved,
               bool inverse, void* y, int64_t n, bool accum) {
  using Element = typename T::Element;
  int64_t kept = n - rotated;
  if (kept > 0) copy_row<T, T>(x, y, kept, accum);
  const void* from = (const Element*)x + kept;
  void* to = (Element*)y + kept;
  Vec sign = set1(inverse ? -1.0f : 1.0f);
  if (interleaved) {
    sweep(rotated, [&](int64_t i, auto m) {
      Vec v = get<T>(from, i, m), c = load_twice(cos + i / 2, lanes(m)),
          s = mul(sign, load_twice(sin + i / 2, lanes(m)));
      put<T>(to, i, m, add(get_if<T>(accum, to, i, m), fma_sub_add(v, c, mul(swap_pairs(v), s))));
    });
    return;
  }
  int64_t half = rotated / 2;
  sweep(half, [&](int64_t i, auto m) {
    Vec a = get<T>(from, i, m), b = get<T>(from, i + half, m);
    Vec c = get<F32>(cos, i, m), s = mul(sign, get<F32>(sin, i, m));
    Vec first = add(get_if<T>(accum, to, i, m), fma(a, c, sub(zero(), mul(b, s))));
    Vec second = add(get_if<T>(accum, to, i + half, m), fma(b, c, mul(a, s)));
    put<T>(to, i, m, first);
    put<T>(to, i + half, m, second);
  });
}
