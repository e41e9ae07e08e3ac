#include "model/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <set>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/hf_config.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"

namespace wels {
namespace {

bool is_vector(const WeightSpec& s) {
  return s.kind != WeightKind::kMatrix && s.kind != WeightKind::kEmbedding;
}

bool is_weight(DType t) {
  return t == DType::kF64 || t == DType::kF8E4M3 || find_quant_format(t) != nullptr;
}

// Row r of a weight as doubles; FP8 times its scale, one per 128 × 128 block.
void read_row(const Tensor& t, const Tensor& scale, int64_t r, std::vector<float>& scratch,
              std::vector<double>& out) {
  const uint8_t* row = t.row_raw(r);
  if (t.dtype == DType::kF64) {
    std::memcpy(out.data(), row, out.size() * sizeof(double));
    return;
  }
  if (t.dtype == DType::kF8E4M3) {
    for (int64_t c = 0; c < t.cols; ++c) {
      out[static_cast<size_t>(c)] =
          static_cast<double>(fp8_to_float(row[c])) *
          static_cast<double>(scale.row<float>(r / kFp8Block)[c / kFp8Block]);
    }
    return;
  }
  find_quant_format(t.dtype)->decode(row, scratch.data(), t.cols);
  std::copy(scratch.begin(), scratch.end(), out.begin());
}

void require_finite(double x, int64_t r, int64_t c, const std::string& where) {
  if (!std::isfinite(x))
    throw Error(where, fmt::format("value [{}, {}] is not finite", r, c),
                "the checkpoint is damaged; use an earlier one");
}

void require_finite(const Tensor& t, const Tensor& scale, const std::string& where) {
  std::vector<double> row(static_cast<size_t>(t.cols));
  std::vector<float> scratch(row.size());
  for (int64_t r = 0; r < t.rows; ++r) {
    read_row(t, scale, r, scratch, row);
    for (int64_t c = 0; c < t.cols; ++c) require_finite(row[static_cast<size_t>(c)], r, c, where);
  }
}

// dst = src · scale, refusing what is not finite.
void convert(const Tensor& src, const Tensor& scale, Tensor dst, const std::string& where) {
  std::vector<double> row(static_cast<size_t>(src.cols));
  std::vector<float> scratch(row.size());
  for (int64_t r = 0; r < src.rows; ++r) {
    read_row(src, scale, r, scratch, row);
    for (int64_t c = 0; c < src.cols; ++c) {
      double x = row[static_cast<size_t>(c)];
      require_finite(x, r, c, where);
      if (dst.dtype == DType::kF64) {
        dst.row<double>(r)[c] = x;
      } else {
        dst.row<float>(r)[c] = static_cast<float>(x);
      }
    }
  }
}

// N of "model.layers.N.…"; -1: the tensor is of no layer.
int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  int64_t layer = -1;
  if (name.starts_with(kPrefix))
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

// The tensors of a checkpoint by name; every one that was asked for is remembered.
class NamedTensors {
 public:
  // layers: what the config has, MTP modules included.
  NamedTensors(const std::string& where, const std::vector<TensorEntry>& tensors, int64_t layers)
      : where_(where), tensors_(tensors), layers_(layers) {
    for (const TensorEntry& e : tensors) by_name_.emplace(e.name, &e);
  }
  // The tensor of that name, which must have that shape.
  const TensorEntry& require(const std::string& name, const std::vector<int64_t>& shape) {
    auto it = by_name_.find(name);
    if (it == by_name_.end() || it->second->shape != shape) {
      throw Error(
          where_,
          fmt::format("tensor {} {}, config.json asks for [{}]", name,
                      it == by_name_.end()
                          ? std::string("is missing")
                          : fmt::format("has shape [{}]", fmt::join(it->second->shape, ", ")),
                      fmt::join(shape, ", ")),
          "use the config.json of this checkpoint");
    }
    used_.insert(it->first);
    return *it->second;
  }
  // Refuses tensors that nobody asked for, but for those that may be there beyond the config's:
  // MTP modules that it does not count among them.
  void finish() const {
    std::set<int64_t> beyond;
    for (const TensorEntry& e : tensors_) {
      if (layer_of(e.name) >= layers_) {
        beyond.insert(layer_of(e.name));
        continue;
      }
      bool derived = e.name.ends_with("rotary_emb.inv_freq") ||
                     e.name.ends_with(".embed_tokens.weight") ||
                     e.name.ends_with("shared_head.head.weight") || e.name == "lm_head.weight";
      if (!used_.contains(e.name) && !derived)
        throw Error(where_, "tensor " + e.name + " has no place in this config.json",
                    "use the config.json of this checkpoint");
    }
    if (!beyond.empty())
      log_info("{}: layers {} are beyond the {} of config.json: left out", where_,
               fmt::join(beyond, ", "), layers_);
  }

 private:
  const std::string& where_;
  const std::vector<TensorEntry>& tensors_;
  int64_t layers_;
  std::unordered_map<std::string_view, const TensorEntry*> by_name_;
  std::unordered_set<std::string_view> used_;
};

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

void load_weights(Model& model, const std::string& where, const std::vector<TensorEntry>& tensors,
                  WeightStorage storage) {
  const ModelConfig& c = model.config();
  NamedTensors named(where, tensors, c.num_hidden_layers + c.num_nextn_predict_layers);
  if (storage == WeightStorage::kF32 || storage == WeightStorage::kF64) {
    model.allocate(storage == WeightStorage::kF64 ? DType::kF64 : DType::kF32);
  }
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    if (storage == WeightStorage::kMapped) {
      w.value.clear();
      w.scale.clear();
    }
    for (int64_t e = 0; e < s.experts; ++e) {
      std::string name = tensor_name(s.name, e);
      std::vector<int64_t> shape =
          is_vector(s) ? std::vector<int64_t>{s.cols} : std::vector<int64_t>{s.rows, s.cols};
      const TensorEntry& entry = named.require(name, shape);
      if (!is_weight(entry.dtype)) {
        throw Error(where, fmt::format("tensor {} is {}", name, wels::name(entry.dtype)),
                    "weights must be floating point");
      }
      Tensor scale;
      if (entry.dtype == DType::kF8E4M3) {
        const TensorEntry& se = named.require(
            name + "_scale_inv",
            {(s.rows + kFp8Block - 1) / kFp8Block, (s.cols + kFp8Block - 1) / kFp8Block});
        if (se.dtype != DType::kF32) throw Error(where, "tensor " + se.name + " is not F32");
        scale = se.view();
      }
      Tensor from = entry.view();
      if (storage == WeightStorage::kMapped) {
        // A router's NaN would only make it choose other experts; of matrices it shows in the
        // logits.
        if (is_vector(s) || s.full_precision)
          require_finite(from, scale, where + ": tensor " + name);
        w.value.push_back(from);
        if (!scale.empty()) w.scale.push_back(scale);
      } else {
        convert(from, scale, w.value[static_cast<size_t>(e)], where + ": tensor " + name);
      }
    }
    ++w.version;
  });
  named.finish();
}

}  // namespace

void load_weights(Model& model, const std::shared_ptr<SafetensorsReader>& reader,
                  WeightStorage storage) {
  load_weights(model, reader->path(), reader->tensors(), storage);
  if (storage == WeightStorage::kMapped) model.keep(reader);
}

void load_weights(Model& model, const std::shared_ptr<GgufCheckpoint>& file,
                  WeightStorage storage) {
  load_weights(model, file->content().where, file->tensors(), storage);
  if (storage == WeightStorage::kMapped) model.keep(file);
}

ModelConfig checkpoint_config(const std::string& folder, const SafetensorsReader& reader) {
  ModelConfig c = load_hf_config(folder);
  int64_t last = -1, modules = c.num_nextn_predict_layers;
  for (const TensorEntry& e : reader.tensors()) last = std::max(last, layer_of(e.name));
  c.num_nextn_predict_layers = std::clamp<int64_t>(last + 1 - c.num_hidden_layers, 0, modules);
  if (c.num_nextn_predict_layers < modules)
    log_info("{}: has {} of the {} MTP modules of its config.json: the others are left out", folder,
             c.num_nextn_predict_layers, modules);
  return c;
}

std::unique_ptr<Model> load_model(const std::string& folder, WeightStorage storage) {
  auto reader = std::make_shared<SafetensorsReader>(folder);
  auto model = std::make_unique<Model>(checkpoint_config(folder, *reader));
  load_weights(*model, reader, storage);
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
          converted(tensor_name(s.name, e), w.value[static_cast<size_t>(e)], type, is_vector(s)));
    }
  });
  ModelConfig cfg = model.config();
  cfg.torch_dtype = dtype == DType::kF32 ? "float32" : "bfloat16";
  cfg.fp8 = {};
  write_safetensors_folder(folder, sources, int64_t{5} << 30, metadata);
  write_file_atomic(folder + "/config.json", to_hf_config(cfg));
}

}  // namespace wels
