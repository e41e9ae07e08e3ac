#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/hf_config.h"
#include "formats/published_configs_test.h"

namespace wels {
namespace {

using ::testing::HasSubstr;

ModelConfig parse(const nlohmann::json& j) { return parse_hf_config(j.dump()); }

TEST(ParameterCount, ReproducesThePublishedSizesOfV3) {
  ParameterCount n = count_parameters(parse(v3_json()));
  EXPECT_NEAR(static_cast<double>(n.total), 671.03e9, 0.005e9);
  EXPECT_NEAR(static_cast<double>(n.active), 37.55e9, 0.005e9);
  // README_WEIGHTS.md says 11.5B unique: the block alone, without the projection of [embedding;
  // hidden] (0.1B).
  EXPECT_NEAR(static_cast<double>(n.mtp - 2 * int64_t{7168} * 7168), 11.5e9, 0.05e9);
  EXPECT_EQ(n.embedding, 129280 * int64_t{7168});
  EXPECT_EQ(n.router_bias, 59 * 256);
}

TEST(ParameterCount, ReproducesThePublishedSizesOfV2AndV2Lite) {
  ParameterCount v2 = count_parameters(parse(v2_json())),
                 lite = count_parameters(parse(v2_lite_json()));
  EXPECT_NEAR(static_cast<double>(v2.total), 235.74e9, 0.005e9);
  EXPECT_NEAR(static_cast<double>(v2.active), 21.4e9, 0.05e9);
  EXPECT_NEAR(static_cast<double>(lite.total), 15.71e9, 0.005e9);
  EXPECT_NEAR(static_cast<double>(lite.active), 2.66e9, 0.01e9);
}

TEST(ParameterCount, CountsTheTensorsOfQwen2ByHand) {
  ParameterCount n = count_parameters(parse(qwen2_json()));
  int64_t layer = 1536 * 1536 * 2 + 2 * 1536 * 256 + 1536 + 2 * 256 + 3 * 1536 * 8960 + 2 * 1536;
  EXPECT_EQ(n.total, 28 * layer + 2 * 151936 * int64_t{1536} + 1536);
  EXPECT_EQ(n.active, n.total);
}

TEST(ParameterCount, RefusesWhatNoFileCanHold) {
  ModelConfig c = parse(v3_json());
  c.hidden_size = c.moe_intermediate_size = 1 << 20;
  c.n_routed_experts = 1 << 16;
  c.num_hidden_layers = 64;
  c.validate();
  try {
    count_parameters(c);
    FAIL() << "counted";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("e+19 parameters are beyond what a file can hold"));
  }
}

}  // namespace
}  // namespace wels
