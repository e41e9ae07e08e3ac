#include "formats/gguf_export.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "base/threads.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using Transform = GgufTransform;

// Values that are encoded between two calls of the sink.
constexpr int64_t kChunkValues = int64_t{4} << 20;

// Rows of one of the checkpoint's tensors as float32; FP8 with its block scales.
class SourceRows {
 public:
  SourceRows(const CheckpointWeights& weights, const Fp8Config& fp8, const std::string& name,
             const std::vector<int64_t>& shape)
      : entry_(&weights.at(name)), fp8_(fp8) {
    // The only blocks there are, whether or not config.json says so.
    if (fp8_.block_rows == 0) fp8_.block_rows = fp8_.block_cols = kFp8Block;
    if (entry_->shape != shape) {
      throw Error(weights.where(),
                  fmt::format("tensor {} has shape [{}], the config wants [{}]", name,
                              fmt::join(entry_->shape, ", "), fmt::join(shape, ", ")),
                  "config.json and weights belong to different models");
    }
    if (entry_->dtype == DType::kF8E4M3) {
      scale_ = &weights.at(name + "_scale_inv");
      int64_t rows = shape[0], cols = shape.back();
      bool fits =
          shape.size() == 2 && scale_->dtype == DType::kF32 &&
          scale_->shape == std::vector<int64_t>{(rows + fp8_.block_rows - 1) / fp8_.block_rows,
                                                (cols + fp8_.block_cols - 1) / fp8_.block_cols};
      if (!fits)
        throw Error(weights.where(),
                    fmt::format("tensor {}_scale_inv does not fit its weight", name),
                    "the checkpoint is damaged");
    } else if (!find_quant_format(entry_->dtype) && entry_->dtype != DType::kF64) {
      throw Error(weights.where(),
                  fmt::format("tensor {} of type {} is no weight", name, wels::name(entry_->dtype)),
                  "the checkpoint is damaged");
    }
  }
  const TensorEntry& entry() const { return *entry_; }
  int64_t cols() const { return entry_->cols(); }
  int64_t rows() const { return entry_->elements() / cols(); }
  const uint8_t* raw(int64_t row) const {
    return entry_->data.data() + row * row_bytes(entry_->dtype, cols());
  }
  void read(int64_t row, float* out) const {
    int64_t n = cols();
    const uint8_t* p = raw(row);
    if (scale_) {
      std::vector<float> scales(static_cast<size_t>(scale_->cols()));
      std::memcpy(scales.data(), scale_->data.data() + row / fp8_.block_rows * scale_->cols() * 4,
                  scales.size() * 4);
      fp8_dequantise_blocks(p, scales.data(), 1, n, fp8_.block_rows, fp8_.block_cols, out);
    } else if (entry_->dtype == DType::kF64) {
      for (int64_t i = 0; i < n; ++i) {
        double x;
        std::memcpy(&x, p + 8 * i, 8);
        out[i] = static_cast<float>(x);
      }
    } else {
      find_quant_format(entry_->dtype)->decode(p, out, n);
    }
  }

 private:
  const TensorEntry* entry_;
  const TensorEntry* scale_ = nullptr;
  Fp8Config fp8_;
};

// Rows of a tensor of the file, made from the checkpoint's. Reading is safe from many threads.
class TensorRows {
 public:
  TensorRows(const GgufTensorPlan& t, const ModelConfig& c, const CheckpointWeights& weights,
             const ColumnImportance* importance)
      : t_(t), c_(c), importance_(importance) {
    if (t.transform == Transform::kRopeFactors) return;
    bool stack = t.transform == Transform::kStack;
    std::vector<int64_t> shape = t.shape;
    if (stack) shape.erase(shape.begin());
    int64_t width = c.qk_nope_head_dim + c.v_head_dim;
    if (of_kv_b()) {
      shape = {t.heads * width, c.kv_lora_rank};
      half_ = weights.find_half(t.name);
    }
    for (int64_t i = 0; i < (stack ? t.shape[0] : 1); ++i)
      sources_.emplace_back(weights, c.fp8, gguf_source_name(t, i), shape);
  }
  int64_t cols() const { return t_.shape.back(); }
  int64_t rows() const {
    int64_t n = 1;
    for (int64_t s : t_.shape) n *= s;
    return n / cols();
  }
  // The keys lie transposed: their source is decoded as a whole, once, before rows are read.
  void begin() {
    if (t_.transform != Transform::kKeysOfKvB) return;
    const SourceRows& from = sources_[0];
    whole_.resize(static_cast<size_t>(from.rows() * from.cols()));
    parallel_for(from.rows(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) from.read(r, whole_.data() + r * from.cols());
    });
  }
  void end() { whole_ = {}; }

  void read(int64_t row, float* out) const {
    if (t_.transform == Transform::kRopeFactors) {
      std::vector<float> factors = gguf_rope_factors(c_);
      std::copy(factors.begin(), factors.end(), out);
    } else if (t_.transform == Transform::kKeysOfKvB) {
      int64_t r = c_.kv_lora_rank, dn = c_.qk_nope_head_dim, head = row / r;
      const float* from = whole_.data() + head * (dn + c_.v_head_dim) * r + row % r;
      for (int64_t i = 0; i < dn; ++i) out[i] = from[i * r];
    } else {
      Place p = place(row);
      sources_[static_cast<size_t>(p.source)].read(p.row, out);
    }
  }
  // Whether every row's bytes are those of a type already.
  bool is_stored_as(DType type) const {
    if (half_) return half_->dtype == type;
    if (sources_.empty() || t_.transform == Transform::kKeysOfKvB) return false;
    return std::all_of(sources_.begin(), sources_.end(),
                       [&](const SourceRows& s) { return s.entry().dtype == type; });
  }
  const uint8_t* raw(int64_t row) const {
    if (half_) return half_->data.data() + row * row_bytes(half_->dtype, cols());
    Place p = place(row);
    return sources_[static_cast<size_t>(p.source)].raw(p.row);
  }
  // Of the columns of a row; nullptr: not known.
  const float* importance(int64_t row) const {
    if (!importance_ || sources_.empty()) return nullptr;
    bool keys = t_.transform == Transform::kKeysOfKvB;
    auto& from = keys ? importance_->queries : importance_->inputs;
    const TensorEntry& e = sources_[keys ? 0 : static_cast<size_t>(place(row).source)].entry();
    auto at = from.find(e.name);
    if (at == from.end()) return nullptr;
    int64_t head = keys ? row / c_.kv_lora_rank : 0;
    CHECK(static_cast<int64_t>(at->second.size()) == (keys ? t_.heads : 1) * cols());
    return at->second.data() + head * cols();
  }

 private:
  struct Place {
    int64_t source, row;
  };
  bool of_kv_b() const {
    return t_.transform == Transform::kKeysOfKvB || t_.transform == Transform::kValuesOfKvB;
  }
  Place place(int64_t row) const {
    if (t_.transform == Transform::kStack) return {row / t_.shape[1], row % t_.shape[1]};
    if (t_.transform == Transform::kPairRows) {  // row 2j + p of a head was row p · half + j
      int64_t width = rows() / t_.heads, in_head = row % width;
      return {0, row - in_head + in_head % 2 * (width / 2) + in_head / 2};
    }
    if (t_.transform == Transform::kValuesOfKvB) {
      int64_t dn = c_.qk_nope_head_dim, dv = c_.v_head_dim;
      return {0, row / dv * (dn + dv) + dn + row % dv};
    }
    return {0, row};
  }

  const GgufTensorPlan& t_;
  const ModelConfig& c_;
  const ColumnImportance* importance_;
  std::vector<SourceRows> sources_;
  const TensorEntry* half_ = nullptr;  // where it lies as the file wants it
  std::vector<float> whole_;
};

struct RowSums {
  double error = 0, squares = 0, weighted_error = 0, weighted_squares = 0;
  int64_t bad_column = -1;   // the first value that is not finite
  int64_t lost_column = -1;  // the first that the type has no room for
};

// The column of the largest value where the type's scales, f16 in most, end below it: divided by a
// power of two it would come back nearer. -1: they do not.
int64_t saturated_column(const QuantFormat& format, const float* x, const float* importance,
                         const float* y, int64_t n) {
  constexpr float kLargestHalf = 65504;
  int64_t i =
      std::max_element(x, x + n, [](float a, float b) { return std::fabs(a) < std::fabs(b); }) - x;
  if (!is_quantised(format.dtype) || std::fabs(x[i]) <= kLargestHalf) return -1;
  int exponent = std::ilogb(x[i]);
  std::vector<float> small(static_cast<size_t>(n));
  for (int64_t j = 0; j < n; ++j) small[static_cast<size_t>(j)] = std::ldexp(x[j], -exponent);
  std::vector<uint8_t> bytes(static_cast<size_t>(row_bytes(format.dtype, n)));
  format.encode(small.data(), importance, bytes.data(), n);
  format.decode(bytes.data(), small.data(), n);
  double possible = std::ldexp(static_cast<double>(small[static_cast<size_t>(i)]), exponent),
         value = static_cast<double>(x[i]), size = std::fabs(value);
  bool nearer =
      std::fabs(value - possible) + 1e-3 * size < std::fabs(value - static_cast<double>(y[i]));
  return nearer ? i : -1;
}

// Encodes a row and measures what is lost.
RowSums encode_row(const QuantFormat& format, const float* x, const float* importance,
                   uint8_t* bytes, int64_t n) {
  RowSums s;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) {
      s.bad_column = i;
      return s;
    }
  }
  format.encode(x, importance, bytes, n);
  std::vector<float> y(static_cast<size_t>(n));
  format.decode(bytes, y.data(), n);
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(y[static_cast<size_t>(i)])) {
      s.lost_column = i;
      return s;
    }
    double v = static_cast<double>(x[i]), e = v - static_cast<double>(y[static_cast<size_t>(i)]);
    s.error += e * e;
    s.squares += v * v;
    if (!importance) continue;
    double w = static_cast<double>(importance[i]);
    s.weighted_error += w * e * e;
    s.weighted_squares += w * v * v;
  }
  s.lost_column = saturated_column(format, x, importance, y.data(), n);
  return s;
}

// Writes a tensor chunk by chunk.
void write_tensor(TensorRows& rows, const CheckpointWeights& weights,
                  const GgufExportOptions& options, const ByteSink& sink,
                  GgufTensorReport& report) {
  DType type = report.type.dtype;
  int64_t n = rows.rows(), cols = rows.cols(), bytes = row_bytes(type, cols);
  int64_t chunk = std::clamp<int64_t>(kChunkValues / std::max<int64_t>(cols, 1), 1, n);
  std::vector<uint8_t> out(static_cast<size_t>(chunk * bytes));
  std::vector<RowSums> sums(static_cast<size_t>(chunk));
  // Bytes may be copied where no encoder is needed to be sure that the values are finite.
  report.copied = is_quantised(type) && rows.is_stored_as(type);
  if (!report.copied) rows.begin();
  for (int64_t begin = 0; begin < n; begin += chunk) {
    int64_t count = std::min(chunk, n - begin);
    parallel_for(count, 1, [&](int64_t from, int64_t to) {
      std::vector<float> row(static_cast<size_t>(cols));
      for (int64_t r = from; r < to; ++r) {
        uint8_t* to_bytes = out.data() + r * bytes;
        if (report.copied) {
          std::memcpy(to_bytes, rows.raw(begin + r), static_cast<size_t>(bytes));
          continue;
        }
        rows.read(begin + r, row.data());
        sums[static_cast<size_t>(r)] = encode_row(*find_quant_format(type), row.data(),
                                                  rows.importance(begin + r), to_bytes, cols);
      }
    });
    for (int64_t r = 0; r < count; ++r) {
      const RowSums& s = sums[static_cast<size_t>(r)];
      if (s.bad_column >= 0) {
        throw Error(weights.where(),
                    fmt::format("tensor {}: value [{}, {}] is not finite", report.name, begin + r,
                                s.bad_column),
                    "the checkpoint is damaged; use another copy or an earlier one");
      }
      if (s.lost_column >= 0) {
        throw Error(weights.where(),
                    fmt::format("tensor {}: value [{}, {}] is too large for {}", report.name,
                                begin + r, s.lost_column, name(type)),
                    "bf16 and f32 hold every value");
      }
      report.error += s.error;
      report.squares += s.squares;
      report.weighted_error += s.weighted_error;
      report.weighted_squares += s.weighted_squares;
    }
    sink(out.data(), static_cast<size_t>(count * bytes));
    if (options.progress) options.progress(count * cols);
  }
  rows.end();
  report.values = n * cols;
  report.bytes = n * bytes;
}

}  // namespace

CheckpointWeights::CheckpointWeights(const SafetensorsReader& weights)
    : where_(weights.path()), tensors_(weights.tensors()) {
  for (const TensorEntry& e : tensors_) by_name_.emplace(e.name, &e);
}
CheckpointWeights::CheckpointWeights(const GgufCheckpoint& file)
    : where_(file.content().where), tensors_(file.tensors()) {
  if (!file.content().find_tensor("blk.0.attn_kv_b.weight")) split_ = &file.content();
  for (const TensorEntry& e : tensors_) by_name_.emplace(e.name, &e);
}

const TensorEntry* CheckpointWeights::find(const std::string& name) const {
  auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : at->second;
}
const TensorEntry* CheckpointWeights::find_half(const std::string& gguf_name) const {
  return split_ ? split_->find_tensor(gguf_name) : nullptr;
}
const TensorEntry& CheckpointWeights::at(const std::string& name) const {
  if (const TensorEntry* e = find(name)) return *e;
  throw Error(where_, fmt::format("tensor {} is missing", name),
              "the checkpoint does not fit its config.json");
}

int64_t GgufExportPlan::values() const {
  int64_t sum = 0;
  for (const GgufTensorPlan& t : tensors) {
    int64_t n = 1;
    for (int64_t s : t.shape) n *= s;
    sum += n;
  }
  return sum;
}

GgufExportPlan plan_gguf_export(const ModelConfig& cfg, const CheckpointWeights& weights,
                                const GgufExportOptions& options) {
  GgufExportPlan plan{gguf_tensor_plan(cfg, options.include_mtp), {}};
  for (const GgufTensorPlan& t : plan.tensors) TensorRows(t, cfg, weights, nullptr);
  plan.types = choose_types(cfg, plan.tensors, options.dtype, options.choices);
  return plan;
}

GgufExport export_gguf(const std::string& path, const ModelConfig& cfg,
                       const CheckpointWeights& weights, const GgufTokenizer* tokenizer,
                       const GgufExportOptions& options) {
  const QuantMix* mix = find_quant_mix(options.dtype);
  CHECK(mix != nullptr);
  GgufMetadata metadata =
      gguf_metadata(cfg, tokenizer, {options.name, mix->file_type, options.include_mtp});
  GgufExportPlan plan = plan_gguf_export(cfg, weights, options);
  GgufExport done;
  done.tensors.resize(plan.tensors.size());
  std::vector<TensorSource> sources;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const GgufTensorPlan& t = plan.tensors[i];
    done.tensors[i].name = t.name;
    done.tensors[i].type = plan.types[i];
    sources.push_back(
        {t.name, plan.types[i].dtype, t.shape,
         [&t, &cfg, &weights, &options, &report = done.tensors[i]](const ByteSink& sink) {
           TensorRows rows(t, cfg, weights, options.importance);
           write_tensor(rows, weights, options, sink, report);
         }});
  }
  done.bytes = write_gguf(path, metadata, sources);
  return done;
}

}  // namespace wels
