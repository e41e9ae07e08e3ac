// Copies, sums of rows, the activation.

template <class X, class Y>
void copy_row(const void* x, void* y, int64_t n, bool accum) {
  if (accum) {
    sweep(n, [&](int64_t i, auto m) { put<Y>(y, i, m, add(get<Y>(y, i, m), get<X>(x, i, m))); });
  } else {
    sweep(n, [&](int64_t i, auto m) { put<Y>(y, i, m, get<X>(x, i, m)); });
  }
}

template <class X>
void to_q8_0_row(const void* x, void* blocks, int64_t n) {
  encode_q8(n, (BlockQ8*)blocks, [&](long i, int lanes) {
    return lanes == kLanes ? get<X>(x, i, Full{}) : get<X>(x, i, Part{lanes});
  });
}

template <class Y>
void from_q8_0_row(const void* blocks, void* y, int64_t n) {
  decode_q8((const BlockQ8*)blocks, n, [&](long i, Vec v, int lanes) {
    lanes == kLanes ? put<Y>(y, i, Full{}, v) : put<Y>(y, i, Part{lanes}, v);
  });
}

template <class A, class B>
void add_row(const void* a, const void* b, void* y, int64_t n) {
  sweep(n, [&](int64_t i, auto m) { put<A>(y, i, m, add(get<A>(a, i, m), get<B>(b, i, m))); });
}

template <class X, class Y>
void gather_sum_row(const void* x, int64_t row_bytes, const int32_t* index, int64_t k, void* y,
                    int64_t n, bool accum) {
  sweep(n, [&](int64_t i, auto m) {
    Vec s = zero();
    for (int64_t j = 0; j < k; ++j) {
      if (index[j] >= 0) s = add(s, get<X>((const char*)x + index[j] * row_bytes, i, m));
    }
    put<Y>(y, i, m, accum ? add(get<Y>(y, i, m), s) : s);
  });
}

template <class T>
void swiglu_row(const void* gate, const void* up, void* y, int64_t n) {
  sweep(n, [&](int64_t i, auto m) {
    Vec g = get<T>(gate, i, m);
    put<T>(y, i, m, mul(mul(g, sigmoid(g)), get<T>(up, i, m)));
  });
}

// silu(g) = g·σ(g), silu'(g) = σ(g)·(1 + g·(1 - σ(g))).
template <class T>
void swiglu_backward_row(const void* gate, const void* up, const void* dy, void* dgate, void* dup,
                         int64_t n) {
  Vec one = set1(1.0f);
  sweep(n, [&](int64_t i, auto m) {
    Vec g = get<T>(gate, i, m), u = get<T>(up, i, m), d = get<T>(dy, i, m);
    Vec sigma = sigmoid(g);
    put<T>(dgate, i, m, mul(mul(mul(d, u), sigma), fma(g, sub(one, sigma), one)));
    put<T>(dup, i, m, mul(d, mul(g, sigma)));
  });
}
