// Tensors of any dtype to dense matrices of R and back.
#include <algorithm>

#include "backend/ref/ref_device.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"

namespace wels {
namespace {

template <class R>
R load(const Tensor& t, int64_t r, int64_t c) {
  const uint8_t* row = t.row_raw(r);
  switch (t.dtype) {
    case DType::kF64:
      return static_cast<R>(reinterpret_cast<const double*>(row)[c]);
    case DType::kF32:
      return static_cast<R>(reinterpret_cast<const float*>(row)[c]);
    case DType::kBF16:
      return static_cast<R>(to_float(reinterpret_cast<const bf16*>(row)[c]));
    case DType::kF16:
      return static_cast<R>(half_to_float(reinterpret_cast<const uint16_t*>(row)[c]));
    case DType::kF8E4M3:
      return static_cast<R>(fp8_to_float(row[c]));
    default:
      CHECK(t.dtype == DType::kF32);
  }
  return R(0);
}

template <class R>
void store(const Tensor& t, int64_t r, int64_t c, R value) {
  uint8_t* row = t.row_raw(r);
  switch (t.dtype) {
    case DType::kF64:
      reinterpret_cast<double*>(row)[c] = static_cast<double>(value);
      return;
    case DType::kF32:
      reinterpret_cast<float*>(row)[c] = static_cast<float>(value);
      return;
    case DType::kBF16:
      reinterpret_cast<bf16*>(row)[c] = to_bf16(static_cast<float>(value));
      return;
    default:
      CHECK(t.dtype == DType::kF32);
  }
}

}  // namespace

template <class R>
Mat<R> read(const Tensor& t) {
  Mat<R> m(t.rows, t.cols);
  if (is_quantised(t.dtype)) {
    const QuantFormat* format = find_quant_format(t.dtype);
    CHECK(format != nullptr);
    std::vector<float> values(static_cast<size_t>(t.cols));
    for (int64_t r = 0; r < t.rows; ++r) {
      format->decode(t.row_raw(r), values.data(), t.cols);
      std::copy(values.begin(), values.end(), m.row(r));
    }
    return m;
  }
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t c = 0; c < t.cols; ++c) m.row(r)[c] = load<R>(t, r, c);
  }
  return m;
}

template <class R>
void write(const Mat<R>& m, Tensor t, Accum accum) {
  CHECK(m.rows == t.rows);
  CHECK(m.cols == t.cols);
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t c = 0; c < t.cols; ++c) {
      store<R>(t, r, c, accum == Accum::kAdd ? load<R>(t, r, c) + m.row(r)[c] : m.row(r)[c]);
    }
  }
}

template <class R>
Mat<R> read_weight(const Weight& w, int64_t e) {
  const Tensor& value = w.value[static_cast<size_t>(e)];
  Mat<R> m = read<R>(value);
  if (value.dtype == DType::kF8E4M3) {
    Mat<R> scale = read<R>(w.scale[static_cast<size_t>(e)]);
    for (int64_t r = 0; r < m.rows; ++r) {
      for (int64_t c = 0; c < m.cols; ++c) m.row(r)[c] *= scale.row(r / kFp8Block)[c / kFp8Block];
    }
  }
  return m;
}

template Mat<float> read<float>(const Tensor&);
template Mat<double> read<double>(const Tensor&);
template void write<float>(const Mat<float>&, Tensor, Accum);
template void write<double>(const Mat<double>&, Tensor, Accum);
template Mat<float> read_weight<float>(const Weight&, int64_t);
template Mat<double> read_weight<double>(const Weight&, int64_t);

}  // namespace wels
