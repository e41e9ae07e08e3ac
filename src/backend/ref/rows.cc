// Ops on rows: copies, gathers, embedding, RMSNorm, RoPE.
#include <algorithm>
#include <cstring>

#include "backend/ref/ref_device.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"

namespace wels {

template <class R>
void RefDevice<R>::copy(const Tensor& src, Tensor dst, Accum accum) {
  write(read<R>(src), dst, accum);
}

template <class R>
void RefDevice<R>::zero(Tensor t) {
  for (int64_t r = 0; r < t.rows; ++r)
    std::memset(t.row_raw(r), 0, static_cast<size_t>(row_bytes(t.dtype, t.cols)));
}

template <class R>
void RefDevice<R>::gather_rows(const Tensor& x, const Tensor& index, Tensor y) {
  CHECK(index.size() == y.rows);
  size_t bytes = static_cast<size_t>(row_bytes(y.dtype, y.cols));
  for (int64_t i = 0; i < y.rows; ++i) {
    int32_t from = static_cast<const int32_t*>(index.data)[i];
    if (from < 0) {
      std::memset(y.row_raw(i), 0, bytes);
    } else if (x.dtype != y.dtype) {
      write(read<R>(x.row_range(from, 1)), y.row_range(i, 1));
    } else {
      std::memcpy(y.row_raw(i), x.row_raw(from), bytes);
    }
  }
}

namespace {

// n values as blocks of Q8_0, as device.h says.
template <class R>
void write_q8_0(const R* x, int64_t n, uint8_t* block) {
  constexpr int64_t kBlock = info(DType::kQ8_0).block;
  for (int64_t begin = 0; begin < n; begin += kBlock, block += info(DType::kQ8_0).bytes) {
    int64_t count = std::min(kBlock, n - begin);
    float largest = 0, poison = 0;
    for (int64_t i = 0; i < count; ++i) {
      float v = static_cast<float>(x[begin + i]);
      largest = std::max(largest, std::fabs(v));
      poison += v * 0.0f;
    }
    uint16_t half = float_to_half(largest / 127.0f);
    float d = half_to_float(half);
    bool whole = std::isfinite(d) && poison == 0.0f;
    if (!whole) half = 0x7e00;
    float inverse = whole && d > 0 ? 1.0f / d : 0.0f;
    std::memcpy(block, &half, sizeof(half));
    for (int64_t i = 0; i < kBlock; ++i) {
      float q = i < count && inverse > 0 ? static_cast<float>(x[begin + i]) * inverse : 0.0f;
      block[2 + i] =
          static_cast<uint8_t>(static_cast<int8_t>(std::clamp(std::nearbyint(q), -127.0f, 127.0f)));
    }
  }
}

}  // namespace

template <class R>
void RefDevice<R>::scatter_rows(const Tensor& x, const Tensor& index, Tensor y) {
  CHECK(index.size() == x.rows);
  bool blocks = y.dtype == DType::kQ8_0 && x.dtype != y.dtype;
  CHECK(y.cols == (blocks ? (x.cols + 31) / 32 * 32 : x.cols));
  for (int64_t i = 0; i < x.rows; ++i) {
    int32_t to = static_cast<const int32_t*>(index.data)[i];
    if (to < 0) continue;
    if (blocks) {
      write_q8_0(read<R>(x.row_range(i, 1)).row(0), x.cols, y.row_raw(to));
    } else if (x.dtype != y.dtype) {
      write(read<R>(x.row_range(i, 1)), y.row_range(to, 1));
    } else {
      std::memcpy(y.row_raw(to), x.row_raw(i), static_cast<size_t>(row_bytes(x.dtype, x.cols)));
    }
  }
}

template <class R>
void RefDevice<R>::gather_sum(const Tensor& x, const Tensor& index, Tensor y, Accum accum) {
  Mat<R> rows = read<R>(x), out(y.rows, y.cols);
  for (int64_t t = 0; t < y.rows; ++t) {
    for (int64_t j = 0; j < index.cols; ++j) {
      int32_t from = index.row<int32_t>(t)[j];
      if (from < 0) continue;
      for (int64_t c = 0; c < y.cols; ++c) out.row(t)[c] += rows.row(from)[c];
    }
  }
  write(out, y, accum);
}

template <class R>
void RefDevice<R>::embed(const Tensor& ids, const Weight& w, Tensor y) {
  for (int64_t i = 0; i < y.rows; ++i) {
    int64_t id = ids.row<int32_t>(0)[i];
    CHECK(id >= 0 && id < w.rows);
    Weight row;
    row.value = {w.value[0].row_range(id, 1)};
    if (!w.scale.empty()) row.scale = {w.scale[0].row_range(id / kFp8Block, 1)};
    write(read_weight<R>(row), y.row_range(i, 1));
  }
}

template <class R>
void RefDevice<R>::embed_backward(const Tensor& ids, const Tensor& dy, Tensor dw) {
  for (int64_t i = 0; i < dy.rows; ++i) {
    write(read<R>(dy.row_range(i, 1)), dw.row_range(ids.row<int32_t>(0)[i], 1), Accum::kAdd);
  }
}

template <class R>
void RefDevice<R>::rms_norm(const Tensor& x, const Weight& gain, float eps, Tensor y,
                            Tensor inv_rms) {
  Mat<R> in = read<R>(x), g = read_weight<R>(gain), out(y.rows, y.cols), inv(x.rows, 1);
  for (int64_t i = 0; i < x.rows; ++i) {
    R squares = 0;
    for (int64_t c = 0; c < x.cols; ++c) squares += in.row(i)[c] * in.row(i)[c];
    inv.row(i)[0] = R(1) / std::sqrt(squares / static_cast<R>(x.cols) + static_cast<R>(eps));
    for (int64_t c = 0; c < x.cols; ++c) out.row(i)[c] = in.row(i)[c] * inv.row(i)[0] * g.row(0)[c];
  }
  write(out, y);
  if (!inv_rms.empty()) write(inv, inv_rms);
}

// With x̂ = x·inv and g = gain∘dy:  dx = inv·(g - x̂·mean(g∘x̂)),  dgain = sum over rows of dy∘x̂.
template <class R>
void RefDevice<R>::rms_norm_backward(const Tensor& x, const Weight& gain, const Tensor& inv_rms,
                                     const Tensor& dy, Tensor dx, Accum accum, Tensor dgain) {
  Mat<R> in = read<R>(x), g = read_weight<R>(gain), inv = read<R>(inv_rms), d = read<R>(dy);
  Mat<R> out(x.rows, x.cols), dg(1, x.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    R s = inv.row(i)[0], dot = 0;
    for (int64_t c = 0; c < x.cols; ++c) {
      R normed = in.row(i)[c] * s;
      dot += g.row(0)[c] * d.row(i)[c] * normed;
      dg.row(0)[c] += d.row(i)[c] * normed;
    }
    dot /= static_cast<R>(x.cols);
    for (int64_t c = 0; c < x.cols; ++c) {
      out.row(i)[c] = s * (g.row(0)[c] * d.row(i)[c] - in.row(i)[c] * s * dot);
    }
  }
  if (!dx.empty()) write(out, dx, accum);
  if (!dgain.empty()) write(dg, dgain, Accum::kAdd);
}

template <class R>
void RefDevice<R>::rope(const Tensor& x, const Tensor& pos, const Tensor& cos, const Tensor& sin,
                        const RopeParams& p, Tensor y, Accum accum) {
  Mat<R> out = read<R>(x);
  int half = p.rotated / 2;
  for (int64_t i = 0; i < x.rows; ++i) {
    int32_t at = pos.row<int32_t>(0)[i];
    Mat<R> c = read<R>(cos.row_range(at, 1)), s = read<R>(sin.row_range(at, 1));
    for (int h = 0; h < p.heads; ++h) {
      R* v = out.row(i) + static_cast<int64_t>(h) * p.head_dim + p.head_dim - p.rotated;
      for (int j = 0; j < half; ++j) {
        R& a = p.interleaved ? v[2 * j] : v[j];
        R& b = p.interleaved ? v[2 * j + 1] : v[j + half];
        R sn = p.inverse ? -s.v[static_cast<size_t>(j)] : s.v[static_cast<size_t>(j)],
          cs = c.v[static_cast<size_t>(j)];
        R turned = a * cs - b * sn;
        b = a * sn + b * cs;
        a = turned;
      }
    }
  }
  write(out, y, accum);
}

template <class R>
void RefDevice<R>::add(const Tensor& a, const Tensor& b, Tensor y) {
  Mat<R> x = read<R>(a), z = read<R>(b);
  for (size_t i = 0; i < x.v.size(); ++i) x.v[i] += z.v[i];
  write(x, y);
}

template <class R>
void RefDevice<R>::scale(const Tensor& x, float factor, Tensor y, Accum accum) {
  Mat<R> out = read<R>(x);
  for (R& value : out.v) value *= static_cast<R>(factor);
  write(out, y, accum);
}

template <class R>
void RefDevice<R>::column_sum(const Tensor& dy, Tensor db, Accum accum) {
  Mat<R> d = read<R>(dy), out(1, dy.cols);
  for (int64_t i = 0; i < dy.rows; ++i) {
    for (int64_t c = 0; c < dy.cols; ++c) out.row(0)[c] += d.row(i)[c];
  }
  write(out, db, accum);
}

template class RefDevice<float>;
template class RefDevice<double>;

}  // namespace wels
