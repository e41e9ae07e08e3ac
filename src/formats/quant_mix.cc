#include "formats/quant_mix.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "formats/json.h"

namespace wels {
namespace {

constexpr QuantMix kMixes[] = {
    {"f32", DType::kF32, 0},        {"f16", DType::kF16, 1},      {"bf16", DType::kBF16, 32},
    {"q8_0", DType::kQ8_0, 7},      {"q6_k", DType::kQ6_K, 18},   {"q5_k", DType::kQ5_K, 17},
    {"q5_1", DType::kQ5_1, 9},      {"q5_0", DType::kQ5_0, 8},    {"q4_k", DType::kQ4_K, 15},
    {"q4_1", DType::kQ4_1, 3},      {"q4_0", DType::kQ4_0, 2},    {"iq4_nl", DType::kIQ4_NL, 25},
    {"iq4_xs", DType::kIQ4_XS, 30}, {"mxfp4", DType::kMXFP4, 38}, {"q3_k", DType::kQ3_K, 12},
    {"q2_k", DType::kQ2_K, 10},
};

double bits(DType t) { return 8.0 * info(t).bytes / info(t).block; }

bool has(const std::string& name, std::string_view part) {
  return name.find(part) != std::string::npos;
}

// The blocks that get more bits in the K mixtures.
bool is_more(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

struct Chooser {
  const ModelConfig& c;
  DType base;

  DType output() const {
    if (base == DType::kMXFP4) return DType::kQ8_0;
    return bits(base) < bits(DType::kQ6_K) ? DType::kQ6_K : base;
  }
  // Few kv heads: an error in one reaches many query heads.
  bool few_kv_heads() const {
    return c.is_mla() || c.num_attention_heads >= 4 * c.num_key_value_heads;
  }
  DType values(int64_t layer, bool more) const {
    switch (base) {
      case DType::kQ2_K:
        return few_kv_heads() ? DType::kQ4_K : DType::kQ3_K;
      case DType::kQ3_K:
        return layer < 2 ? DType::kQ5_K : DType::kQ4_K;
      case DType::kQ4_K:
      case DType::kQ5_K:
        return more || c.is_mla() ? DType::kQ6_K : base;
      case DType::kIQ4_NL:
      case DType::kIQ4_XS:
        return few_kv_heads() ? DType::kQ5_K : base;
      default:
        return base;
    }
  }
  DType down(int64_t layer, int64_t layers, bool more) const {
    switch (base) {
      case DType::kQ2_K:
        return DType::kQ3_K;
      case DType::kQ3_K:
        return layer < layers / 16 ? DType::kQ5_K : DType::kQ4_K;
      case DType::kQ4_K:
      case DType::kQ5_K:
        return more ? DType::kQ6_K : base;
      case DType::kIQ4_NL:
      case DType::kIQ4_XS:
        return layer < layers / 8 ? DType::kQ5_K : base;
      default:
        return base;
    }
  }
  DType of(const GgufTensorPlan& t) const {
    const std::string& n = t.name;
    if (t.full_precision) return DType::kF32;
    if (n == "output.weight" || (n == "token_embd.weight" && c.tie_word_embeddings))
      return output();
    int64_t layer = n.starts_with("blk.") ? std::stoll(n.substr(4)) : 0;
    int64_t layers = c.num_hidden_layers;
    bool more = is_more(layer, layers);
    if (base == DType::kMXFP4) {
      return has(n, c.n_routed_experts > 0 ? "_exps." : ".ffn_") ? base : DType::kQ8_0;
    }
    for (const char* part : {".attn_v.", ".attn_v_b.", ".attn_k_b.", ".attn_kv_a_mqa."}) {
      if (has(n, part)) return values(layer, more);
    }
    if (has(n, ".ffn_down")) return down(layer, layers, more || has(n, "shexp"));
    if (has(n, ".attn_output.")) {
      if (base == DType::kQ2_K) return DType::kQ3_K;
      if (base == DType::kQ3_K) return DType::kQ4_K;
    }
    return base;
  }
};

DType for_columns(DType t, int64_t cols) {
  if (cols % info(t).block == 0) return t;
  switch (t) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kIQ4_XS:
      t = DType::kIQ4_NL;
      break;
    case DType::kQ4_K:
      t = DType::kQ5_0;
      break;
    case DType::kQ5_K:
      t = DType::kQ5_1;
      break;
    case DType::kQ6_K:
      t = DType::kQ8_0;
      break;
    default:
      break;
  }
  return cols % info(t).block == 0 ? t : DType::kF16;
}

}  // namespace

std::span<const QuantMix> quant_mixes() { return kMixes; }

const QuantMix* find_quant_mix(DType base) {
  for (const QuantMix& m : kMixes) {
    if (m.base == base) return &m;
  }
  return nullptr;
}

const QuantMix& find_quant_mix(const std::string& name, const std::string& where) {
  std::string names, wanted = name;
  for (char& c : wanted) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  // llama.cpp's names of the mixtures; it has no other of Q2_K and Q6_K.
  for (const char* mixed : {"q3_k", "q4_k", "q5_k"}) {
    if (wanted == std::string(mixed) + "_m") wanted = mixed;
  }
  for (const QuantMix& m : kMixes) {
    if (m.name == wanted) return m;
    names += (names.empty() ? "" : ", ") + std::string(m.name);
  }
  throw Error(where, fmt::format("unknown type \"{}\"", printable(name)), "use " + names);
}

std::vector<ChosenType> choose_types(const ModelConfig& cfg,
                                     const std::vector<GgufTensorPlan>& plan, DType base,
                                     const std::vector<TensorChoice>& choices) {
  Chooser chooser{cfg, base};
  std::vector<ChosenType> out;
  for (const GgufTensorPlan& t : plan) {
    DType wanted = chooser.of(t);
    out.push_back({for_columns(wanted, t.shape.back()), wanted});
  }
  for (const TensorChoice& choice : choices) {
    bool matches = false, only_full = false;
    for (size_t i = 0; i < plan.size(); ++i) {
      if (fnmatch(choice.pattern.c_str(), plan[i].name.c_str(), 0) != 0) continue;
      if (plan[i].full_precision) {
        only_full = true;
        continue;
      }
      matches = true;
      out[i] = {for_columns(choice.dtype, plan[i].shape.back()), choice.dtype};
    }
    if (matches) continue;
    throw Error("--tensor",
                fmt::format("\"{}\" matches {}", printable(choice.pattern),
                            only_full ? "only tensors that stay f32 (norms, biases, router)"
                                      : "no tensor of this model"),
                fmt::format("names are like {} or {}", plan.front().name, plan.back().name));
  }
  return out;
}

}  // namespace wels
