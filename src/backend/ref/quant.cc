// Products of rows rounded to int8 with quantised weights: the definition in device.h, in plain
// loops. In f32 every operation is the one that fast devices do, so that they have the same bits;
// in double the rounding of x is that of f32, and the sums are exact enough to hold f32's against.
#include <cmath>
#include <limits>

#include "backend/ref/ref_device.h"
#include "base/threads.h"
#include "tensor/quant_codes.h"

namespace wels {
namespace {

struct RoundedRow {
  std::vector<int> q;
  std::vector<float> scale;  // per 32 columns
};

template <class R>
RoundedRow round_row(const R* x, int64_t n) {
  RoundedRow out;
  for (int64_t b = 0; b < n; b += 32) {
    float largest = 0;
    bool finite = true;
    for (int64_t c = b; c < b + 32; ++c) {
      float v = std::fabs(static_cast<float>(x[c]));
      finite = finite && std::isfinite(v);
      if (v > largest) largest = v;
    }
    float scale = 0, inverse = 0;
    if (!finite) scale = std::numeric_limits<float>::quiet_NaN();
    if (finite && largest >= 0x1p-100f) {
      scale = largest / 127;
      inverse = 1 / scale;
    }
    out.scale.push_back(scale);
    for (int64_t c = b; c < b + 32; ++c) {
      out.q.push_back(finite ? static_cast<int>(std::nearbyint(static_cast<float>(x[c]) * inverse))
                             : 0);
    }
  }
  return out;
}

// One row of the weight: codes less their offset, and what scales them.
template <class R>
struct SplitRow {
  std::vector<int> code;
  std::vector<R> scale, min;  // per group
};

template <class R>
SplitRow<R> split_row(const Tensor& w, int64_t row, const QuantSplit& split) {
  SplitRow<R> out;
  const DTypeInfo& type = info(w.dtype);
  QuantCodes c;
  for (int64_t b = 0; b < w.cols / type.block; ++b) {
    split.split(w.row_raw(row) + b * type.bytes, c);
    for (int i = 0; i < type.block; ++i) out.code.push_back(c.code[i] - split.offset);
    for (int i = 0; i < type.block / split.group; ++i) {
      out.scale.push_back(static_cast<R>(c.scale[i]));
      out.min.push_back(static_cast<R>(c.min[i]));
    }
  }
  return out;
}

template <class R>
R product_of(const RoundedRow& x, const SplitRow<R>& w, const QuantSplit& split) {
  const int groups = 32 / split.group;
  R sum = 0;
  for (size_t b = 0; b < x.scale.size(); ++b) {
    R dot[2] = {}, q_sum[2] = {};
    for (int j = 0; j < groups; ++j) {
      int whole = 0, of_q = 0;
      for (int i = 0; i < split.group; ++i) {
        size_t c = b * 32 + static_cast<size_t>(j * split.group + i);
        whole += x.q[c] * w.code[c];
        of_q += x.q[c];
      }
      dot[j] = static_cast<R>(whole);
      q_sum[j] = static_cast<R>(of_q);
    }
    const R *s = &w.scale[b * static_cast<size_t>(groups)],
            *m = &w.min[b * static_cast<size_t>(groups)];
    R part = s[0] * dot[0];
    if (groups == 2) part = std::fma(s[1], dot[1], part);
    for (int j = 0; j < groups && split.has_min; ++j) part = std::fma(m[j], q_sum[j], part);
    sum = std::fma(part, static_cast<R>(x.scale[b]), sum);
  }
  return sum;
}

}  // namespace

template <class R>
Mat<R> quant_product(const Mat<R>& x, const Tensor& w) {
  const QuantSplit* split = find_quant_split(w.dtype);
  CHECK(split != nullptr);
  CHECK(x.cols == w.cols);
  std::vector<RoundedRow> rows;
  for (int64_t i = 0; i < x.rows; ++i) rows.push_back(round_row(x.row(i), x.cols));
  Mat<R> y(x.rows, w.rows);
  parallel_for(w.rows, rows_per_thread(x.rows * x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      SplitRow<R> right = split_row<R>(w, j, *split);
      for (int64_t i = 0; i < x.rows; ++i)
        y.row(i)[j] = product_of(rows[static_cast<size_t>(i)], right, *split);
    }
  });
  return y;
}

template Mat<float> quant_product(const Mat<float>&, const Tensor&);
template Mat<double> quant_product(const Mat<double>&, const Tensor&);

}  // namespace wels
