#include "model/checkpoint.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "formats/hf_config.h"
#include "tensor/fp8.h"

namespace wels {
namespace {

std::string expert_name(const std::string& pattern, int64_t e) {
  size_t at = pattern.find("{}");
  return at == std::string::npos ? pattern : std::string(pattern).replace(at, 2, std::to_string(e));
}

bool is_vector(const WeightSpec& s) {
  return s.kind != WeightKind::kMatrix && s.kind != WeightKind::kEmbedding;
}

double element(const Tensor& t, int64_t r, int64_t c) {
  const uint8_t* row = t.row_raw(r);
  switch (t.dtype) {
    case DType::kF64:
      return reinterpret_cast<const double*>(row)[c];
    case DType::kF32:
      return static_cast<double>(reinterpret_cast<const float*>(row)[c]);
    case DType::kBF16:
      return static_cast<double>(to_float(reinterpret_cast<const bf16*>(row)[c]));
    case DType::kF16: {
      _Float16 h;
      std::memcpy(&h, row + 2 * c, 2);
      return static_cast<double>(h);
    }
    case DType::kF8E4M3:
      return static_cast<double>(fp8_to_float(row[c]));
    default:
      return NAN;
  }
}

bool is_float(DType t) {
  return t == DType::kF64 || t == DType::kF32 || t == DType::kF16 || t == DType::kBF16 ||
         t == DType::kF8E4M3;
}

// dst = src · scale (FP8: one per 128 × 128 block), refusing what is not finite.
void convert(const Tensor& src, const Tensor& scale, Tensor dst, const std::string& where) {
  for (int64_t r = 0; r < src.rows; ++r) {
    for (int64_t c = 0; c < src.cols; ++c) {
      double x = element(src, r, c);
      if (!scale.empty()) x *= element(scale, r / kFp8Block, c / kFp8Block);
      if (!std::isfinite(x)) {
        throw Error(where, fmt::format("value [{}, {}] is not finite", r, c),
                    "the checkpoint is damaged; use an earlier one");
      }
      if (dst.dtype == DType::kF64) {
        dst.row<double>(r)[c] = x;
      } else {
        dst.row<float>(r)[c] = static_cast<float>(x);
      }
    }
  }
}

// The tensor of that name, which must have that shape.
const TensorEntry& require(const SafetensorsReader& reader, const std::string& name,
                           const std::vector<int64_t>& shape) {
  const TensorEntry& e = reader.at(name);
  if (e.shape != shape) {
    throw Error(reader.path(),
                fmt::format("tensor {} has shape [{}], config.json asks for [{}]", name,
                            fmt::join(e.shape, ", "), fmt::join(shape, ", ")),
                "use the config.json of this checkpoint");
  }
  return e;
}

// Tensors that a checkpoint may hold beyond the config's weights.
bool is_derived(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with(".embed_tokens.weight") ||
         name.ends_with("shared_head.head.weight") || name == "lm_head.weight";
}

// A weight as it goes to the file: rows converted from f32 where the types differ.
TensorSource converted(std::string name, const Tensor& t, DType type, bool vector) {
  std::vector<int64_t> shape =
      vector ? std::vector<int64_t>{t.cols} : std::vector<int64_t>{t.rows, t.cols};
  return {std::move(name), type, shape, [t, type](const ByteSink& sink) {
            CHECK(t.dtype == type || (t.dtype == DType::kF32 && type == DType::kBF16));
            std::vector<bf16> row(static_cast<size_t>(t.cols));
            for (int64_t r = 0; r < t.rows; ++r) {
              if (t.dtype == type) {
                sink(t.row_raw(r), static_cast<size_t>(row_bytes(type, t.cols)));
                continue;
              }
              for (int64_t c = 0; c < t.cols; ++c)
                row[static_cast<size_t>(c)] = to_bf16(t.row<float>(r)[c]);
              sink(row.data(), row.size() * sizeof(bf16));
            }
          }};
}

}  // namespace

void load_weights(Model& model, const std::shared_ptr<SafetensorsReader>& reader,
                  WeightStorage storage) {
  std::set<std::string> used;
  if (storage == WeightStorage::kF32 || storage == WeightStorage::kF64) {
    model.allocate(storage == WeightStorage::kF64 ? DType::kF64 : DType::kF32);
  }
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    if (storage == WeightStorage::kMapped) {
      w.value.clear();
      w.scale.clear();
    }
    for (int64_t e = 0; e < s.experts; ++e) {
      std::string name = expert_name(s.name, e);
      std::vector<int64_t> shape =
          is_vector(s) ? std::vector<int64_t>{s.cols} : std::vector<int64_t>{s.rows, s.cols};
      const TensorEntry& entry = require(*reader, name, shape);
      if (!is_float(entry.dtype)) {
        throw Error(reader->path(), fmt::format("tensor {} is {}", name, wels::name(entry.dtype)),
                    "weights must be floating point");
      }
      used.insert(name);
      Tensor scale;
      if (entry.dtype == DType::kF8E4M3) {
        std::vector<int64_t> blocks{(s.rows + kFp8Block - 1) / kFp8Block,
                                    (s.cols + kFp8Block - 1) / kFp8Block};
        const TensorEntry& se = require(*reader, name + "_scale_inv", blocks);
        if (se.dtype != DType::kF32)
          throw Error(reader->path(), "tensor " + se.name + " is not F32");
        used.insert(se.name);
        scale = se.view();
      }
      Tensor from = entry.view();
      if (storage == WeightStorage::kMapped) {
        w.value.push_back(from);
        if (!scale.empty()) w.scale.push_back(scale);
      } else {
        convert(from, scale, w.value[static_cast<size_t>(e)], reader->path() + ": tensor " + name);
      }
    }
    ++w.version;
  });
  for (const TensorEntry& entry : reader->tensors()) {
    if (!used.contains(entry.name) && !is_derived(entry.name)) {
      throw Error(reader->path(), "tensor " + entry.name + " has no place in this config.json",
                  "use the config.json of this checkpoint");
    }
  }
  if (storage == WeightStorage::kMapped) model.keep(reader);
}

std::unique_ptr<Model> load_model(const std::string& folder, WeightStorage storage) {
  auto model = std::make_unique<Model>(load_hf_config(folder));
  load_weights(*model, std::make_shared<SafetensorsReader>(folder), storage);
  return model;
}

void save_model(const std::string& folder, Model& model, DType dtype,
                const std::map<std::string, std::string>& metadata) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  std::vector<TensorSource> sources;
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    // Vectors and the router stay f32: they are small, and V3 keeps them so.
    DType type = is_vector(s) || s.full_precision ? DType::kF32 : dtype;
    for (int64_t e = 0; e < s.experts; ++e) {
      sources.push_back(
          converted(expert_name(s.name, e), w.value[static_cast<size_t>(e)], type, is_vector(s)));
    }
  });
  ModelConfig cfg = model.config();
  cfg.torch_dtype = dtype == DType::kF32 ? "float32" : "bfloat16";
  cfg.fp8 = {};
  write_safetensors_folder(folder, sources, int64_t{5} << 30, metadata);
  write_file_atomic(folder + "/config.json", to_hf_config(cfg));
}

}  // namespace wels
