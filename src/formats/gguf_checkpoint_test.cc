#include "formats/gguf_checkpoint.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "formats/gguf_export.h"
#include "formats/gguf_folder_test.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// --- Config alone: the published models, as files of metadata. ---

ModelConfig v3() {
  ModelConfig c;
  c.vocab_size = 129280;
  c.hidden_size = 7168;
  c.num_hidden_layers = 61;
  c.intermediate_size = 18432;
  c.num_attention_heads = c.num_key_value_heads = 128;
  c.q_lora_rank = 1536;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = c.v_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.n_routed_experts = 256;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 8;
  c.moe_intermediate_size = 2048;
  c.first_k_dense_replace = 3;
  c.n_group = 8;
  c.topk_group = 4;
  c.routed_scaling_factor = 2.5;
  c.max_position_embeddings = 163840;
  c.rope.scaling = RopeScaling::kYarn;
  c.rope.factor = 40;
  c.rope.original_max_position_embeddings = 4096;
  c.rope.mscale = c.rope.mscale_all_dim = 1;
  return c;
}
ModelConfig v2() {
  ModelConfig c = v3();
  c.architecture = Architecture::kDeepseekV2;
  c.vocab_size = 102400;
  c.hidden_size = 5120;
  c.num_hidden_layers = 60;
  c.intermediate_size = 12288;
  c.n_routed_experts = 160;
  c.n_shared_experts = 2;
  c.num_experts_per_tok = 6;
  c.moe_intermediate_size = 1536;
  c.first_k_dense_replace = 1;
  c.topk_group = 3;
  c.scoring_func = ScoringFunc::kSoftmax;
  c.topk_method = TopkMethod::kGroupLimitedGreedy;
  c.norm_topk_prob = false;
  c.routed_scaling_factor = 16;
  c.rope.mscale = c.rope.mscale_all_dim = 0.707;
  return c;
}
ModelConfig v2_lite() {
  ModelConfig c = v2();
  c.hidden_size = 2048;
  c.num_hidden_layers = 27;
  c.intermediate_size = 10944;
  c.num_attention_heads = c.num_key_value_heads = 16;
  c.q_lora_rank = 0;
  c.n_routed_experts = 64;
  c.moe_intermediate_size = 1408;
  c.n_group = c.topk_group = 1;
  c.topk_method = TopkMethod::kGreedy;
  c.routed_scaling_factor = 1;
  return c;
}
ModelConfig distill(Architecture a, int64_t d, int64_t layers, int64_t ffn, int64_t heads,
                    int64_t kv_heads, int64_t vocab) {
  ModelConfig c;
  c.architecture = a;
  c.attention = AttentionKind::kGqa;
  c.attention_bias = a == Architecture::kQwen2;
  c.hidden_size = d;
  c.num_hidden_layers = layers;
  c.intermediate_size = ffn;
  c.num_attention_heads = heads;
  c.num_key_value_heads = kv_heads;
  c.head_dim = d / heads;
  c.vocab_size = vocab;
  c.max_position_embeddings = 131072;
  if (a == Architecture::kQwen2) {
    c.rope.theta = d == 1536 || d == 3584 ? 10000 : 1000000;
    return c;
  }
  c.rms_norm_eps = 1e-5;
  c.rope.theta = 500000;
  c.rope.scaling = RopeScaling::kLlama3;
  c.rope.factor = 8;
  c.rope.original_max_position_embeddings = 8192;
  return c;
}

TensorSource floats(const std::string& name, std::vector<int64_t> shape,
                    std::vector<float> values) {
  return {name, DType::kF32, std::move(shape),
          [values](const ByteSink& sink) { sink(values.data(), values.size() * sizeof(float)); }};
}

class GgufFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("wels_gguf_checkpoint_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name = "m.gguf") const { return (folder_ / name).string(); }

  // The metadata of c as written, but for `edit`, and what its tensors tell about the config.
  ModelConfig through_metadata(const ModelConfig& c,
                               const std::function<void(GgufMetadata&)>& edit = {}) {
    GgufMetadata metadata = gguf_metadata(c, nullptr, {});
    if (edit) edit(metadata);
    std::vector<TensorSource> tensors;
    if (!c.tie_word_embeddings) tensors.push_back(floats("output.weight", {1}, {0}));
    if (c.has_router_bias()) tensors.push_back(floats("blk.3.exp_probs_b.bias", {1}, {0}));
    if (c.rope.scaling == RopeScaling::kLlama3)
      tensors.push_back(floats("rope_freqs.weight", {c.head_dim / 2}, gguf_rope_factors(c)));
    write_gguf(path(), metadata, tensors);
    return gguf_model_config(GgufReader(path()).content());
  }
  std::string refusal_of_metadata(const ModelConfig& c,
                                  const std::function<void(GgufMetadata&)>& edit) {
    try {
      through_metadata(c, edit);
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  }
  fs::path folder_;
};

void remove_key(GgufMetadata& m, const std::string& ending) {
  size_t n = std::erase_if(m, [&](auto& pair) { return pair.first.ends_with(ending); });
  EXPECT_GT(n, 0u) << ending;
}
void set_key(GgufMetadata& m, const std::string& key, GgufValue value) {
  for (auto& [k, v] : m) {
    if (k == key) {
      v = std::move(value);
      return;
    }
  }
  m.emplace_back(key, std::move(value));
}

TEST_F(GgufFolder, ConfigsOfThePublishedModelsComeBack) {
  ModelConfig v3_mtp = v3();
  v3_mtp.num_nextn_predict_layers = 1;
  ModelConfig tied = distill(Architecture::kQwen2, 1536, 28, 8960, 12, 2, 151936);
  tied.tie_word_embeddings = true;
  for (const ModelConfig& c : {v3(), v3_mtp, v2(), v2_lite(), tied,
                               distill(Architecture::kQwen2, 1536, 28, 8960, 12, 2, 151936),
                               distill(Architecture::kQwen2, 3584, 28, 18944, 28, 4, 152064),
                               distill(Architecture::kQwen2, 5120, 48, 13824, 40, 8, 152064),
                               distill(Architecture::kQwen2, 5120, 64, 27648, 40, 8, 152064),
                               distill(Architecture::kLlama, 4096, 32, 14336, 32, 8, 128256),
                               distill(Architecture::kLlama, 8192, 80, 28672, 64, 8, 128256)}) {
    EXPECT_EQ(without_training(through_metadata(c)), as_from_gguf(c))
        << c.hidden_size << " " << c.num_hidden_layers;
  }
}

// llama.cpp divides by the sum where expert_weights_norm says so, and multiplies by
// expert_weights_scale always.
TEST_F(GgufFolder, EveryRouterComesBackWithItsNormalisationAndItsScale) {
  for (Architecture a : {Architecture::kDeepseekV2, Architecture::kDeepseekV3}) {
    for (ScoringFunc scoring : {ScoringFunc::kSoftmax, ScoringFunc::kSigmoid}) {
      for (bool norm : {false, true}) {
        ModelConfig c = v3();
        c.architecture = a;
        c.scoring_func = scoring;
        c.norm_topk_prob = norm;
        bool either = norm && scoring == ScoringFunc::kSoftmax;
        EXPECT_EQ(c.expert_scale(), either ? 1 : 2.5);
        ModelConfig got = through_metadata(c);
        EXPECT_EQ(without_training(got), as_from_gguf(c));
        EXPECT_EQ(got.norm_topk_prob, norm);
        EXPECT_EQ(got.expert_scale(), c.expert_scale()) << architecture_name(a);
        EXPECT_EQ(GgufReader(path())->number("deepseek2.expert_weights_scale"), c.expert_scale());
      }
    }
  }
}

TEST_F(GgufFolder, WhatMtpReadsComesBackUnderAKeyOfOurOwn) {
  for (bool after : {false, true}) {
    ModelConfig c = v3();
    c.num_nextn_predict_layers = 1;
    c.mtp_hidden_after_norm = after;
    EXPECT_EQ(through_metadata(c).mtp_hidden_after_norm, after);
    EXPECT_EQ(GgufReader(path())->has("wels.mtp_hidden_after_norm"), !after);
  }
}

// Block 4 is the MTP module.
TEST_F(GgufFolder, DenseBlocksAreCountedWithThoseOfMtp) {
  for (int64_t dense : {3, 4, 5, 9}) {
    ModelConfig c = v3();
    c.num_hidden_layers = 4;
    c.num_nextn_predict_layers = 1;
    c.first_k_dense_replace = dense;
    ModelConfig got = through_metadata(c);
    for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(got.is_moe_layer(i), c.is_moe_layer(i)) << i;
  }
}

TEST_F(GgufFolder, FilesWithoutGroupsGetThoseOfTheModelWithAsManyExpertsAndANote) {
  auto groupless = [](GgufMetadata& m) {
    remove_key(m, ".expert_group_count");
    remove_key(m, ".expert_group_used_count");
  };
  for (const ModelConfig& c : {v3(), v2(), v2_lite()}) {
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(without_training(through_metadata(c, groupless)), as_from_gguf(c))
        << c.n_routed_experts;
    std::string note = ::testing::internal::GetCapturedStderr();
    if (c.n_group == 1) {
      EXPECT_EQ(note, "");
    } else {
      EXPECT_THAT(note, HasSubstr("deepseek2.expert_group_count"));
      EXPECT_THAT(note, HasSubstr(c.n_routed_experts == 256 ? "4 of 8 groups as in DeepSeek-V3"
                                                            : "3 of 8 groups as in DeepSeek-V2"));
    }
  }
}

// Before the split of kv_b, lengths were those of a head.
void as_before_the_split(GgufMetadata& m, const ModelConfig& c) {
  remove_key(m, ".key_length_mla");
  remove_key(m, ".value_length_mla");
  set_key(m, "deepseek2.attention.key_length", gguf_u32(static_cast<uint32_t>(c.qk_head_dim())));
  set_key(m, "deepseek2.attention.value_length", gguf_u32(static_cast<uint32_t>(c.v_head_dim)));
  set_key(m, "deepseek2.attention.head_count_kv",
          gguf_u32(static_cast<uint32_t>(c.num_key_value_heads)));
}

TEST_F(GgufFolder, MetadataOfBeforeTheSplitOfKvBGiveTheSameConfig) {
  for (const ModelConfig& c : {v3(), v2(), v2_lite()}) {
    EXPECT_EQ(
        without_training(through_metadata(c, [&](GgufMetadata& m) { as_before_the_split(m, c); })),
        as_from_gguf(c));
  }
}

TEST_F(GgufFolder, Llama3ScalingIsFoundAgainFromItsDivisors) {
  for (int64_t head_dim : {16, 64, 128}) {
    for (double factor : {8.0, 32.0}) {
      for (int64_t original : {64, 512, 8192, 100000}) {
        ModelConfig c = distill(Architecture::kLlama, 4 * head_dim, 2, 64, 4, 2, 100);
        c.rope.factor = factor;
        c.rope.original_max_position_embeddings = original;
        ModelConfig got = through_metadata(c);
        EXPECT_EQ(gguf_rope_factors(got), gguf_rope_factors(c)) << head_dim << " " << original;
        EXPECT_EQ(got.rope.factor, factor);
      }
    }
  }
  ModelConfig c = distill(Architecture::kLlama, 64, 2, 64, 4, 2, 100);
  c.rope.high_freq_factor = 16;  // nobody's
  EXPECT_THAT(refusal_of_metadata(c, {}), HasSubstr("rope_freqs.weight divides frequency"));
}

TEST_F(GgufFolder, LinearScalingComesBackUnderAnyOfItsNames) {
  ModelConfig c = distill(Architecture::kQwen2, 64, 2, 64, 4, 2, 100);
  c.rope.scaling = RopeScaling::kLinear;
  c.rope.factor = 4;
  EXPECT_EQ(through_metadata(c).rope, c.rope);
  EXPECT_EQ(through_metadata(c, [](auto& m) { remove_key(m, ".rope.scaling.type"); }).rope, c.rope);
  auto old_name = [](GgufMetadata& m) {
    remove_key(m, ".rope.scaling.type");
    remove_key(m, ".rope.scaling.factor");
    m.emplace_back("qwen2.rope.scale_linear", gguf_f32(4));
  };
  EXPECT_EQ(through_metadata(c, old_name).rope, c.rope);
  auto by_one = [](GgufMetadata& m) { set_key(m, "qwen2.rope.scaling.factor", gguf_f32(1)); };
  EXPECT_EQ(through_metadata(c, by_one).rope.scaling, RopeScaling::kNone);
}

TEST_F(GgufFolder, RefusesWhatItCannotComputeByName) {
  ModelConfig llama = distill(Architecture::kLlama, 64, 2, 64, 4, 2, 100);
  EXPECT_EQ(refusal_of_metadata(llama, {}), "accepted");
  auto with = [&](const ModelConfig& c, const std::string& key, GgufValue value) {
    return refusal_of_metadata(c, [&](GgufMetadata& m) { set_key(m, key, value); });
  };
  EXPECT_THAT(with(llama, "general.architecture", gguf_string("gemma3")),
              HasSubstr("architecture \"gemma3\" is not supported; supported: deepseek2, qwen2"));
  EXPECT_THAT(with(llama, "llama.expert_count", gguf_u32(8)), HasSubstr("llama.expert_count is 8"));
  EXPECT_THAT(with(llama, "llama.attention.sliding_window", gguf_u32(4096)),
              HasSubstr("llama.attention.sliding_window 4096"));
  EXPECT_THAT(with(llama, "llama.rope.dimension_count", gguf_u32(8)),
              HasSubstr("llama.rope.dimension_count 8 of heads of 16"));
  EXPECT_THAT(with(llama, "llama.rope.scaling.type", gguf_string("longrope")),
              HasSubstr("\"longrope\" is not supported"));
  EXPECT_THAT(with(v3(), "deepseek2.attention.temperature_scale", gguf_f32(0.1f)),
              HasSubstr("deepseek2.attention.temperature_scale 0.1"));
  for (uint32_t gating : {3u, 99u}) {
    EXPECT_THAT(with(v3(), "deepseek2.expert_gating_func", gguf_u32(gating)),
                HasSubstr("deepseek2.expert_gating_func " + std::to_string(gating)));
  }
  EXPECT_THAT(refusal_of_metadata(v3(), [](GgufMetadata& m) { remove_key(m, "kv_lora_rank"); }),
              HasSubstr("deepseek2.attention.kv_lora_rank is missing"));
}

// --- Weights: the golden models. ---

std::vector<float> values(const TensorEntry& e) {
  std::vector<float> out(static_cast<size_t>(e.elements()));
  find_quant_format(e.dtype)->decode(e.data.data(), out.data(), e.elements());
  return out;
}
std::vector<float> hf_values(const SafetensorsReader& r, const TensorEntry& e) {
  if (e.dtype != DType::kF8E4M3) return values(e);
  std::vector<float> out(static_cast<size_t>(e.elements()));
  std::vector<float> scales = values(r.at(e.name + "_scale_inv"));
  fp8_dequantise_blocks(e.data.data(), scales.data(), e.shape[0], e.shape[1], kFp8Block, kFp8Block,
                        out.data());
  return out;
}
// n values, `step` apart, as they come back from a row of that type.
void round_trip(DType type, float* x, int64_t n, int64_t step) {
  std::vector<float> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) row[static_cast<size_t>(i)] = x[i * step];
  std::vector<uint8_t> bytes(static_cast<size_t>(row_bytes(type, n)));
  find_quant_format(type)->encode(row.data(), nullptr, bytes.data(), n);
  find_quant_format(type)->decode(bytes.data(), row.data(), n);
  for (int64_t i = 0; i < n; ++i) x[i * step] = row[static_cast<size_t>(i)];
}
// The types of the parts of every weight in a file of that mixture, by Hugging Face's name: the
// halves of kv_b are two parts.
std::multimap<std::string, DType> types_in_file(DType base, GgufKvB form, const ModelConfig& c) {
  std::multimap<std::string, DType> out;
  std::vector<GgufTensorPlan> plan = gguf_tensor_plan(c, true, form);
  std::vector<ChosenType> types = choose_types(c, plan, base);
  for (size_t i = 0; i < plan.size(); ++i) {
    bool stack = plan[i].transform == GgufTransform::kStack;
    for (int64_t e = 0; e < (stack ? plan[i].shape[0] : 1); ++e)
      out.emplace(gguf_source_name(plan[i], e), types[i].dtype);
  }
  return out;
}
// What a weight is after it was in the file: rows encoded, but the keys of kv_b, which lie
// transposed there, by columns of a head.
void as_in_file(const std::multimap<std::string, DType>& types, const ModelConfig& c,
                const TensorEntry& e, std::vector<float>& x) {
  auto [part, end] = types.equal_range(e.name);
  ASSERT_NE(part, end) << e.name;
  int64_t cols = e.shape.back(), dn = c.qk_nope_head_dim, dv = c.v_head_dim;
  bool split = std::next(part) != end;
  DType first = part->second, last = std::prev(end)->second;
  for (int64_t r = 0; r < static_cast<int64_t>(x.size()) / cols; ++r) {
    if (split && r % (dn + dv) < dn) continue;
    round_trip(last, x.data() + r * cols, cols, 1);
  }
  for (int64_t h = 0; split && h < c.num_attention_heads; ++h) {
    for (int64_t i = 0; i < cols; ++i)
      round_trip(first, x.data() + h * (dn + dv) * cols + i, dn, cols);
  }
  if (split && gguf_joined_type(first, last) == DType::kF16) {
    for (float& v : x) v = half_to_float(float_to_half(v));
  }
}

#define SKIP_WITHOUT_MODEL(folder) \
  if (!fs::exists(folder)) GTEST_SKIP() << "no reference model " << (folder) << "; set WELS_GOLDEN"

class GgufWeightsTest : public GgufFolder {
 protected:
  void SetUp() override {
    GgufFolder::SetUp();
    const char* env = std::getenv("WELS_GOLDEN");
    models_ = fs::path(env ? env : "../shared/golden") / "models";
    if (!fs::exists(models_))
      GTEST_SKIP() << "no reference data at " << models_ << "; set WELS_GOLDEN";
  }
  std::string model(const std::string& name) const { return (models_ / name).string(); }
  void export_model(const std::string& name, DType type = DType::kF32) {
    GgufExportOptions options;
    options.dtype = type;
    export_gguf(path(), config_of_folder(model(name)), SafetensorsReader(model(name)), nullptr,
                options);
  }
  // The file written again with other metadata and tensors.
  void edit(const std::function<void(GgufMetadata&, std::vector<TensorSource>&)>& change) {
    {
      GgufReader from(path());
      GgufMetadata metadata = from->metadata;
      std::vector<TensorSource> tensors;
      for (const TensorEntry& t : from->tensors) tensors.push_back(copy_of(t));
      change(metadata, tensors);
      write_gguf(path("edited.gguf"), metadata, tensors);
    }
    fs::rename(path("edited.gguf"), path());
  }
  // Old form: the halves of every kv_b replaced by the whole.
  void join_kv_b(const std::string& name, DType base) {
    ModelConfig c = config_of_folder(model(name));
    SafetensorsReader hf(model(name));
    auto types = types_in_file(base, GgufKvB::kWhole, c);
    edit([&](GgufMetadata& m, std::vector<TensorSource>& tensors) {
      as_before_the_split(m, c);
      std::erase_if(tensors, [](auto& t) { return t.name.ends_with(".attn_k_b.weight"); });
      for (TensorSource& t : tensors) {
        size_t at = t.name.find(".attn_v_b.weight");
        if (at == std::string::npos) continue;
        std::string layer = t.name.substr(4, at - 4);
        const TensorEntry& e = hf.at("model.layers." + layer + ".self_attn.kv_b_proj.weight");
        std::vector<float> x = hf_values(hf, e);
        DType type = types.find(e.name)->second;
        t = {"blk." + layer + ".attn_kv_b.weight", type, e.shape, [x, type](const ByteSink& sink) {
               int64_t n = static_cast<int64_t>(x.size());
               std::vector<uint8_t> bytes(static_cast<size_t>(row_bytes(type, n)));
               find_quant_format(type)->encode(x.data(), nullptr, bytes.data(), n);
               sink(bytes.data(), bytes.size());
             }};
      }
    });
  }
  // Every weight of the checkpoint is there under its name, with the value that the file gives it.
  void expect_weights_of(const std::string& name, DType type, GgufKvB form) {
    ModelConfig c = config_of_folder(model(name));
    SafetensorsReader hf(model(name));
    GgufCheckpoint g(path());
    ModelConfig got = without_training(g.config()), config = as_from_gguf(c);
    if (config.rope.scaling == RopeScaling::kLlama3) got.rope = config.rope;  // its own test
    EXPECT_EQ(got, config);
    std::set<std::string> names;
    auto types = types_in_file(type, form, c);
    for (const TensorEntry& e : g.tensors()) {
      ASSERT_TRUE(names.insert(e.name).second) << e.name;
      const TensorEntry* from = hf.find(e.name);
      ASSERT_NE(from, nullptr) << e.name;
      ASSERT_EQ(e.shape, from->shape) << e.name;
      ASSERT_TRUE(e.aligned()) << e.name;
      std::vector<float> want = hf_values(hf, *from);
      as_in_file(types, c, e, want);
      ASSERT_EQ(values(e), want) << e.name;
    }
    for (const TensorEntry& e : hf.tensors())
      EXPECT_EQ(names.contains(e.name), !beside_the_weights(e.name, c)) << e.name;
  }
  std::string refusal() {
    try {
      GgufCheckpoint g(path());
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  }
  fs::path models_;
};

TEST_F(GgufWeightsTest, EveryTypeOfEveryGoldenModelComesBackUnderItsNames) {
  int64_t held = 0;
  for (const auto& folder : fs::directory_iterator(models_)) {
    std::string name = folder.path().filename().string();
    ModelConfig c = config_of_folder(model(name));
    if (std::string why = beyond_gguf(c); !why.empty()) {
      std::cout << name << " left out: " << why << "\n";
      continue;
    }
    ++held;
    for (const QuantFormat& f : quant_formats()) {
      SCOPED_TRACE(name + " " + f.gguf_name);
      export_model(name, f.dtype);
      expect_weights_of(name, f.dtype, GgufKvB::kSplit);
      if (!c.is_mla()) continue;
      join_kv_b(name, f.dtype);
      expect_weights_of(name, f.dtype, GgufKvB::kWhole);
    }
  }
  EXPECT_GT(held, 0);
}

TEST_F(GgufWeightsTest, Fp8WeightsWithoutAQuantisationConfigHaveBlocksOf128) {
  SKIP_WITHOUT_MODEL(model("v3_fp8"));
  auto exported = [&](const ModelConfig& c) {
    GgufExportOptions options;
    options.dtype = DType::kF32;
    export_gguf(path(), c, SafetensorsReader(model("v3_fp8")), nullptr, options);
    return read_file(path());
  };
  ModelConfig c = load_hf_config(model("v3_fp8"));
  std::string said = exported(c);
  c.fp8 = {};
  EXPECT_TRUE(exported(c) == said);
}

// Models of rows that are multiples of 256, so that every type is really used; the published ones'
// tiny versions above have none.
class WideGgufTest : public GgufWeightsTest {
 protected:
  void SetUp() override {
    GgufFolder::SetUp();
    models_ = folder_;
  }
  static ModelConfig wide(Architecture a) {
    ModelConfig c = a == Architecture::kDeepseekV3 ? v3() : distill(a, 256, 3, 512, 8, 2, 96);
    c.vocab_size = 96;
    c.hidden_size = 256;
    c.intermediate_size = 512;
    c.torch_dtype = "float32";
    if (a != Architecture::kDeepseekV3) return c;
    c.num_hidden_layers = 2;
    c.num_attention_heads = c.num_key_value_heads = 2;
    c.q_lora_rank = c.kv_lora_rank = c.qk_nope_head_dim = c.v_head_dim = 256;
    c.n_routed_experts = 2;
    c.num_experts_per_tok = 2;
    c.moe_intermediate_size = 256;
    c.first_k_dense_replace = 1;
    c.n_group = c.topk_group = 1;
    c.num_nextn_predict_layers = 1;
    return c;
  }
  // Normal values of 0.05 under every name of the plan.
  void write_model(const std::string& name, const ModelConfig& c) {
    fs::create_directories(model(name));
    write_file_atomic(model(name) + "/config.json", to_hf_config(c));
    std::vector<TensorSource> tensors;
    Rng rng(11);
    for (const GgufTensorPlan& t : gguf_tensor_plan(c, true, GgufKvB::kWhole)) {
      if (t.transform == GgufTransform::kRopeFactors) continue;
      bool stack = t.transform == GgufTransform::kStack;
      std::vector<int64_t> shape = t.shape;
      if (stack) shape.erase(shape.begin());
      for (int64_t e = 0; e < (stack ? t.shape[0] : 1); ++e) {
        int64_t n = 1;
        for (int64_t s : shape) n *= s;
        std::vector<float> x(static_cast<size_t>(n));
        for (float& v : x) v = 0.05f * static_cast<float>(rng.normal());
        tensors.push_back(floats(gguf_source_name(t, e), shape, std::move(x)));
      }
    }
    write_safetensors(model(name) + "/model.safetensors", tensors);
  }
};

TEST_F(WideGgufTest, EveryTypeOfEveryArchitectureComesBack) {
  for (Architecture a : {Architecture::kDeepseekV3, Architecture::kQwen2, Architecture::kLlama}) {
    std::string name = architecture_name(a);
    write_model(name, wide(a));
    for (const QuantMix& mix : quant_mixes()) {
      SCOPED_TRACE(name + " " + mix.name);
      export_model(name, mix.base);
      expect_weights_of(name, mix.base, GgufKvB::kSplit);
      GgufReader g(path());
      EXPECT_EQ(g->integer("general.file_type"), mix.file_type);
      const char* most =
          a == Architecture::kDeepseekV3 ? "blk.1.ffn_gate_exps.weight" : "blk.1.ffn_gate.weight";
      EXPECT_EQ(g->tensor(most).dtype, mix.base);
    }
  }
}

TEST_F(WideGgufTest, AFileWrittenAgainInItsTypeKeepsItsBytes) {
  ModelConfig c = wide(Architecture::kDeepseekV3);
  write_model("m", c);
  export_model("m", DType::kQ4_K);
  GgufCheckpoint first(path());
  GgufExportOptions options;
  options.dtype = DType::kQ4_K;
  auto reports = export_gguf(path("again.gguf"), first.config(), first, nullptr, options).tensors;
  GgufReader again(path("again.gguf"));
  for (const GgufTensorReport& r : reports) {
    const TensorEntry &a = first.content().tensor(r.name), &b = again->tensor(r.name);
    EXPECT_EQ(a.dtype, b.dtype) << r.name;
    EXPECT_EQ(r.copied, is_quantised(a.dtype)) << r.name;
    EXPECT_TRUE(std::equal(a.data.begin(), a.data.end(), b.data.begin())) << r.name;
  }
}

TEST_F(WideGgufTest, ImportanceReachesTheRightColumnsOfEveryTensor) {
  for (Architecture a : {Architecture::kDeepseekV3, Architecture::kLlama}) {
    ModelConfig c = wide(a);
    std::string name = architecture_name(a);
    write_model(name, c);
    SafetensorsReader hf(model(name));
    ColumnImportance importance;
    Rng rng(5);
    auto columns = [&](int64_t n) {
      std::vector<float> w(static_cast<size_t>(n));
      for (float& v : w) v = static_cast<float>(std::exp(1.5 * rng.normal()));
      return w;
    };
    for (const TensorEntry& e : hf.tensors()) {
      if (e.shape.size() == 2) importance.inputs[e.name] = columns(e.cols());
      if (e.name.ends_with("kv_b_proj.weight"))
        importance.queries[e.name] = columns(c.num_attention_heads * c.qk_nope_head_dim);
    }
    GgufExportOptions options;
    options.dtype = DType::kQ4_K;
    auto write = [&](const char* file, bool weighted) {
      options.importance = weighted ? &importance : nullptr;
      export_gguf(path(file), c, hf, nullptr, options);
    };
    write("with.gguf", true);
    write("without.gguf", false);
    options.dtype = DType::kF32;
    write("f32.gguf", false);
    GgufReader with(path("with.gguf")), without(path("without.gguf")), exact(path("f32.gguf"));
    for (const GgufTensorPlan& t : gguf_tensor_plan(c, true)) {
      if (t.shape.size() == 1 || t.full_precision) continue;
      std::vector<float> x = values(exact->tensor(t.name)), y = values(with->tensor(t.name)),
                         z = values(without->tensor(t.name));
      double sum_with = 0, sum_without = 0;
      int64_t cols = t.shape.back(), rows = static_cast<int64_t>(x.size()) / cols;
      for (int64_t r = 0; r < rows; ++r) {
        bool keys = t.transform == GgufTransform::kKeysOfKvB;
        int64_t part = t.transform == GgufTransform::kStack ? r / t.shape[1] : 0;
        const std::vector<float>& w = keys ? importance.queries.at(t.source)
                                           : importance.inputs.at(gguf_source_name(t, part));
        for (int64_t i = 0; i < cols; ++i) {
          size_t at = static_cast<size_t>(r * cols + i);
          double weight =
              static_cast<double>(w[static_cast<size_t>(keys ? r / t.shape[1] * cols + i : i)]);
          sum_with += weight * std::pow(static_cast<double>(x[at] - y[at]), 2);
          sum_without += weight * std::pow(static_cast<double>(x[at] - z[at]), 2);
        }
      }
      EXPECT_LT(sum_with, 0.85 * sum_without) << t.name;
    }
  }
}

TEST_F(GgufWeightsTest, NearlyAllWeightsStayInTheMappedFile) {
  auto copied = [&](const std::string& name) {
    export_model(name);
    GgufCheckpoint g(path());
    auto inside = [](const TensorEntry& e, const TensorEntry& of) {
      return e.data.data() >= of.data.data() &&
             e.data.data() + e.data.size() <= of.data.data() + of.data.size();
    };
    std::set<std::string> out;
    for (const TensorEntry& e : g.tensors()) {
      auto& file = g.content().tensors;
      if (std::none_of(file.begin(), file.end(), [&](auto& of) { return inside(e, of); }))
        out.insert(e.name);
    }
    return out;
  };
  for (const char* name : {"qwen2_tied_f32", "v3_f32", "llama_small_orig_f32"})
    SKIP_WITHOUT_MODEL(model(name));
  EXPECT_EQ(copied("qwen2_tied_f32").size(), 0u);
  for (const std::string& n : copied("v3_f32")) EXPECT_THAT(n, HasSubstr("kv_b_proj"));
  EXPECT_EQ(copied("v3_f32").size(), 4u);  // with the MTP module's
  for (const std::string& n : copied("llama_small_orig_f32"))
    EXPECT_TRUE(n.ends_with("q_proj.weight") || n.ends_with("k_proj.weight")) << n;
  EXPECT_EQ(copied("llama_small_orig_f32").size(), 4u);
}

TEST_F(GgufWeightsTest, ModelsInSeveralFilesAreOpenedByTheFirst) {
  SKIP_WITHOUT_MODEL(model("v3_f32"));
  export_model("v3_f32");
  std::string first = path("m-00001-of-00003.gguf");
  {
    GgufReader whole(path());
    size_t n = whole->tensors.size();
    for (uint32_t part = 0; part < 3; ++part) {
      GgufMetadata m = part == 0 ? whole->metadata : GgufMetadata();
      m.emplace_back("split.no", GgufValue{GgufType::kU16, uint64_t{part}});
      m.emplace_back("split.count", GgufValue{GgufType::kU16, uint64_t{3}});
      m.emplace_back("split.tensors.count", GgufValue{GgufType::kI32, static_cast<int64_t>(n)});
      std::vector<TensorSource> tensors;  // the first part may hold metadata only
      for (size_t i = 0; part > 0 && i < n; ++i) {
        if (i % 2 == part - 1) tensors.push_back(copy_of(whole->tensors[i]));
      }
      write_gguf(path(fmt::format("m-0000{}-of-00003.gguf", part + 1)), m, tensors);
    }
  }
  GgufCheckpoint whole(path()), parts(first);
  ASSERT_EQ(parts.tensors().size(), whole.tensors().size());
  for (const TensorEntry& e : parts.tensors()) {
    auto same = std::find_if(whole.tensors().begin(), whole.tensors().end(),
                             [&](const TensorEntry& w) { return w.name == e.name; });
    ASSERT_NE(same, whole.tensors().end()) << e.name;
    EXPECT_EQ(values(e), values(*same)) << e.name;
  }
  auto refusal_of = [&](const std::string& file) {
    try {
      GgufReader g(file);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  std::string second = path("m-00002-of-00003.gguf"), third = path("m-00003-of-00003.gguf");
  EXPECT_THAT(refusal_of(second), HasSubstr("part 2 of 3; give the first part"));
  fs::remove(third);
  EXPECT_THAT(refusal_of(first), HasSubstr(third));
  fs::copy(second, third);
  EXPECT_THAT(refusal_of(first), HasSubstr("is not part 3 of 3"));
  fs::copy(path(), third, fs::copy_options::overwrite_existing);
  EXPECT_THAT(refusal_of(first), HasSubstr("split.no is missing"));
}

TEST_F(GgufWeightsTest, ATensorThatIsMissingMisshapenMistypedOrUnknownIsNamed) {
  SKIP_WITHOUT_MODEL(model("v3_f32"));
  auto with = [&](const std::string& name, const std::function<void(TensorSource&)>& change) {
    export_model("v3_f32");
    edit([&](GgufMetadata&, std::vector<TensorSource>& tensors) {
      for (TensorSource& t : tensors) {
        if (t.name == name) change(t);
      }
      std::erase_if(tensors, [](auto& t) { return t.name.empty(); });
    });
    return refusal();
  };
  const std::string up = "blk.2.ffn_up_exps.weight", v_b = "blk.0.attn_v_b.weight";
  EXPECT_EQ(with(up, [](TensorSource&) {}), "accepted");
  EXPECT_THAT(with(up, [](TensorSource& t) { t.name.clear(); }),
              HasSubstr("tensor " + up + " is missing; its metadata ask for [16, 24, 128]"));
  EXPECT_THAT(with(v_b, [](TensorSource& t) { t.name.clear(); }),
              HasSubstr("tensor " + v_b + " is missing; its metadata ask for [4, 24, 32]"));
  EXPECT_THAT(
      with(up,
           [](TensorSource& t) {
             t.shape = {16, 128, 24};
           }),
      HasSubstr("tensor " + up + " has shape [16, 128, 24]; its metadata ask for [16, 24, 128]"));
  EXPECT_THAT(with(up, [](TensorSource& t) { t.dtype = DType::kI32; }),
              HasSubstr("tensor " + up + " is i32"));
  export_model("v3_f32");
  edit([](GgufMetadata&, std::vector<TensorSource>& tensors) {
    tensors.push_back(floats("blk.1.ffn_norm.bias", {1}, {0}));
  });
  EXPECT_THAT(refusal(), HasSubstr("tensor blk.1.ffn_norm.bias has no place in this deepseek2"));
  // A type that is none of ours is refused where the file is parsed: gguf_test.
}

TEST_F(GgufWeightsTest, CopiesThatOtherWritersAddAreLeftAlone) {
  SKIP_WITHOUT_MODEL(model("v3_f32"));
  export_model("v3_f32");
  join_kv_b("v3_f32", DType::kF32);
  edit([](GgufMetadata&, std::vector<TensorSource>& tensors) {
    tensors.push_back(floats("blk.0.attn_k_b.weight", {1}, {0}));
    tensors.push_back(floats("blk.3.nextn.embed_tokens.weight", {1}, {0}));
    tensors.push_back(floats("blk.3.nextn.shared_head_head.weight", {1}, {0}));
  });
  expect_weights_of("v3_f32", DType::kF32, GgufKvB::kWhole);
}

}  // namespace
}  // namespace wels
