#include "formats/gguf_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <set>

#include "base/error.h"
#include "formats/gguf_checkpoint.h"
#include "formats/gguf_folder_test.h"
#include "formats/hf_config.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

#define SKIP_WITHOUT_MODEL(folder) \
  if (!fs::exists(folder)) GTEST_SKIP() << "no reference model " << (folder) << "; set WELS_GOLDEN"

class GgufModel : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* env = std::getenv("WELS_GOLDEN");
    models_ = fs::path(env ? env : "../shared/golden") / "models";
    if (!fs::exists(models_))
      GTEST_SKIP() << "no reference data at " << models_ << "; set WELS_GOLDEN";
    folder_ = fs::temp_directory_path() / ("wels_gguf_model_test_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override {
    if (!folder_.empty()) fs::remove_all(folder_);
  }
  fs::path models_, folder_;
};

std::vector<float> values(const TensorEntry& e) {
  std::vector<float> out(static_cast<size_t>(e.elements()));
  find_quant_format(e.dtype)->decode(e.data.data(), out.data(), e.elements());
  return out;
}
std::vector<float> hf_values(const SafetensorsReader& r, const std::string& name) {
  const TensorEntry& e = r.at(name);
  if (e.dtype != DType::kF8E4M3) return values(e);
  std::vector<float> out(static_cast<size_t>(e.elements())),
      scales = values(r.at(name + "_scale_inv"));
  fp8_dequantise_blocks(e.data.data(), scales.data(), e.shape[0], e.shape[1], kFp8Block, kFp8Block,
                        out.data());
  return out;
}

// The same function of rope_freqs under another original context is the same scaling.
void take_same_llama3(RopeConfig& got, const ModelConfig& want, const ModelConfig& c) {
  if (c.rope.scaling != RopeScaling::kLlama3) return;
  std::vector<float> x = gguf_rope_factors(want), y = gguf_rope_factors(c);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], 1e-5f * y[i]) << i;
  got = c.rope;
}

TEST_F(GgufModel, EveryGoldenModelKeepsItsValuesAndItsConfig) {
  int64_t held = 0;
  for (const auto& model : fs::directory_iterator(models_)) {
    SCOPED_TRACE(model.path().filename().string());
    ModelConfig c = config_of_folder(model.path().string());
    if (std::string why = beyond_gguf(c); !why.empty()) {
      std::cout << model.path().filename().string() << " left out: " << why << "\n";
      continue;
    }
    ++held;
    SafetensorsReader hf(model.path().string());
    GgufExportOptions options;
    options.dtype = DType::kF32;
    options.include_mtp = true;
    std::string path = (folder_ / "m.gguf").string();
    export_gguf(path, c, hf, nullptr, options);
    GgufReader g(path);
    ModelConfig back = gguf_model_config(g.content()), want = as_from_gguf(c);
    take_same_llama3(back.rope, back, want);
    EXPECT_EQ(without_training(back), want);
    std::set<std::string> used;
    for (const GgufTensorPlan& t : gguf_tensor_plan(c, true)) {
      const TensorEntry& e = g->tensor(t.name);
      EXPECT_EQ(e.shape, t.shape) << t.name;
      std::vector<float> got = values(e);
      if (t.transform == GgufTransform::kRopeFactors) continue;
      bool stack = t.transform == GgufTransform::kStack;
      for (int64_t s = 0; s < (stack ? t.shape[0] : 1); ++s) {
        std::string source = gguf_source_name(t, s);
        used.insert(source);
        std::vector<float> from = hf_values(hf, source);
        int64_t dn = c.qk_nope_head_dim, dv = c.v_head_dim, r = c.kv_lora_rank;
        auto at = [&](const std::vector<float>& v, int64_t i) { return v[static_cast<size_t>(i)]; };
        switch (t.transform) {
          case GgufTransform::kCopy:
            ASSERT_EQ(got, from) << t.name;
            break;
          case GgufTransform::kStack:
            ASSERT_TRUE(std::equal(from.begin(), from.end(),
                                   got.begin() + s * static_cast<int64_t>(from.size())))
                << t.name;
            break;
          case GgufTransform::kKeysOfKvB:
            for (int64_t h = 0; h < t.heads; ++h)
              for (int64_t i = 0; i < dn; ++i)
                for (int64_t j = 0; j < r; ++j)
                  ASSERT_EQ(at(got, (h * r + j) * dn + i), at(from, (h * (dn + dv) + i) * r + j));
            break;
          case GgufTransform::kValuesOfKvB:
            for (int64_t h = 0; h < t.heads; ++h)
              for (int64_t i = 0; i < dv; ++i)
                for (int64_t j = 0; j < r; ++j)
                  ASSERT_EQ(at(got, (h * dv + i) * r + j),
                            at(from, (h * (dn + dv) + dn + i) * r + j));
            break;
          case GgufTransform::kPairRows: {
            int64_t cols = t.shape[1], width = c.head_dim;
            for (int64_t h = 0; h < t.heads; ++h)
              for (int64_t i = 0; i < width;
                   ++i) {  // element i of a rotated half belongs to pair i % (width / 2)
                int64_t to = h * width + i % (width / 2) * 2 + i / (width / 2);
                for (int64_t j = 0; j < cols; ++j)
                  ASSERT_EQ(at(got, to * cols + j), at(from, (h * width + i) * cols + j));
              }
            break;
          }
          case GgufTransform::kRopeFactors:
            FAIL();
        }
      }
    }
    for (const TensorEntry& e : hf.tensors())
      EXPECT_EQ(used.contains(e.name), !beside_the_weights(e.name, c)) << e.name;
    EXPECT_EQ(g->tensors.size(), gguf_tensor_plan(c, true).size());
  }
  EXPECT_GT(held, 0);
}

TEST_F(GgufModel, TheFileOfV3HasTheNamesAndNumbersOfTheConverter) {
  SKIP_WITHOUT_MODEL(models_ / "v3_f32");
  ModelConfig c = load_hf_config((models_ / "v3_f32").string());
  SafetensorsReader hf((models_ / "v3_f32").string());
  GgufTokenizer tokenizer;
  tokenizer.pre = "deepseek-v3";
  for (int i = 0; i < 380; ++i) {
    tokenizer.tokens.push_back("t" + std::to_string(i));
    tokenizer.types.push_back(i < 2 ? 3 : 1);
  }
  tokenizer.merges = {"a b"};
  tokenizer.bos = 0;
  tokenizer.eos = 1;
  tokenizer.add_bos = true;
  tokenizer.chat_template = "{{ x }}";
  GgufExportOptions options;
  options.dtype = DType::kQ8_0;
  options.include_mtp = false;
  std::string path = (folder_ / "m.gguf").string();
  export_gguf(path, c, hf, &tokenizer, options);
  GgufReader g(path);
  EXPECT_EQ(g->text("general.architecture"), "deepseek2");
  EXPECT_EQ(g->integer("general.file_type"), 7);
  EXPECT_EQ(g->integer("deepseek2.block_count"), 3);
  EXPECT_FALSE(g->has("deepseek2.nextn_predict_layers"));
  EXPECT_EQ(g->integer("deepseek2.attention.head_count_kv"), 1);
  EXPECT_EQ(g->integer("deepseek2.attention.key_length"), 48);
  EXPECT_EQ(g->integer("deepseek2.attention.value_length"), 32);
  EXPECT_EQ(g->integer("deepseek2.attention.key_length_mla"), 32);
  EXPECT_EQ(g->integer("deepseek2.attention.value_length_mla"), 24);
  EXPECT_EQ(g->integer("deepseek2.attention.q_lora_rank"), 48);
  EXPECT_EQ(g->integer("deepseek2.leading_dense_block_count"), 1);
  EXPECT_EQ(g->integer("deepseek2.expert_count"), 16);
  EXPECT_EQ(g->integer("deepseek2.expert_used_count"), 4);
  EXPECT_EQ(g->integer("deepseek2.expert_shared_count"), 1);
  EXPECT_EQ(g->integer("deepseek2.expert_group_count"), 4);
  EXPECT_EQ(g->integer("deepseek2.expert_group_used_count"), 2);
  EXPECT_EQ(g->integer("deepseek2.expert_gating_func"), 2);
  EXPECT_TRUE(g->boolean("deepseek2.expert_weights_norm"));
  EXPECT_EQ(g->number("deepseek2.expert_weights_scale"), 2.5);
  EXPECT_EQ(g->integer("deepseek2.rope.dimension_count"), 16);
  EXPECT_EQ(g->text("deepseek2.rope.scaling.type"), "yarn");
  EXPECT_FLOAT_EQ(static_cast<float>(g->number("deepseek2.rope.scaling.yarn_log_multiplier")),
                  0.1f);
  EXPECT_EQ(g->text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(g->text("tokenizer.ggml.pre"), "deepseek-v3");
  EXPECT_EQ(g->strings("tokenizer.ggml.tokens").size(), 384u);
  EXPECT_EQ(g->strings("tokenizer.ggml.tokens")[383], "[PAD383]");
  EXPECT_EQ(g->integers("tokenizer.ggml.token_type")[383], 5);
  EXPECT_EQ(g->tensor("blk.1.ffn_gate_exps.weight").shape, (std::vector<int64_t>{16, 24, 128}));
  EXPECT_EQ(g->tensor("blk.1.ffn_gate_exps.weight").dtype, DType::kQ8_0);
  EXPECT_EQ(g->tensor("blk.1.ffn_down_exps.weight").dtype, DType::kF16);  // rows of 24
  EXPECT_EQ(g->tensor("blk.1.ffn_gate_inp.weight").dtype, DType::kF32);
  EXPECT_EQ(g->tensor("blk.1.exp_probs_b.bias").dtype, DType::kF32);
  EXPECT_EQ(g->tensor("blk.0.attn_norm.weight").dtype, DType::kF32);
  EXPECT_EQ(g->find_tensor("blk.3.attn_norm.weight"), nullptr);
  options.include_mtp = true;
  EXPECT_EQ(gguf_metadata(c, nullptr, {})[3].first, "deepseek2.block_count");
  export_gguf(path, c, hf, nullptr, options);
  GgufReader with_mtp(path);
  EXPECT_EQ(with_mtp->integer("deepseek2.block_count"), 4);
  EXPECT_EQ(with_mtp->integer("deepseek2.nextn_predict_layers"), 1);
  EXPECT_EQ(with_mtp->tensor("blk.3.nextn.eh_proj.weight").shape, (std::vector<int64_t>{128, 256}));
  tokenizer.tokens.resize(400);
  tokenizer.types.resize(400);
  EXPECT_THROW(gguf_metadata(c, &tokenizer, {}), Error);
}

TEST_F(GgufModel, RopeFactorsOfLlama3RunFromOneToTheFactor) {
  SKIP_WITHOUT_MODEL(models_ / "llama_bf16");
  ModelConfig c = load_hf_config((models_ / "llama_bf16").string());
  SafetensorsReader hf((models_ / "llama_bf16").string());
  std::string path = (folder_ / "m.gguf").string();
  export_gguf(path, c, hf, nullptr, {});
  GgufReader g(path);
  std::vector<float> f = values(g->tensor("rope_freqs.weight"));
  ASSERT_EQ(f.size(), 8u);
  EXPECT_EQ(f.front(), 1.0f);
  EXPECT_EQ(f.back(), 8.0f);
  // The one in the middle by hand: theta^(-2i/16) has wavelength 2 pi theta^(i/8).
  for (size_t i = 0; i < 8; ++i) {
    double wavelength = 2 * M_PI * std::pow(500000.0, static_cast<double>(i) / 8),
           turns = 8192 / wavelength;
    double want = turns > 4 ? 1 : turns < 1 ? 8 : 1 / ((1 - (turns - 1) / 3) / 8 + (turns - 1) / 3);
    EXPECT_NEAR(f[i], want, 1e-5 * want) << i;
  }
}

TEST_F(GgufModel, RefusesWhatTheArchitectureCannotExpress) {
  SKIP_WITHOUT_MODEL(models_ / "v3_f32");
  ModelConfig c = load_hf_config((models_ / "v3_f32").string());
  SafetensorsReader hf((models_ / "v3_f32").string());
  auto refusal = [&](const ModelConfig& cfg, GgufExportOptions options = {}) {
    try {
      export_gguf((folder_ / "no.gguf").string(), cfg, hf, nullptr, options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal(c), "accepted");
  ModelConfig bad = c;
  bad.moe_layer_freq = 2;
  EXPECT_THAT(refusal(bad), HasSubstr("moe_layer_freq 2"));
  bad = c;
  bad.n_shared_experts = 0;
  EXPECT_THAT(refusal(bad), HasSubstr("shared experts"));
  bad = c;
  bad.rope.mscale = 0.5;
  EXPECT_THAT(refusal(bad), HasSubstr("mscale 0.5"));
  bad = c;
  bad.num_hidden_layers = 27;
  EXPECT_THAT(refusal(bad), HasSubstr("V2-Lite"));
  bad = c;
  bad.num_hidden_layers = 5;
  EXPECT_THAT(refusal(bad), HasSubstr("model.layers.4"));
  bad = c;
  bad.intermediate_size = 100;
  EXPECT_THAT(refusal(bad),
              HasSubstr("mlp.gate_proj.weight has shape [192, 128], the config wants [100, 128]"));
  GgufExportOptions choice;
  choice.choices = {{"blk.*.ffn_gate.weight", DType::kQ8_0}};
  EXPECT_EQ(refusal(c, choice), "accepted");
  choice.choices = {{"blk.*.ffn_gat.weight", DType::kQ8_0}};
  EXPECT_THAT(refusal(c, choice), HasSubstr("\"blk.*.ffn_gat.weight\" matches no tensor"));
  choice.choices = {{"*_norm.weight", DType::kQ8_0}};
  EXPECT_THAT(refusal(c, choice), HasSubstr("matches only tensors that stay f32"));
}

}  // namespace
}  // namespace wels
