#include "tests/ops/op_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/rng.h"
#include "tensor/float_formats.h"
#include "tests/random_quant.h"

namespace wels {
namespace {

constexpr uint8_t kUntouched = 0xA5;

double round_to(DType dtype, double x) {
  switch (dtype) {
    case DType::kBF16:
      return static_cast<double>(to_float(to_bf16(static_cast<float>(x))));
    case DType::kF16:
      return static_cast<double>(half_to_float(float_to_half(static_cast<float>(x))));
    default:
      return static_cast<double>(static_cast<float>(x));
  }
}

}  // namespace

double element(const Tensor& t, int64_t r, int64_t c) {
  switch (t.dtype) {
    case DType::kF64:
      return t.row<double>(r)[c];
    case DType::kF32:
      return static_cast<double>(t.row<float>(r)[c]);
    case DType::kBF16:
      return static_cast<double>(to_float(t.row<bf16>(r)[c]));
    case DType::kI32:
      return t.row<int32_t>(r)[c];
    default:
      CHECK(t.dtype == DType::kF32);
      return 0;
  }
}

void set_element(const Tensor& t, int64_t r, int64_t c, double value) {
  switch (t.dtype) {
    case DType::kF64:
      t.row<double>(r)[c] = value;
      return;
    case DType::kF32:
      t.row<float>(r)[c] = static_cast<float>(value);
      return;
    case DType::kBF16:
      t.row<bf16>(r)[c] = to_bf16(static_cast<float>(value));
      return;
    case DType::kI32:
      t.row<int32_t>(r)[c] = static_cast<int32_t>(value);
      return;
    case DType::kF16:
      reinterpret_cast<uint16_t*>(t.row_raw(r))[c] = float_to_half(static_cast<float>(value));
      return;
    default:
      CHECK(t.dtype == DType::kF32);
  }
}

std::vector<int64_t> OpRun::count_up(int64_t n) {
  std::vector<int64_t> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = i;
  return out;
}

const std::vector<int64_t>& OpRun::rows(int64_t count) {
  rows_ = options_.all ? count_up(count) : options_.only;
  for (int64_t r : rows_) CHECK(r < count);
  return rows_;
}

Tensor OpRun::make(DType dtype, int64_t rows, int64_t cols) {
  int64_t gap = options_.strided && dtype != DType::kI32 ? 5 : 0, lead = gap ? 3 : 0;
  int64_t element_bytes = row_bytes(dtype, 1), stride = cols + gap;
  Buffer& b = buffers_.emplace_back();
  b.bytes.assign(static_cast<size_t>((rows * stride + lead + 16) * element_bytes), kUntouched);
  b.t = Tensor(b.bytes.data() + lead * element_bytes, dtype, rows, cols, stride);
  return b.t;
}

Tensor OpRun::random(const std::string& name, const std::vector<int64_t>& rows, int64_t cols,
                     double scale, DType stored, DType rounded) {
  Tensor t = make(stored, static_cast<int64_t>(rows.size()), cols);
  for (int64_t r = 0; r < t.rows; ++r) {
    Rng rng(hash_name(name), static_cast<uint64_t>(rows[static_cast<size_t>(r)]));
    for (int64_t c = 0; c < cols; ++c)
      set_element(t, r, c, round_to(rounded, scale * rng.normal()));
  }
  return t;
}

Tensor OpRun::input_rows(const std::string& name, int64_t count, int64_t cols, double scale) {
  return random(name, rows(count), cols, scale, t(), options_.dtype);
}
Tensor OpRun::input(const std::string& name, int64_t rows, int64_t cols, double scale) {
  return random(name, count_up(rows), cols, scale, t(), options_.dtype);
}
Tensor OpRun::input_f32_rows(const std::string& name, int64_t count, int64_t cols, double scale) {
  return random(name, rows(count), cols, scale, f32(), DType::kF32);
}
Tensor OpRun::input_f32(const std::string& name, int64_t rows, int64_t cols, double scale) {
  return random(name, count_up(rows), cols, scale, f32(), DType::kF32);
}

Tensor OpRun::given(const std::vector<double>& values, int64_t rows, int64_t cols, DType dtype) {
  Tensor t = make(dtype, rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i)
    set_element(t, i / cols, i % cols, values[static_cast<size_t>(i)]);
  return t;
}

Tensor OpRun::index(const std::vector<int32_t>& values, int64_t rows, int64_t cols) {
  CHECK(static_cast<int64_t>(values.size()) == rows * cols);
  return given(std::vector<double>(values.begin(), values.end()), rows, cols, DType::kI32);
}

Tensor OpRun::poisoned(const std::string& name, DType dtype, int64_t rows, int64_t cols,
                       Within within, bool by_row) {
  Tensor t = make(dtype, rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c)
      set_element(t, r, c, dtype == DType::kI32 ? -77 : std::nan(""));
  }
  outputs_.push_back({name, t, within, by_row});
  return t;
}

Tensor OpRun::output_rows(const std::string& name, int64_t count, int64_t cols, Within within) {
  return poisoned(name, t(), n(count), cols, within, true);
}
Tensor OpRun::output(const std::string& name, int64_t rows, int64_t cols, Within within) {
  return poisoned(name, t(), rows, cols, within, false);
}
Tensor OpRun::output_f32_rows(const std::string& name, int64_t count, int64_t cols, Within within) {
  return poisoned(name, f32(), n(count), cols, within, true);
}
Tensor OpRun::output_f32(const std::string& name, int64_t rows, int64_t cols, Within within) {
  return poisoned(name, f32(), rows, cols, within, false);
}
Tensor OpRun::output_index(const std::string& name, int64_t rows, int64_t cols, bool by_row) {
  return poisoned(name, DType::kI32, rows, cols, {}, by_row);
}

void OpRun::compare(const std::string& name, const Tensor& t, Within within, bool by_row) {
  outputs_.push_back({name, t, within, by_row});
}

void OpRun::number(const std::string& name, double value, Within within) {
  compare(name, given({value}, 1, 1, DType::kF64), within);
}

Weight& OpRun::weight(const std::string& name, int64_t rows, int64_t cols, double scale,
                      int64_t experts, Storage storage, bool full_precision) {
  bool was_strided = std::exchange(options_.strided, false);  // weights are contiguous
  Weight& w = weights_.emplace_back();
  w.name = name;
  w.rows = rows;
  w.cols = cols;
  w.full_precision = full_precision;
  for (int64_t e = 0; e < experts; ++e) {
    DType rounded = options_.dtype == DType::kBF16 && !full_precision ? DType::kBF16 : DType::kF32;
    std::string of = name + "." + std::to_string(e);
    switch (storage) {
      case Storage::kOwn:
        w.value.push_back(random(of, count_up(rows), cols, scale, f32(), rounded));
        break;
      case Storage::kF32:
        w.value.push_back(random(of, count_up(rows), cols, scale, DType::kF32, rounded));
        break;
      case Storage::kBF16:
        w.value.push_back(random(of, count_up(rows), cols, scale, DType::kBF16, DType::kBF16));
        break;
      case Storage::kF16:
        w.value.push_back(random(of, count_up(rows), cols, scale, DType::kF16, DType::kF16));
        break;
      case Storage::kFp8: {
        Tensor plain = random(of, count_up(rows), cols, scale, DType::kF32, DType::kF32);
        Tensor codes = make(DType::kF8E4M3, rows, cols),
               s = make(DType::kF32, (rows + 127) / 128, (cols + 127) / 128);
        fp8_quantise_blocks(static_cast<const float*>(plain.data), rows, cols, false,
                            static_cast<uint8_t*>(codes.data), static_cast<float*>(s.data));
        w.value.push_back(codes);
        w.scale.push_back(s);
        break;
      }
      default: {
        const DType type = block_type(storage);
        CHECK(cols % info(type).block == 0);
        Buffer& b = buffers_.emplace_back();
        b.bytes.resize(static_cast<size_t>(rows * row_bytes(type, cols)));
        b.t = Tensor(b.bytes.data(), type, rows, cols);
        Rng rng(hash_name(of));
        fill_random_blocks(b.t, rng, scale);
        w.value.push_back(b.t);
      }
    }
  }
  options_.strided = was_strided;
  return w;
}

bool OpRun::intact() const {
  for (const Buffer& b : buffers_) {
    if (is_quantised(b.t.dtype)) continue;
    int64_t bytes = row_bytes(b.t.dtype, 1),
            lead = static_cast<const uint8_t*>(b.t.data) - b.bytes.data();
    for (int64_t i = 0; i < static_cast<int64_t>(b.bytes.size()); ++i) {
      int64_t at = (i - lead) / bytes;
      bool inside = i >= lead && at < b.t.rows * b.t.stride && at % b.t.stride < b.t.cols;
      if (!inside && b.bytes[static_cast<size_t>(i)] != kUntouched) return false;
    }
  }
  return true;
}

std::string difference(const Output& got, const Output& want, DType dtype) {
  const Tensor &a = got.t, &b = want.t;
  CHECK(a.rows == b.rows);
  CHECK(a.cols == b.cols);
  double squares = 0, dot = 0, own = 0;
  int64_t finite = 0;
  for (int64_t r = 0; r < b.rows; ++r) {
    for (int64_t c = 0; c < b.cols; ++c) {
      double x = element(a, r, c), y = element(b, r, c);
      if (a.dtype == DType::kI32 && x != y)
        return fmt::format("{}[{}, {}] is {}, not {}", got.name, r, c, x, y);
      bool same_kind = std::isnan(x) == std::isnan(y) && std::isinf(x) == std::isinf(y) &&
                       (!std::isinf(y) || x == y);
      if (!same_kind) return fmt::format("{}[{}, {}] is {}, not {}", got.name, r, c, x, y);
      if (!std::isfinite(y)) continue;
      squares += y * y;
      own += x * x;
      dot += x * y;
      ++finite;
    }
  }
  double rms = finite ? std::sqrt(squares / static_cast<double>(finite)) : 0;
  double rounding =
      a.dtype == DType::kBF16 ? 0x1.04p-8 : 0x1.04p-24;  // the oracle's value is not rounded
  double mids = dtype == DType::kBF16 ? got.within.mids * 0x1p-8 : 0;
  for (int64_t r = 0; r < b.rows; ++r) {
    double largest = std::max(rms, got.within.terms);
    for (int64_t c = 0; c < b.cols; ++c) {
      double y = std::fabs(element(b, r, c));
      if (std::isfinite(y)) largest = std::max(largest, y);
    }
    for (int64_t c = 0; c < b.cols; ++c) {
      double x = element(a, r, c), y = element(b, r, c);
      if (!std::isfinite(y)) continue;
      double bound = rounding * std::fabs(y) + (got.within.sums * 0x1p-24 + mids) * largest + 1e-37;
      if (!(std::fabs(x - y) <= bound)) {
        return fmt::format("{}[{}, {}] is {}, not {}: off by {:.3g}, allowed {:.3g}", got.name, r,
                           c, x, y, x - y, bound);
      }
    }
  }
  bool cancelled = rms <= got.within.terms * 0x1p-4;  // its direction is the rounding's
  double cosine = squares > 0 && own > 0 && !cancelled ? dot / std::sqrt(squares * own) : 1;
  double least = dtype == DType::kBF16 ? 1 - 1e-4 : 1 - 1e-9;
  if (cosine < least)
    return fmt::format("{}: cosine {}, at least {} expected", got.name, cosine, least);
  return "";
}

std::string bit_difference(const Output& a, int64_t row_a, const Output& b, int64_t row_b) {
  size_t bytes = static_cast<size_t>(row_bytes(a.t.dtype, a.t.cols));
  if (std::memcmp(a.t.row_raw(row_a), b.t.row_raw(row_b), bytes) == 0) return "";
  for (int64_t c = 0; c < a.t.cols; ++c) {
    double x = element(a.t, row_a, c), y = element(b.t, row_b, c);
    if (x != y)
      return fmt::format("{}: column {} of row {} is {:.9g}, but {:.9g} elsewhere", a.name, c,
                         row_a, x, y);
  }
  return fmt::format("{}: row {} differs in the sign of a zero or the bits of a NaN", a.name,
                     row_a);
}

std::vector<OpCase> all_ops() {
  std::vector<OpCase> out;
  for (auto family : {row_ops, matmul_ops, attend_ops, moe_ops}) {
    for (OpCase& c : family()) out.push_back(std::move(c));
  }
  return out;
}

}  // namespace wels
