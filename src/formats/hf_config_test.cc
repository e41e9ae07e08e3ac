#include "formats/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
    // Every field that we write and the file has must agree.
    for (auto& [key, value] : ours.items()) {
      if (key == "rope_scaling" && value.is_object()) {
        for (auto& [k, v] : file[key].items()) EXPECT_EQ(value[k], v) << k;
      } else if (file.contains(key)) {
        EXPECT_EQ(file[key], value) << key;
      }
    }
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
  q = qwen2_json();
  q["use_sliding_window"] = true;
  EXPECT_THAT(refusal(q), HasSubstr("use_sliding_window"));
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
  EXPECT_THAT(refusal_of_v3_with(R"({"attention_bias": true})"), HasSubstr("attention_bias"));
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
