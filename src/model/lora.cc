#include "model/lora.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using nlohmann::json;

constexpr const char* kPrefix = "base_model.model.";
constexpr int64_t kMostRank = 65536;

// "q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string module_name(const std::string& weight) {
  std::string path = weight.substr(0, weight.rfind('.'));
  return path.substr(path.rfind('.') + 1);
}

bool can_adapt(const ModelConfig& cfg, const WeightSpec& s) {
  return s.kind == WeightKind::kMatrix && s.experts == 1 && !s.full_precision && s.layer >= 0 &&
         s.layer < cfg.num_hidden_layers && s.name.find(".mlp.experts.") == std::string::npos;
}

// fn(weight, spec) for every weight that can be adapted.
template <class Fn>
void visit_adaptable(Model& model, Fn&& fn) {
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    if (can_adapt(model.config(), s)) fn(w, s);
  });
}

template <class Fn>
void visit_lora(Model& model, Fn&& fn) {
  visit_adaptable(model, [&](Weight& w, const WeightSpec&) {
    if (!w.lora) return;
    fn(w.lora->down);
    fn(w.lora->up);
  });
}

// Zeros of w's shape, kept alive by the model.
Tensor give_tensor(Model& model, const Weight& w, DType dtype) {
  int64_t bytes = w.rows * row_bytes(dtype, w.cols);
  std::shared_ptr<void> memory(allocate_host(bytes), [bytes](void* p) { free_host(p, bytes); });
  std::memset(memory.get(), 0, static_cast<size_t>(bytes));
  model.keep(memory);
  return Tensor(memory.get(), dtype, w.rows, w.cols);
}

// Values and gradient of one matrix.
void give_memory(Model& model, Weight& w, DType dtype) {
  w.value = {give_tensor(model, w, dtype)};
  w.grad = {give_tensor(model, w, dtype)};
  ++w.version;
}

void set_value(const Tensor& t, int64_t r, int64_t c, double x) {
  if (t.dtype == DType::kF64) {
    t.row<double>(r)[c] = x;
  } else {
    t.row<float>(r)[c] = static_cast<float>(x);
  }
}

double value(const Tensor& t, int64_t r, int64_t c) {
  return t.dtype == DType::kF64 ? t.row<double>(r)[c] : static_cast<double>(t.row<float>(r)[c]);
}

Weight named(const std::string& of, const char* which, int64_t rows, int64_t cols) {
  Weight w;
  w.name = kPrefix + of.substr(0, of.rfind('.')) + which;
  w.rows = rows;
  w.cols = cols;
  return w;
}

void fill_uniform(Weight& w, uint64_t seed) {
  Rng rng(seed, hash_name(w.name));
  double bound = 1 / std::sqrt(static_cast<double>(w.cols));
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t c = 0; c < w.cols; ++c)
      set_value(w.value[0], r, c, (2 * rng.uniform() - 1) * bound);
  }
}

void refuse(bool wrong, const std::string& where, const std::string& field) {
  if (wrong)
    throw Error(where, fmt::format("\"{}\" asks for what wels does not compute", field),
                "wels reads plain LoRA adapters of one rank");
}

// The values of the adapter tensor of w's name and shape.
std::vector<float> read_matrix(const SafetensorsReader& reader, const Weight& w) {
  const TensorEntry& e = reader.at(w.name);
  bool plain = e.dtype == DType::kF32 || e.dtype == DType::kBF16 || e.dtype == DType::kF16;
  if (!plain || e.shape != std::vector<int64_t>{w.rows, w.cols}) {
    throw Error(reader.path(),
                fmt::format("tensor {} is {} [{}], the model asks for f32, bf16 or f16 [{}, {}]",
                            w.name, name(e.dtype), fmt::join(e.shape, ", "), w.rows, w.cols),
                "use the model that the adapters were trained for");
  }
  std::vector<float> out(static_cast<size_t>(w.size()));
  Tensor t = e.view();
  for (int64_t r = 0; r < t.rows; ++r)
    find_quant_format(t.dtype)->decode(t.row_raw(r), out.data() + r * t.cols, t.cols);
  if (!std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }))
    throw Error(reader.path(), "tensor " + w.name + " is not finite",
                "the adapters are damaged; use an earlier checkpoint");
  return out;
}

}  // namespace

double LoraConfig::scale() const {
  double r = static_cast<double>(rank);
  return alpha / (rank_stabilised ? std::sqrt(r) : r);
}

std::vector<std::string> lora_targets(const ModelConfig& cfg) {
  std::vector<std::string> out;
  ModelWeights weights = make_weights(cfg);
  visit_weights(cfg, weights, [&](Weight&, const WeightSpec& s) {
    std::string name = module_name(s.name);
    if (can_adapt(cfg, s) && std::find(out.begin(), out.end(), name) == out.end())
      out.push_back(name);
  });
  return out;
}

void check_lora_targets(const ModelConfig& model, const LoraConfig& config) {
  std::vector<std::string> known = lora_targets(model);
  for (const std::string& target : config.targets) {
    if (std::find(known.begin(), known.end(), target) == known.end())
      throw Error("--lora-targets", fmt::format("the model has no {} to adapt", printable(target)),
                  fmt::format("some of {}", fmt::join(known, ",")));
  }
}

void add_lora(Model& model, const LoraConfig& config, DType dtype, uint64_t seed) {
  check_lora_targets(model.config(), config);
  auto wanted = [&](const std::string& name) {
    return config.targets.empty() ||
           std::find(config.targets.begin(), config.targets.end(), name) != config.targets.end();
  };
  visit_weights(model.config(), model.weights(),
                [](Weight& w, const WeightSpec&) { w.grad.clear(); });
  visit_adaptable(model, [&](Weight& w, const WeightSpec& s) {
    if (!wanted(module_name(s.name))) return;
    w.lora = std::make_shared<LowRank>();
    w.lora->scale = config.scale();
    w.lora->down = named(s.name, ".lora_A.weight", config.rank, s.cols);
    w.lora->up = named(s.name, ".lora_B.weight", s.rows, config.rank);
    give_memory(model, w.lora->down, dtype);
    give_memory(model, w.lora->up, dtype);
    fill_uniform(w.lora->down, seed);
  });
  model.clear_gradients();
}

int64_t count_lora(Model& model) {
  int64_t n = 0;
  visit_lora(model, [&](Weight& w) { n += w.size(); });
  return n;
}

LoraSet lora_of(Model& model) {
  LoraSet out;
  visit_adaptable(model, [&](Weight& w, const WeightSpec&) {
    if (w.lora) out.push_back(w.lora);
  });
  return out;
}

LoraSet copy_lora(Model& model) {
  LoraSet out;
  for (const std::shared_ptr<LowRank>& own : lora_of(model)) {
    auto copy = std::make_shared<LowRank>();
    copy->scale = own->scale;
    for (auto [from, to] : {std::pair{&own->down, &copy->down}, {&own->up, &copy->up}}) {
      to->name = from->name;
      to->rows = from->rows;
      to->cols = from->cols;
      to->value = {give_tensor(model, *to, from->value[0].dtype)};
      std::memcpy(to->value[0].data, from->value[0].data,
                  static_cast<size_t>(from->value[0].bytes()));
    }
    out.push_back(std::move(copy));
  }
  return out;
}

OtherLora::OtherLora(Model& model, const LoraSet& set) {
  visit_adaptable(model, [&](Weight& w, const WeightSpec&) {
    if (w.lora) own_.emplace_back(&w, w.lora);
  });
  CHECK(set.empty() || set.size() == own_.size());
  for (size_t i = 0; i < own_.size(); ++i) own_[i].first->lora = set.empty() ? nullptr : set[i];
}

OtherLora::~OtherLora() {
  for (auto& [w, lora] : own_) w->lora = std::move(lora);
}

void merge_lora(Model& model) {
  visit_adaptable(model, [](Weight& w, const WeightSpec&) {
    if (!w.lora) return;
    const Tensor &down = w.lora->down.value[0], &up = w.lora->up.value[0];
    CHECK(w.value[0].dtype == down.dtype);
    for (int64_t r = 0; r < w.rows; ++r) {
      std::vector<double> change(static_cast<size_t>(w.cols));
      for (int64_t k = 0; k < up.cols; ++k) {
        double factor = w.lora->scale * value(up, r, k);
        for (int64_t c = 0; c < w.cols; ++c)
          change[static_cast<size_t>(c)] += factor * value(down, k, c);
      }
      for (int64_t c = 0; c < w.cols; ++c)
        set_value(w.value[0], r, c, value(w.value[0], r, c) + change[static_cast<size_t>(c)]);
    }
    w.lora.reset();
    ++w.version;
  });
}

void save_lora(const std::string& folder, Model& model, const LoraConfig& config) {
  std::vector<TensorSource> sources;
  visit_lora(model, [&](Weight& w) {
    Tensor t = w.value[0];
    CHECK(t.dtype == DType::kF32);
    sources.push_back({w.name, t.dtype, {t.rows, t.cols}, [t](const ByteSink& sink) {
                         sink(t.data, static_cast<size_t>(t.bytes()));
                       }});
  });
  write_safetensors(folder + "/adapter_model.safetensors", sources, {{"format", "pt"}});
  std::vector<std::string> targets =
      config.targets.empty() ? lora_targets(model.config()) : config.targets;
  json j = {{"peft_type", "LORA"},
            {"task_type", "CAUSAL_LM"},
            {"base_model_name_or_path", config.base},
            {"r", config.rank},
            {"lora_alpha", config.alpha},
            {"lora_dropout", 0.0},
            {"use_rslora", config.rank_stabilised},
            {"target_modules", targets},
            {"bias", "none"},
            {"fan_in_fan_out", false},
            {"inference_mode", true}};
  write_file_atomic(folder + "/adapter_config.json", j.dump(2));
}

LoraConfig load_lora_config(const std::string& folder) {
  std::string path = folder + "/adapter_config.json";
  json j = parse_json(read_file(path), path);
  LoraConfig c;
  auto set = [&](const char* key) {
    return j.contains(key) && !j[key].is_null() && j[key] != false && !j[key].empty();
  };
  try {
    refuse(j.at("peft_type") != "LORA", path, "peft_type");
    for (const char* field : {"use_dora", "fan_in_fan_out", "modules_to_save", "rank_pattern",
                              "alpha_pattern", "layers_to_transform", "target_parameters"}) {
      refuse(set(field), path, field);
    }
    refuse(j.value("bias", "none") != "none", path, "bias");
    c.rank = j.at("r").is_number_integer() ? j.at("r").get<int64_t>() : 0;
    c.alpha = j.at("lora_alpha").get<double>();
    c.rank_stabilised = j.value("use_rslora", false);
    refuse(!j.at("target_modules").is_array(), path, "target_modules");
    c.targets = j.at("target_modules").get<std::vector<std::string>>();
    if (set("base_model_name_or_path")) c.base = j.at("base_model_name_or_path").get<std::string>();
  } catch (const json::exception& e) {
    throw Error(path, "lacks a field, or it has the wrong type: " + std::string(e.what()),
                "wels reads PEFT's LoRA adapters");
  }
  if (c.rank < 1 || c.rank > kMostRank)
    throw Error(path, fmt::format("r is {}", printable(j["r"].dump())),
                fmt::format("it must be a whole number from 1 to {}", kMostRank));
  if (!std::isfinite(c.alpha)) throw Error(path, "lora_alpha is not finite", "it must be a number");
  if (c.targets.empty()) throw Error(path, "target_modules is empty", "name at least one");
  return c;
}

void load_lora(const std::string& folder, Model& model) {
  SafetensorsReader reader(folder + "/adapter_model.safetensors");
  std::vector<std::pair<Weight*, std::vector<float>>> found;
  std::set<std::string> used;
  visit_lora(model, [&](Weight& w) {
    found.emplace_back(&w, read_matrix(reader, w));
    used.insert(w.name);
  });
  for (const TensorEntry& e : reader.tensors()) {
    if (!used.contains(e.name))
      throw Error(reader.path(), "tensor " + e.name + " has no place in this model",
                  "use the model that the adapters were trained for");
  }
  for (auto& [w, values] : found) {
    for (int64_t r = 0; r < w->rows; ++r) {
      for (int64_t c = 0; c < w->cols; ++c)
        set_value(w->value[0], r, c,
                  static_cast<double>(values[static_cast<size_t>(r * w->cols + c)]));
    }
    ++w->version;
  }
}

}  // namespace wels
