// How the row kernels walk: whole vectors, then one part of a vector, with the same arithmetic for
// both.

// The element types: `get` widens to f32, `put` rounds to nearest even.
struct F32 {
  using Element = float;
  static Vec get(const float* p) { return load(p); }
  static Vec get(const float* p, int n) { return load_part(p, n); }
  static void put(float* p, Vec v) { store(p, v); }
  static void put(float* p, Vec v, int n) { store_part(p, v, n); }
};
struct B16 {
  using Element = uint16_t;
  static Vec get(const uint16_t* p) { return load_bf16(p); }
  static Vec get(const uint16_t* p, int n) { return load_part_bf16(p, n); }
  static void put(uint16_t* p, Vec v) { store_bf16(p, v); }
  static void put(uint16_t* p, Vec v, int n) { store_part_bf16(p, v, n); }
};

// Which lanes a body works on: all, or the first n.
struct Full {};
struct Part {
  int n;
};

template <class X>
inline Vec get(const void* p, int64_t i, Full) {
  return X::get((const typename X::Element*)p + i);
}
template <class X>
inline Vec get(const void* p, int64_t i, Part m) {
  return X::get((const typename X::Element*)p + i, m.n);
}
template <class X>
inline void put(void* p, int64_t i, Full, Vec v) {
  X::put((typename X::Element*)p + i, v);
}
template <class X>
inline void put(void* p, int64_t i, Part m, Vec v) {
  X::put((typename X::Element*)p + i, v, m.n);
}
// What is at p + i, or zeros.
template <class X, class M>
inline Vec get_if(bool wanted, const void* p, int64_t i, M m) {
  return wanted ? get<X>(p, i, m) : zero();
}

// body(i, lanes) for every vector of [0, n).
template <class Body>
inline void sweep(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if (i < n) body(i, Part{(int)(n - i)});
}

// Sum over [0, n) of what body(acc, i, lanes) adds to acc (nothing in the lanes beyond n). Two
// accumulators, so that an add need not wait for the one before.
template <class Body>
inline float reduce(int64_t n, Body body) {
  Vec a = zero(), b = zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    a = body(a, i, Full{});
    b = body(b, i + kLanes, Full{});
  }
  if (i + kLanes <= n) {
    a = body(a, i, Full{});
    i += kLanes;
  }
  if (i < n) b = body(b, i, Part{(int)(n - i)});
  return sum(add(a, b));
}
