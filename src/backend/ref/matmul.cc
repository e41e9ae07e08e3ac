// Matrix products. FP8 mode rounds both operands to E4M3 with one scale per 128 elements of the
// contraction (and per 128 rows of a weight), sums each chunk of 128 on its own and adds it scaled:
// V3 §3.3 with promotion every 128.
#include <algorithm>

#include "backend/ref/ref_device.h"
#include "base/threads.h"
#include "tensor/fp8.h"

namespace wels {
namespace {

template <class R>
Mat<R> transpose(const Mat<R>& a) {
  Mat<R> t(a.cols, a.rows);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) t.row(j)[i] = a.row(i)[j];
  }
  return t;
}

// Rounds to E4M3 in blocks of `block_rows` × 128; codes stay in m, scales go to the result
// [ceil(rows/block_rows), ceil(cols/128)].
template <class R>
Mat<R> quantise(Mat<R>& m, int64_t block_rows) {
  Mat<R> scale((m.rows + block_rows - 1) / block_rows, (m.cols + kFp8Block - 1) / kFp8Block);
  for (int64_t br = 0; br < scale.rows; ++br) {
    for (int64_t bc = 0; bc < scale.cols; ++bc) {
      int64_t r1 = std::min(m.rows, (br + 1) * block_rows),
              c1 = std::min<int64_t>(m.cols, (bc + 1) * kFp8Block);
      float amax = 0;
      for (int64_t r = br * block_rows; r < r1; ++r) {
        for (int64_t c = bc * kFp8Block; c < c1; ++c)
          amax = std::max(amax, std::fabs(static_cast<float>(m.row(r)[c])));
      }
      float s = block_rows == 1 ? fp8_activation_scale(amax) : fp8_weight_scale(amax);
      scale.row(br)[bc] = static_cast<R>(s);
      for (int64_t r = br * block_rows; r < r1; ++r) {
        for (int64_t c = bc * kFp8Block; c < c1; ++c) {
          m.row(r)[c] = static_cast<R>(fp8_round(static_cast<float>(m.row(r)[c]), s));
        }
      }
    }
  }
  return scale;
}

// One side of a product, [rows, k]. With a scale: E4M3 values, one scale per block_rows × 128.
template <class R>
struct Operand {
  Mat<R> m, scale;
  int64_t block_rows = 1;
};

template <class R>
Operand<R> activation(Mat<R> m, bool fp8) {
  Operand<R> out{std::move(m), {}, 1};
  if (fp8) out.scale = quantise(out.m, 1);
  return out;
}

// Matrix e of a weight, or its transpose. In FP8 mode a weight that is stored so is used as it is,
// any other is quantised in the same 128 × 128 blocks, which a transpose keeps.
template <class R>
Operand<R> weight(const Weight& w, int64_t e, bool transposed, bool fp8) {
  Operand<R> out{{}, {}, kFp8Block};
  const Tensor& value = w.value[static_cast<size_t>(e)];
  if (fp8 && value.dtype == DType::kF8E4M3) {
    out.m = read<R>(value);
    out.scale = read<R>(w.scale[static_cast<size_t>(e)]);
  } else {
    out.m = read_weight<R>(w, e);
    if (fp8) out.scale = quantise(out.m, kFp8Block);
  }
  if (transposed) {
    out.m = transpose(out.m);
    out.scale = transpose(out.scale);
  }
  return out;
}

// a [m, k] · bᵀ [n, k], in chunks of 128 along k.
template <class R>
Mat<R> product(const Operand<R>& a, const Operand<R>& b) {
  CHECK(a.m.cols == b.m.cols);
  bool fp8 = a.scale.cols > 0;
  Mat<R> y(a.m.rows, b.m.rows);
  parallel_for(a.m.rows, rows_per_thread(b.m.rows * b.m.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < b.m.rows; ++j) {
        R sum = 0;
        for (int64_t k0 = 0; k0 < a.m.cols; k0 += kFp8Block) {
          R part = 0;
          int64_t k1 = std::min<int64_t>(a.m.cols, k0 + kFp8Block);
          for (int64_t k = k0; k < k1; ++k) part += a.m.row(i)[k] * b.m.row(j)[k];
          int64_t block = k0 / kFp8Block;
          sum += fp8 ? part * (a.scale.row(i)[block] * b.scale.row(j / b.block_rows)[block]) : part;
        }
        y.row(i)[j] = sum;
      }
    }
  });
  return y;
}

// x · wᵀ with matrix e of w.
template <class R>
Mat<R> forward(const Tensor& x, const Weight& w, int64_t e, bool fp8) {
  const Tensor& value = w.value[static_cast<size_t>(e)];
  if (is_quantised(value.dtype) && !w.full_precision && !fp8)
    return quant_product(read<R>(x), value);
  return product(activation(read<R>(x), fp8), weight<R>(w, e, false, fp8));
}

// First row and number of rows of matrix e; without offsets: all `rows`.
std::pair<int64_t, int64_t> group(const Tensor& offsets, int64_t e, int64_t rows) {
  if (offsets.empty()) return {0, rows};
  const int32_t* o = offsets.row<int32_t>(0);
  return {o[e], o[e + 1] - o[e]};
}

template <class R>
Mat<R> silu_times(Mat<R> g, const Mat<R>& u) {
  for (size_t i = 0; i < g.v.size(); ++i) g.v[i] = g.v[i] / (R(1) + std::exp(-g.v[i])) * u.v[i];
  return g;
}

}  // namespace

template <class R>
void RefDevice<R>::matmul(const Tensor& x, const Weight& w, const Weight* bias, Tensor y,
                          bool fp8) {
  Mat<R> out = forward<R>(x, w, 0, fp8);
  if (bias) {
    Mat<R> b = read_weight<R>(*bias);
    for (int64_t i = 0; i < out.rows; ++i) {
      for (int64_t j = 0; j < out.cols; ++j) out.row(i)[j] += b.row(0)[j];
    }
  }
  write(out, y);
}

template <class R>
void RefDevice<R>::matmul_dx(const Tensor& dy, const Weight& w, Tensor dx, Accum accum, bool fp8) {
  write(product(activation(read<R>(dy), fp8), weight<R>(w, 0, true, fp8)), dx, accum);
}

template <class R>
void RefDevice<R>::matmul_dw(const Tensor& dy, const Tensor& x, Tensor dw, Accum accum, bool fp8) {
  write(product(activation(transpose(read<R>(dy)), fp8), activation(transpose(read<R>(x)), fp8)),
        dw, accum);
}

template <class R>
void RefDevice<R>::grouped_matmul(const Tensor& x, const Weight& w, const Tensor& offsets, Tensor y,
                                  bool fp8) {
  for (int64_t e = 0; e < w.experts(); ++e) {
    auto [begin, n] = group(offsets, e, x.rows);
    write(forward<R>(x.row_range(begin, n), w, e, fp8), y.row_range(begin, n));
  }
}

template <class R>
void RefDevice<R>::grouped_matmul_dx(const Tensor& dy, const Weight& w, const Tensor& offsets,
                                     Tensor dx, Accum accum, bool fp8) {
  for (int64_t e = 0; e < w.experts(); ++e) {
    auto [begin, n] = group(offsets, e, dy.rows);
    write(product(activation(read<R>(dy.row_range(begin, n)), fp8), weight<R>(w, e, true, fp8)),
          dx.row_range(begin, n), accum);
  }
}

template <class R>
void RefDevice<R>::grouped_matmul_dw(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                     std::span<const Tensor> dw, Accum accum, bool fp8) {
  for (size_t e = 0; e < dw.size(); ++e) {
    auto [begin, n] = group(offsets, static_cast<int64_t>(e), x.rows);
    matmul_dw(dy.row_range(begin, n), x.row_range(begin, n), dw[e], accum, fp8);
  }
}

template <class R>
void RefDevice<R>::swiglu(const Tensor& g, const Tensor& u, Tensor y) {
  Mat<R> a = read<R>(g), b = read<R>(u);
  write(silu_times(std::move(a), b), y);
}

template <class R>
void RefDevice<R>::gated_matmul(const Tensor& x, const Weight& gate, const Weight& up,
                                const Tensor& offsets, Tensor y, Tensor g, Tensor u, bool fp8) {
  auto rounded = [&](const Weight& w, Tensor keep) {
    offsets.empty() ? matmul(x, w, nullptr, y, fp8) : grouped_matmul(x, w, offsets, y, fp8);
    if (!keep.empty()) copy(y, keep, Accum::kSet);
    return read<R>(y);
  };
  Mat<R> a = rounded(gate, g), b = rounded(up, u);
  write(silu_times(std::move(a), b), y);
}

// silu(g) = g·σ(g), silu'(g) = σ(g)·(1 + g·(1 - σ(g))).
template <class R>
void RefDevice<R>::gated_matmul_dx(const Tensor& dy, const Weight& gate, const Weight& up,
                                   const Tensor& offsets, Tensor g, Tensor u, Tensor dx,
                                   Accum accum, bool fp8) {
  Mat<R> a = read<R>(g), b = read<R>(u), d = read<R>(dy);
  for (size_t i = 0; i < a.v.size(); ++i) {
    R sigma = R(1) / (R(1) + std::exp(-a.v[i])), silu = a.v[i] * sigma;
    a.v[i] = d.v[i] * b.v[i] * sigma * (R(1) + a.v[i] * (R(1) - sigma));
    b.v[i] = d.v[i] * silu;
  }
  write(a, g);
  write(b, u);
  for (int64_t e = 0; e < gate.experts() && !dx.empty(); ++e) {
    auto [begin, n] = group(offsets, e, dy.rows);
    auto part = [&, begin = begin, n = n](const Tensor& t, const Weight& w) {
      return product(activation(read<R>(t.row_range(begin, n)), fp8), weight<R>(w, e, true, fp8));
    };
    Mat<R> sum = part(g, gate), other = part(u, up);
    for (size_t i = 0; i < sum.v.size(); ++i) sum.v[i] += other.v[i];
    write(sum, dx.row_range(begin, n), accum);
  }
}

template <class R>
void RefDevice<R>::gated_matmul_dw(const Tensor& dg, const Tensor& du, const Tensor& x,
                                   const Tensor& offsets, std::span<const Tensor> dgate,
                                   std::span<const Tensor> dup, Accum accum, bool fp8) {
  for (size_t e = 0; e < dgate.size(); ++e) {
    auto [begin, n] = group(offsets, static_cast<int64_t>(e), x.rows);
    matmul_dw(dg.row_range(begin, n), x.row_range(begin, n), dgate[e], accum, fp8);
    matmul_dw(du.row_range(begin, n), x.row_range(begin, n), dup[e], accum, fp8);
  }
}

template <class R>
void RefDevice<R>::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                        float alpha, float beta, Tensor c) {
  Mat<R> left = read<R>(a), right = read<R>(b), old = read<R>(c);
  if (transpose_a) left = transpose(left);
  if (!transpose_b) right = transpose(right);
  Mat<R> y = product(activation(std::move(left), false), activation(std::move(right), false));
  for (size_t i = 0; i < y.v.size(); ++i) {
    y.v[i] = static_cast<R>(alpha) * y.v[i] + (beta == 0 ? R(0) : static_cast<R>(beta) * old.v[i]);
  }
  write(y, c);
}

template <class R>
void RefDevice<R>::absorb_query(const Tensor& q, const Weight& kv_b, int heads, int dn, int dr,
                                int dv, Tensor y) {
  Mat<R> in = read<R>(q), w = read_weight<R>(kv_b), out(y.rows, y.cols);
  int64_t r = w.cols;
  for (int64_t i = 0; i < q.rows; ++i) {
    for (int h = 0; h < heads; ++h) {
      const R* from = in.row(i) + static_cast<int64_t>(h) * (dn + dr);
      R* to = out.row(i) + h * (r + dr);
      for (int k = 0; k < dn; ++k) {
        const R* w_uk = w.row(static_cast<int64_t>(h) * (dn + dv) + k);
        for (int64_t j = 0; j < r; ++j) to[j] += from[k] * w_uk[j];
      }
      std::copy_n(from + dn, dr, to + r);
    }
  }
  write(out, y);
}

template <class R>
void RefDevice<R>::absorb_output(const Tensor& x, const Weight& kv_b, int heads, int dn, int dv,
                                 Tensor y) {
  Mat<R> in = read<R>(x), w = read_weight<R>(kv_b), out(y.rows, y.cols);
  int64_t r = w.cols;
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int h = 0; h < heads; ++h) {
      for (int j = 0; j < dv; ++j) {
        const R* w_uv = w.row(static_cast<int64_t>(h) * (dn + dv) + dn + j);
        R sum = 0;
        for (int64_t k = 0; k < r; ++k) sum += w_uv[k] * in.row(i)[h * r + k];
        out.row(i)[static_cast<int64_t>(h) * dv + j] = sum;
      }
    }
  }
  write(out, y);
}

template class RefDevice<float>;
template class RefDevice<double>;

}  // namespace wels
