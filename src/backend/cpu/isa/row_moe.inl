// Routing scores, the choice of the k largest, and the weighted sum of the experts' rows.

template <class T>
void combine_row(const void* x, int64_t row_bytes, const int32_t* slot, const float* weight,
                 int64_t k, const void* extra, void* y, int64_t n) {
  sweep(n, [&](int64_t i, auto m) {
    Vec s = get_if<T>(extra != nullptr, extra, i, m);
    for (int64_t j = 0; j < k; ++j)
      s = fma(set1(weight[j]), get<T>((const char*)x + slot[j] * row_bytes, i, m), s);
    put<T>(y, i, m, s);
  });
}

template <class T>
float combine_backward_row(const void* row, float weight, const void* dy, void* drow, int64_t n) {
  Vec w = set1(weight);
  return reduce(n, [&](Vec acc, int64_t i, auto m) {
    Vec d = get<T>(dy, i, m);
    put<T>(drow, i, m, mul(w, d));
    return fma(d, get<T>(row, i, m), acc);
  });
}

float sum_row(const float* x, int64_t n) {
  return reduce(n, [&](Vec acc, int64_t i, auto m) { return add(acc, get<F32>(x, i, m)); });
}

void scale_row(float a, const float* x, float* y, int64_t n, bool accum) {
  Vec f = set1(a);
  sweep(n, [&](int64_t i, auto m) {
    put<F32>(y, i, m, add(get_if<F32>(accum, y, i, m), mul(f, get<F32>(x, i, m))));
  });
}

void scores_row(const float* logits, int64_t n, bool sigmoid_scores, float* s) {
  if (sigmoid_scores) {
    sweep(n, [&](int64_t i, auto m) { put<F32>(s, i, m, sigmoid(get<F32>(logits, i, m))); });
    return;
  }
  float top = logits[0];
  for (int64_t i = 1; i < n; ++i) top = logits[i] > top ? logits[i] : top;
  Vec shift = set1(top);
  sweep(n, [&](int64_t i, auto m) { put<F32>(s, i, m, exp(sub(get<F32>(logits, i, m), shift))); });
  Vec total = set1(sum_row(s, n));
  sweep(n, [&](int64_t i, auto m) { put<F32>(s, i, m, div(get<F32>(s, i, m), total)); });
}

// One bit per lane: v > limit.
#ifdef __AVX512F__
inline uint32_t above(Vec v, float limit) { return _mm512_cmp_ps_mask(v, set1(limit), _CMP_GT_OQ); }
#else
inline uint32_t above(Vec v, float limit) {
  return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, set1(limit), _CMP_GT_OQ));
}
#endif

// A sorted list of the k best so far; whole vectors that hold nothing better than its last are
// skipped. Only a strictly larger value enters or overtakes, so ties stay in order of index.
void top_k_row(const float* v, int64_t n, int k, int32_t* index, float* best) {
  int have = 0;
  float limit = -__builtin_inff();
  sweep(n, [&](int64_t i, auto m) {
    uint32_t bits = above(get<F32>(v, i, m), limit) & ((1u << lanes(m)) - 1);
    for (; bits != 0; bits &= bits - 1) {
      int32_t at = (int32_t)i + __builtin_ctz(bits);
      float x = v[at];
      if (!(x > limit)) continue;
      int j = have < k ? have++ : k - 1;
      for (; j > 0 && x > best[j - 1]; --j) {
        best[j] = best[j - 1];
        index[j] = index[j - 1];
      }
      best[j] = x;
      index[j] = at;
      if (have == k) limit = best[k - 1];
    }
  });
  // Fewer than k comparable values: the lowest indices that are left.
  for (int32_t e = 0; have < k; ++e) {
    bool taken = false;
    for (int j = 0; j < have; ++j) taken |= index[j] == e;
    if (!taken) index[have++] = e;
  }
}

void balance_backward_row(const float* s, const float* f, int64_t n, float factor,
                          bool sigmoid_scores, float* dlogits) {
  float inv = 1.0f / sum_row(s, n);
  float mean = inv * reduce(n, [&](Vec acc, int64_t i, auto m) {
                 return fma(get<F32>(f, i, m), get<F32>(s, i, m), acc);
               });
  Vec scale = set1(factor * inv), centre = set1(mean), one = set1(1.0f);
  // Softmax: sum(s) = 1, and sum_i s_i·ds_i = 0 by ds's construction, so both cases end in
  // ds·s·(...).
  sweep(n, [&](int64_t i, auto m) {
    Vec p = get<F32>(s, i, m), d = mul(mul(scale, sub(get<F32>(f, i, m), centre)), p);
    if (sigmoid_scores) d = mul(d, sub(one, p));
    put<F32>(dlogits, i, m, add(get<F32>(dlogits, i, m), d));
  });
}
