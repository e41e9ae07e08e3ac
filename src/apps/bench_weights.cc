#include "apps/bench_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "apps/bench_shapes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"
#include "formats/gguf_export.h"
#include "formats/quant_mix.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"
#include "text/markers.h"
#include "text/vocab_source.h"

namespace wels {
namespace {

DType type_named(std::string wanted) {
  for (char& c : wanted) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (int i = 0; i < static_cast<int>(DType::kCount); ++i) {
    auto t = static_cast<DType>(i);
    bool weight = is_quantised(t) || t == DType::kF32 || t == DType::kF16 || t == DType::kBF16;
    if (weight && name(t) == wanted) return t;
  }
  if (wanted == "fp8") return DType::kF8E4M3;
  throw Error(
      "--type", fmt::format("unknown type \"{}\"", wanted),
      "use f32, f16, bf16, fp8, q8_0, q6_k, q5_k, q4_k, q3_k, q2_k, q5_0, q5_1, q4_0, q4_1, "
      "iq4_nl, iq4_xs or mxfp4");
}

// As what each weight is kept: of a quantised type, as `wels quantize` mixes it.
std::function<DType(const WeightSpec&)> stored_types_of(const ModelConfig& c, DType wanted) {
  if (!is_quantised(wanted)) {
    return [wanted](const WeightSpec& s) {
      bool matrix = s.kind == WeightKind::kMatrix || s.kind == WeightKind::kEmbedding;
      if (!matrix || s.full_precision) return DType::kF32;
      return wanted == DType::kF8E4M3 && !s.fp8 ? DType::kBF16 : wanted;
    };
  }
  std::map<std::string, DType> types;
  std::vector<GgufTensorPlan> plan = gguf_tensor_plan(c, false);
  std::vector<ChosenType> chosen = choose_types(c, plan, wanted);
  for (size_t i = 0; i < plan.size(); ++i) {
    bool split = plan[i].transform == GgufTransform::kKeysOfKvB ||
                 plan[i].transform == GgufTransform::kValuesOfKvB;
    types[plan[i].source] =
        split ? gguf_joined_type(chosen[i].dtype, chosen[i].dtype) : chosen[i].dtype;
  }
  return [types](const WeightSpec& s) {
    auto it = types.find(s.name);
    return it == types.end() ? DType::kF32 : it->second;
  };
}

// Rows of normal values in the weight's type, one after another.
std::vector<uint8_t> random_rows(DType t, int64_t rows, int64_t cols, double deviation,
                                 uint64_t seed) {
  Rng rng(seed, 0);
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (float& v : values) v = static_cast<float>(rng.normal() * deviation);
  std::vector<uint8_t> out(static_cast<size_t>(rows * row_bytes(t, cols)));
  if (const QuantFormat* q = find_quant_format(t)) {
    q->encode(values.data(), nullptr, out.data(), rows * cols);
    return out;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    switch (t) {
      case DType::kF32:
        std::memcpy(out.data() + 4 * i, &values[i], 4);
        break;
      case DType::kBF16: {
        bf16 b = to_bf16(values[i]);
        std::memcpy(out.data() + 2 * i, &b, 2);
        break;
      }
      case DType::kF16: {
        uint16_t h = float_to_half(values[i]);
        std::memcpy(out.data() + 2 * i, &h, 2);
        break;
      }
      default:  // E4M3 with a scale of `deviation` per block
        out[i] = float_to_fp8(values[i] / static_cast<float>(deviation));
    }
  }
  return out;
}

// Fills a weight with a few random rows over and over, each copy in memory of its own: what a
// matrix's values are does not change its speed.
void fill(Weight& w, const WeightSpec& s, double deviation) {
  DType t = w.value[0].dtype;
  int64_t distinct = std::min<int64_t>(w.rows, 61), bytes = row_bytes(t, w.cols);
  std::vector<uint8_t> rows;
  if (s.kind == WeightKind::kMatrix || s.kind == WeightKind::kEmbedding) {
    rows = random_rows(t, distinct, w.cols, deviation, hash_name(s.name));
  } else {
    CHECK(t == DType::kF32);
    std::vector<float> constant(static_cast<size_t>(distinct * w.cols),
                                s.kind == WeightKind::kNorm ? 1.0f : 0.0f);
    rows.resize(static_cast<size_t>(distinct * bytes));
    std::memcpy(rows.data(), constant.data(), rows.size());
  }
  parallel_for(w.experts() * w.rows, 64, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      int64_t e = i / w.rows, r = i % w.rows;
      std::memcpy(w.value[static_cast<size_t>(e)].row_raw(r),
                  rows.data() + (r + 7 * e) % distinct * bytes, static_cast<size_t>(bytes));
    }
  });
}

double deviation_of(const ModelConfig& c) {
  return 1 / std::sqrt(static_cast<double>(c.hidden_size));
}

// The rows of a tensor of a file, a megabyte or so at a time: as fill() makes them.
void write_rows(const GgufTensorPlan& t, const ModelConfig& c, DType type, const ByteSink& sink) {
  int64_t cols = t.shape.back(), rows = 1, bytes = row_bytes(type, cols);
  for (size_t i = 0; i + 1 < t.shape.size(); ++i) rows *= t.shape[i];
  std::vector<uint8_t> distinct;
  int64_t count = std::min<int64_t>(rows, 61);
  if (t.transform == GgufTransform::kRopeFactors || t.shape.size() == 1) {
    std::vector<float> values(static_cast<size_t>(cols), t.name.ends_with("norm.weight") ? 1 : 0);
    if (t.transform == GgufTransform::kRopeFactors) values = gguf_rope_factors(c);
    distinct.resize(static_cast<size_t>(bytes));
    std::memcpy(distinct.data(), values.data(), distinct.size());
  } else {
    distinct = random_rows(type, count, cols, deviation_of(c), hash_name(t.name));
  }
  int64_t in_matrix = t.shape.size() == 3 ? t.shape[1] : rows;
  for (int64_t i = 0; i < rows; ++i) {
    int64_t from = (i % in_matrix + 7 * (i / in_matrix)) % count;
    sink(distinct.data() + from * bytes, static_cast<size_t>(bytes));
  }
}

// A token a byte, the end of the text, and nothing for the other rows: some readers want one.
GgufTokenizer tokenizer_of_bytes() {
  GgufTokenizer t;
  t.pre = "deepseek-llm";
  for (int b = 0; b < 256; ++b)
    t.tokens.push_back(bytes_to_text(std::string(1, static_cast<char>(b))));
  t.types.assign(256, 1);
  t.eos = 256;
  t.tokens.emplace_back(kEosMark);
  t.types.push_back(3);
  return t;
}

}  // namespace

ModelConfig random_model_config(const RandomModel& r) {
  ModelConfig c = published_shape(r.shape);
  if (r.layers > c.num_hidden_layers) {
    throw Error("--layers", fmt::format("{} has {} blocks", r.shape, c.num_hidden_layers),
                "ask for no more, or for 0: all of them");
  }
  if (r.layers > 0) {
    c.num_hidden_layers = r.layers;
    c.first_k_dense_replace = std::min(c.first_k_dense_replace, r.layers);
  }
  return c;
}

std::function<DType(const WeightSpec&)> random_model_types(const RandomModel& r) {
  return stored_types_of(random_model_config(r), type_named(r.type));
}

std::unique_ptr<Model> random_model(const RandomModel& r, Pool& pool,
                                    std::vector<std::shared_ptr<void>>& kept) {
  ModelConfig c = random_model_config(r);
  auto model = std::make_unique<Model>(c);
  model->allocate(random_model_types(r));
  double deviation = deviation_of(c);
  visit_weights(c, model->weights(), [&](Weight& w, const WeightSpec& s) {
    fill(w, s, deviation);
    if (w.value[0].dtype != DType::kF8E4M3) return;
    int64_t m = (w.rows + kFp8Block - 1) / kFp8Block, n = (w.cols + kFp8Block - 1) / kFp8Block;
    for (int64_t e = 0; e < w.experts(); ++e) {
      kept.push_back(pool.take(m * n * 4));
      w.scale.emplace_back(kept.back().get(), DType::kF32, m, n);
      std::fill_n(w.scale.back().row<float>(0), m * n, static_cast<float>(deviation));
    }
  });
  return model;
}

void write_random_gguf(const std::string& path, const RandomModel& r) {
  ModelConfig c = random_model_config(r);
  const QuantMix& mix = find_quant_mix(r.type, "--type");
  std::vector<GgufTensorPlan> plan = gguf_tensor_plan(c, false);
  std::vector<ChosenType> types = choose_types(c, plan, mix.base);
  std::vector<TensorSource> sources;
  for (size_t i = 0; i < plan.size(); ++i) {
    const GgufTensorPlan& t = plan[i];
    DType type = types[i].dtype;
    sources.push_back(
        {t.name, type, t.shape, [&t, &c, type](const ByteSink& s) { write_rows(t, c, type, s); }});
  }
  GgufMetadataOptions options;
  options.name = fmt::format("{} of random weights", r.shape);
  options.file_type = mix.file_type;
  options.include_mtp = false;
  GgufTokenizer tokenizer = tokenizer_of_bytes();
  write_gguf(path, gguf_metadata(c, &tokenizer, options), sources);
}

}  // namespace wels
