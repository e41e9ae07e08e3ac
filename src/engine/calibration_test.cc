// What calibration finds in a model's products against sums by hand over what it shows of itself.
#include "engine/calibration.h"

#include <gtest/gtest.h>

#include <numeric>

#include "backend/registry.h"
#include "base/rng.h"
#include "tests/golden.h"

namespace wels {
namespace {

ModelConfig tiny(bool mla) {
  ModelConfig c;
  c.vocab_size = 64;
  c.hidden_size = 48;
  c.num_hidden_layers = 2;
  c.intermediate_size = 64;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.max_position_embeddings = 256;
  if (!mla) {
    c.architecture = Architecture::kQwen2;
    c.attention = AttentionKind::kGqa;
    c.attention_bias = true;
    c.num_key_value_heads = 1;
    c.head_dim = 24;
    c.tie_word_embeddings = true;
    return c;
  }
  c.q_lora_rank = 16;
  c.kv_lora_rank = 24;
  c.qk_nope_head_dim = 16;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 20;
  c.n_routed_experts = 4;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = 32;
  c.first_k_dense_replace = 1;
  c.n_group = c.topk_group = 1;
  c.num_nextn_predict_layers = 1;
  return c;
}

std::vector<int32_t> some_ids(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(64));
  return ids;
}

// Mean squares of the columns of some rows.
std::vector<double> mean_squares(const Tensor& x, const std::vector<int64_t>& rows) {
  std::vector<double> out(static_cast<size_t>(x.cols));
  for (int64_t r : rows) {
    for (int64_t c = 0; c < x.cols; ++c) {
      double v = static_cast<double>(x.row<float>(r)[c]);
      out[static_cast<size_t>(c)] += v * v / static_cast<double>(rows.size());
    }
  }
  return out;
}
void expect_close(const std::vector<float>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(static_cast<double>(got[i]), want[i], 1e-4 * want[i] + 1e-12) << i;
}

TEST(Calibration, HeadQueriesAndExpertsSeeWhatTheModelComputed) {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model model(tiny(true));
  model.init(DType::kF32, 3, false);
  std::vector<int32_t> ids = some_ids(61, 1);
  Calibration calibration(*dev, model, DType::kF32, false);
  calibration.add(ids);
  EXPECT_EQ(calibration.tokens(), 60);
  EXPECT_NEAR(calibration.nats_per_token(), std::log(64.0), 0.5);
  ColumnImportance got = calibration.importance();

  Pool pool;
  Ctx ctx{.dev = *dev, .pool = pool, .tape = nullptr, .dtype = DType::kF32};
  Batch batch;
  batch.append(std::span(ids).first(60));
  ForwardOptions options;
  std::vector<Var> query, expert;
  options.observe = [&](const std::string& name, const Var& v) {
    if (name.ends_with(".query")) query.push_back(v);
    if (name.ends_with(".expert")) expert.push_back(v);
  };
  Var h = model.hidden(ctx, batch, options);
  std::vector<int64_t> all(60);
  std::iota(all.begin(), all.end(), 0);
  expect_close(got.inputs.at("lm_head.weight"), mean_squares(h.t, all));
  ASSERT_EQ(query.size(), 2u);
  for (size_t layer = 0; layer < 2; ++layer) {
    std::vector<double> q = mean_squares(query[layer].t, all), unrotated;
    for (int head = 0; head < 2; ++head)
      unrotated.insert(unrotated.end(), q.begin() + head * 24, q.begin() + head * 24 + 16);
    expect_close(
        got.queries.at("model.layers." + std::to_string(layer) + ".self_attn.kv_b_proj.weight"),
        unrotated);
  }
  // All products have one; the router and MTP, which did not run, have none.
  EXPECT_EQ(got.inputs.size(), 1u + 2 * 5 + 3 + 3 + 4 * 3);
  EXPECT_EQ(got.inputs.at("model.layers.0.self_attn.kv_b_proj.weight").size(), 24u);
  EXPECT_EQ(got.inputs.at("model.layers.1.mlp.experts.3.down_proj.weight").size(), 32u);
  EXPECT_FALSE(got.inputs.contains("model.layers.1.mlp.gate.weight"));
  // Gate and up read the same rows; experts of different rows differ; the mean over experts, by
  // their rows, is that of the shared expert's input counted twice (two choices a token).
  std::vector<double> mean(48);
  double rows = 0;
  for (int e = 0; e < 4; ++e) {
    std::string name = "model.layers.1.mlp.experts." + std::to_string(e);
    std::vector<float> gate = got.inputs.at(name + ".gate_proj.weight");
    EXPECT_EQ(gate, got.inputs.at(name + ".up_proj.weight"));
    double n = Calibration::kPriorRows;
    for (int64_t r = 0; r < 60; ++r)
      for (int j = 0; j < 2; ++j) n += expert[0].t.row<int32_t>(r)[j] == e;
    for (size_t i = 0; i < 48; ++i) mean[i] += static_cast<double>(gate[i]) * n;
    rows += n;
  }
  for (double& v : mean) v /= rows;
  expect_close(got.inputs.at("model.layers.1.mlp.shared_experts.gate_proj.weight"), mean);
}

TEST(Calibration, MtpModulesAndTiedHeadsHaveTheirInputsToo) {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model v3(tiny(true)), qwen(tiny(false));
  v3.init(DType::kF32, 3, false);
  qwen.init(DType::kF32, 4, false);
  Calibration with_mtp(*dev, v3, DType::kF32, true), tied(*dev, qwen, DType::kF32, true);
  for (int64_t n : {2, 3, 40}) {
    with_mtp.add(some_ids(n, 2));
    tied.add(some_ids(n, 2));
  }
  ColumnImportance a = with_mtp.importance(), b = tied.importance();
  EXPECT_EQ(a.inputs.at("model.layers.2.eh_proj.weight").size(), 96u);
  EXPECT_TRUE(a.inputs.contains("model.layers.2.mlp.experts.0.gate_proj.weight"));
  EXPECT_TRUE(a.queries.contains("model.layers.2.self_attn.kv_b_proj.weight"));
  EXPECT_EQ(b.inputs.at("model.embed_tokens.weight").size(), 48u);
  EXPECT_EQ(b.inputs.size(), 1u + 2 * 7);
  EXPECT_TRUE(b.queries.empty());
}

}  // namespace
}  // namespace wels
