#include "formats/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "formats/published_configs_test.h"

namespace wels {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

ModelConfig parse(const json& j) { return parse_hf_config(j.dump()); }
std::string refusal(const json& j) {
  try {
    parse(j);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}
// The V3 config with some fields replaced, and what is said about it.
std::string refusal_of_v3_with(const char* changes) {
  json j = v3_json();
  j.update(json::parse(changes));
  return refusal(j);
}

TEST(HfConfig, ReadsEveryFieldOfV3) {
  ModelConfig c = parse(v3_json());
  EXPECT_TRUE(c.is_mla());
  EXPECT_EQ(c.q_lora_rank, 1536);
  EXPECT_EQ(c.qk_head_dim(), 192);
  EXPECT_EQ(c.kv_values_per_token(), 576);
  EXPECT_FALSE(c.is_moe_layer(2));
  EXPECT_TRUE(c.is_moe_layer(3));
  EXPECT_TRUE(c.is_moe_layer(61));
  EXPECT_TRUE(c.has_router_bias());
  EXPECT_EQ(c.rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(c.rope.factor, 40);
  EXPECT_EQ(c.rope.original_max_position_embeddings, 4096);
  EXPECT_EQ(c.fp8.block_rows, 128);
  EXPECT_EQ(c.eos_token_ids, std::vector<int64_t>{1});
  EXPECT_TRUE(c.mtp_hidden_after_norm);
}

TEST(HfConfig, ReadsTheSpellingsOfOtherWriters) {
  json j = v2_lite_json();
  j["q_lora_rank"] = 0;
  j["eos_token_id"] = {1, 5};
  j["rope_scaling"]["rope_type"] = j["rope_scaling"]["type"];
  j["rope_scaling"].erase("type");
  j["dtype"] = "float32";
  j.erase("torch_dtype");
  j["wels"] = {{"mtp_hidden_after_norm", false}};
  ModelConfig c = parse(j);
  EXPECT_EQ(c.q_lora_rank, 0);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int64_t>{1, 5}));
  EXPECT_EQ(c.rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(c.torch_dtype, "float32");
  EXPECT_FALSE(c.mtp_hidden_after_norm);
  j["rope_scaling"]["beta_fast"] = 1;  // Kimi-K2
  j["rope_scaling"]["beta_slow"] = 1;
  EXPECT_EQ(parse(j).rope.beta_fast, 1);
  j["rope_scaling"]["beta_slow"] = 2;
  EXPECT_THAT(refusal(j), HasSubstr("beta_fast 1 is below beta_slow 2"));
  json q = qwen2_json();
  q.erase("rope_theta");
  q["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  EXPECT_EQ(parse(q).rope.theta, 1e6);
  EXPECT_TRUE(parse(q).attention_bias);
}

TEST(HfConfig, IdsOfNoTokenAreLeftOutWithANote) {
  json j = v3_json();
  j["bos_token_id"] = -1;
  j["pad_token_id"] = -2;
  j["eos_token_id"] = {129280, 1, -5};
  testing::internal::CaptureStderr();
  ModelConfig c = parse(j);
  std::string notes = testing::internal::GetCapturedStderr();
  EXPECT_EQ(c.bos_token_id, -1);
  EXPECT_EQ(c.pad_token_id, -1);
  EXPECT_EQ(c.eos_token_ids, std::vector<int64_t>{1});
  EXPECT_THAT(notes, HasSubstr("eos_token_id 129280 is outside the vocabulary of 129280"));
  EXPECT_THAT(notes, HasSubstr("pad_token_id -2"));
  EXPECT_THAT(notes, testing::Not(HasSubstr("bos_token_id")));
}

TEST(HfConfig, ReadsBackWhatItWrites) {
  json llama = qwen2_json();
  llama["architectures"] = {"LlamaForCausalLM"};
  llama["head_dim"] = 100;
  llama["rope_scaling"] = {{"factor", 8.0},
                           {"high_freq_factor", 4.0},
                           {"low_freq_factor", 1.0},
                           {"original_max_position_embeddings", 8192},
                           {"rope_type", "llama3"}};
  json dense = v3_json();
  dense["n_routed_experts"] = nullptr;
  json powers = v3_json();
  powers["quantization_config"]["scale_fmt"] = "ue8m0";
  powers["wels"] = {{"mtp_hidden_after_norm", false}};
  json linear = qwen2_json();
  linear["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  EXPECT_EQ(parse(linear).rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(parse(linear).rope.factor, 4);
  for (const json& j :
       {v3_json(), v2_json(), v2_lite_json(), qwen2_json(), llama, dense, powers, linear}) {
    ModelConfig c = parse(j);
    EXPECT_EQ(parse_hf_config(to_hf_config(c)), c) << to_hf_config(c);
  }
}

// Whether a file's field and ours say the same: null is absent, 0 experts or ranks are none, and a
// list of one is that one.
bool agrees(const json& theirs, const json& ours) {
  if (theirs.is_null()) return true;
  if (theirs.is_array() && theirs.size() == 1 && !ours.is_array()) return agrees(theirs[0], ours);
  if (ours.is_null())
    return theirs == 0 || (theirs.is_object() && theirs.value("rope_type", "default") == "default");
  if (!theirs.is_object()) return theirs == ours;
  for (auto& [key, value] : ours.items()) {
    if (theirs.contains(key) && !agrees(theirs[key], value)) return false;
  }
  return true;
}

TEST(HfConfig, ReadsEveryGoldenModel) {
  const char* env = std::getenv("WELS_GOLDEN");
  std::filesystem::path models = std::filesystem::path(env ? env : "../shared/golden") / "models";
  if (!std::filesystem::exists(models))
    GTEST_SKIP() << "no reference data at " << models << "; set WELS_GOLDEN";
  for (const auto& folder : std::filesystem::directory_iterator(models)) {
    SCOPED_TRACE(folder.path().string());
    ModelConfig c = load_hf_config(folder.path().string());
    json file = json::parse(read_file((folder.path() / "config.json").string()));
    json ours = json::parse(to_hf_config(c));
    // Every field that we write and the file has must agree, but for what other fields outweigh.
    if (file.contains("rope_parameters")) {
      const json rope = file["rope_parameters"];
      file["rope_scaling"] = rope;
      file["rope_theta"] = rope.value("rope_theta", file.value("rope_theta", 10000.0));
    }
    file.erase("model_type");
    if (file.value("use_sliding_window", false)) file.erase("max_position_embeddings");
    for (auto& [key, value] : ours.items()) {
      EXPECT_TRUE(!file.contains(key) || agrees(file[key], value))
          << key << " " << file[key] << " " << value;
    }
    EXPECT_EQ(parse(ours), c);
  }
}

TEST(HfConfig, SaysWhichDimensionsDoNotFitAndWhatWould) {
  json q = qwen2_json();
  q["hidden_size"] = 100;
  EXPECT_EQ(refusal(q),
            "config.json: num_attention_heads 12 does not divide hidden_size 100; use 10 or 20");
  q = qwen2_json();
  q["num_key_value_heads"] = 5;
  EXPECT_EQ(
      refusal(q),
      "config.json: num_key_value_heads 5 does not divide num_attention_heads 12; use 4 or 6");
  q["num_key_value_heads"] = 24;
  EXPECT_EQ(refusal(q),
            "config.json: num_key_value_heads 24 does not divide num_attention_heads 12; use 12");
  EXPECT_EQ(refusal_of_v3_with(R"({"qk_rope_head_dim": 63})"),
            "config.json: qk_rope_head_dim 63 is odd, but RoPE rotates pairs; use 62 or 64");
  EXPECT_EQ(refusal_of_v3_with(R"({"n_group": 7})"),
            "config.json: n_group 7 does not divide n_routed_experts 256; use 4 or 8");
  EXPECT_EQ(refusal_of_v3_with(R"({"num_experts_per_tok": 40, "topk_group": 1})"),
            "config.json: num_experts_per_tok 40 exceeds the 32 experts of topk_group 1 groups of "
            "32; use at most 32 "
            "experts, or topk_group 2");
  EXPECT_EQ(refusal_of_v3_with(R"({"topk_group": 9})"),
            "config.json: topk_group is 9; it must be between 1 and 8");
  EXPECT_THAT(refusal_of_v3_with(R"({"n_group": 256, "topk_group": 256})"),
              HasSubstr("use at most 128 groups"));
  EXPECT_THAT(refusal_of_v3_with(R"({"num_key_value_heads": 8})"),
              HasSubstr("set num_key_value_heads to 128"));
  EXPECT_THAT(refusal_of_v3_with(R"({"hidden_size": -1})"), HasSubstr("hidden_size is -1"));
  EXPECT_THAT(refusal_of_v3_with(R"({"num_hidden_layers": 9223372036854775807})"),
              HasSubstr("num_hidden_layers is"));
}

TEST(HfConfig, RefusesWhatItDoesNotComputeByName) {
  json q = qwen2_json();
  q["architectures"] = {"MixtralForCausalLM"};
  EXPECT_THAT(
      refusal(q),
      HasSubstr("architecture \"MixtralForCausalLM\" is not supported; supported: DeepseekV2"));
  EXPECT_THAT(refusal_of_v3_with(R"({"hidden_act": "gelu"})"), HasSubstr("hidden_act \"gelu\""));
  EXPECT_THAT(refusal_of_v3_with(R"({"rope_scaling": {"type": "dynamic", "factor": 2}})"),
              HasSubstr("\"dynamic\""));
  EXPECT_THAT(refusal_of_v3_with(R"({"quantization_config": {"quant_method": "gptq"}})"),
              HasSubstr("\"gptq\""));
  for (const char* block : {"[100, 100]", "[64, 64]", "[1, 128]", "[130, 128]", "[0, 128]"}) {
    std::string fp8 = R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": )" +
                      std::string(block) + "}}";
    EXPECT_THAT(refusal_of_v3_with(fp8.c_str()),
                HasSubstr("weight_block_size " + std::string(block) + " is not supported"));
  }
  EXPECT_THAT(refusal_of_v3_with(R"({"scoring_func": "tanh"})"), HasSubstr("\"tanh\""));
  EXPECT_THAT(refusal_of_v3_with(R"({"attention_bias": true})"),
              HasSubstr("attention_bias is true; latent attention with biases is not supported"));
  json llama = qwen2_json();
  llama["architectures"] = {"LlamaForCausalLM"};
  llama["attention_bias"] = true;
  EXPECT_THAT(refusal(llama),
              HasSubstr("attention_bias is true; Llama's attention with biases is not supported"));
}

TEST(HfConfig, RopeScalingSaysAllThatItIsComputedFrom) {
  json yarn = v3_json()["rope_scaling"], llama3 = {{"rope_type", "llama3"},
                                                   {"factor", 8.0},
                                                   {"high_freq_factor", 4.0},
                                                   {"low_freq_factor", 1.0},
                                                   {"original_max_position_embeddings", 8192}};
  auto refusal_with = [](json j, const json& scaling, const char* key = "rope_scaling") {
    j[key] = scaling;
    return refusal(j);
  };
  auto without = [](json scaling, const char* key) {
    scaling.erase(key);
    return scaling;
  };
  EXPECT_EQ(refusal_with(qwen2_json(), llama3), "accepted");
  for (const char* key :
       {"factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings"})
    EXPECT_THAT(refusal_with(qwen2_json(), without(llama3, key)),
                HasSubstr("rope_scaling." + std::string(key) + " is missing"));
  EXPECT_THAT(refusal_with(v3_json(), without(yarn, "factor")),
              HasSubstr("rope_scaling.factor is missing"));
  EXPECT_THAT(refusal_with(qwen2_json(), {{"type", "linear"}}),
              HasSubstr("rope_scaling.factor is missing"));
  yarn["truncate"] = false;
  EXPECT_THAT(refusal_with(v3_json(), yarn), HasSubstr("rope_scaling.truncate is false"));
  EXPECT_THAT(refusal_with(qwen2_json(), yarn), HasSubstr("rope_scaling.truncate is false"));
  yarn["truncate"] = true;
  yarn["attention_factor"] = 1.1;
  EXPECT_THAT(refusal_with(v3_json(), yarn), HasSubstr("rope_scaling.attention_factor is 1.1"));
  EXPECT_EQ(refusal_with(qwen2_json(), yarn), "accepted");
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    json partial = {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}};
    EXPECT_THAT(refusal_with(qwen2_json(), partial, key),
                HasSubstr(std::string(key) + ".partial_rotary_factor is not 1"));
  }
}

// transformers: _compute_yarn_parameters.
TEST(HfConfig, YarnWithTwoMscalesHasTheirRatioWhereNoFactorIsGiven) {
  json j = qwen2_json();
  j["rope_scaling"] = {{"type", "yarn"}, {"factor", 40}, {"mscale", 1.0}, {"mscale_all_dim", 0.5}};
  double ratio = (0.1 * std::log(40) + 1) / (0.05 * std::log(40) + 1);
  EXPECT_DOUBLE_EQ(parse(j).rope.attention_factor, ratio);
  EXPECT_EQ(parse_hf_config(to_hf_config(parse(j))), parse(j));
  j["rope_scaling"]["attention_factor"] = 1.5;
  EXPECT_EQ(parse(j).rope.attention_factor, 1.5);
  j["rope_scaling"].erase("attention_factor");
  j["rope_scaling"]["mscale_all_dim"] = 0;
  EXPECT_EQ(parse(j).rope.attention_factor, 0);  // 0.1 ln s + 1
}

TEST(HfConfig, Qwen2AlwaysHasItsBiases) {
  json j = qwen2_json();
  j["attention_bias"] = false;
  EXPECT_EQ(parse(j), parse(qwen2_json()));
}

TEST(HfConfig, TheContextOfSlidingLayersEndsAtTheirWindow) {
  json j = qwen2_json();
  j["use_sliding_window"] = true;
  testing::internal::CaptureStderr();
  EXPECT_EQ(parse(j).max_position_embeddings, 4096);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("window of 4096 tokens"));
  j["sliding_window"] = 1 << 20;
  EXPECT_EQ(parse(j).max_position_embeddings, 131072);
  j["sliding_window"] = 4096;
  j["max_window_layers"] = 28;  // from this layer on
  EXPECT_EQ(parse(j).max_position_embeddings, 131072);
  j["max_window_layers"] = 0;
  j["sliding_window"] = 0;
  EXPECT_THAT(refusal(j), HasSubstr("max_position_embeddings is 0"));
}

TEST(HfConfig, RefusesBadJson) {
  EXPECT_THROW(parse_hf_config(""), Error);
  EXPECT_THROW(parse_hf_config("[]"), Error);
  EXPECT_THROW(parse_hf_config("{\"vocab_size\": 1"), Error);
  EXPECT_THROW(parse_hf_config("{\"a\": \"\xff\"}"), Error);
  EXPECT_THROW(parse_hf_config(std::string(100000, '[')), Error);
  EXPECT_THROW(parse_hf_config(R"({"vocab_size": 1e999})"), Error);
  json j = v3_json();
  std::string twice = j.dump();
  twice.insert(1, "\"vocab_size\": 5, ");
  try {
    parse_hf_config(twice, "model/config.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "model/config.json: key \"vocab_size\" appears twice in one JSON object");
  }
  EXPECT_THAT(refusal_of_v3_with(R"({"vocab_size": "many"})"),
              HasSubstr("vocab_size is \"many\"; it must be an integer"));
  EXPECT_THAT(refusal_of_v3_with(R"({"vocab_size": null})"), HasSubstr("vocab_size is missing"));
}

}  // namespace
}  // namespace wels
