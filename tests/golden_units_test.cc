// golden/units and golden/quant on every device: the router's choices and weights, the rotary
// tables and the rotation by them, and the product in FP8.
#include "backend/registry.h"
#include "base/rng.h"
#include "formats/hf_config.h"
#include "model/model.h"
#include "model/rope_table.h"
#include "tests/golden.h"

namespace wels {
namespace {

std::vector<std::string> devices() {
  std::vector<std::string> out = test_devices();
  out.push_back("ref:double");
  return out;
}

// The cases of units/*.json with this field; each file's name goes before its cases' names.
std::vector<nlohmann::json> unit_cases(const std::string& field) {
  std::vector<nlohmann::json> out;
  for (const std::string& file : golden_json_files("units")) {
    const nlohmann::json all = read_json(file);
    for (nlohmann::json c : all.value("cases", nlohmann::json::array())) {
      if (!c.contains(field)) continue;
      c["name"] = file + ", " + c["name"].get<std::string>();
      out.push_back(std::move(c));
    }
  }
  return out;
}

TEST(GoldenUnits, EveryFileHasItsTest) {
  std::vector<std::string> files = golden_json_files("units");
  SKIP_WITHOUT_CASES(files, "units/*.json");
  for (const std::string& file : files) {
    nlohmann::json cases = read_json(file)["cases"];
    EXPECT_FALSE(cases.empty()) << file;
    for (const nlohmann::json& c : cases)
      EXPECT_TRUE(c.contains("topk_idx") || c.contains("inv_freq"))
          << file << ": neither routing nor rotation, no test reads it: " << c["name"];
  }
}

// The fields that routing reads, as parse_hf_config reads them.
ModelConfig router_config(const nlohmann::json& c) {
  std::string method = c["topk_method"];
  ModelConfig out;
  out.n_routed_experts = c["n_routed_experts"];
  out.num_experts_per_tok = c["num_experts_per_tok"];
  out.n_group = c["n_group"];
  out.topk_group = c["topk_group"];
  out.scoring_func = c["scoring_func"] == "sigmoid" ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax;
  out.topk_method = method == "noaux_tc"               ? TopkMethod::kNoauxTc
                    : method == "group_limited_greedy" ? TopkMethod::kGroupLimitedGreedy
                                                       : TopkMethod::kGreedy;
  out.norm_topk_prob = c["norm_topk_prob"];
  out.routed_scaling_factor = c["routed_scaling_factor"];
  return out;
}

// V2 and V3 in what they do with the chosen scores: a single one is normalised too.
TEST(GoldenUnits, SoftmaxRoutersNormaliseOrScaleSigmoidRoutersDoBoth) {
  for (int64_t chosen : {1, 4}) {
    for (bool sigmoid : {false, true}) {
      for (bool norm : {false, true}) {
        ModelConfig c;
        c.num_experts_per_tok = chosen;
        c.scoring_func = sigmoid ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax;
        c.norm_topk_prob = norm;
        c.routed_scaling_factor = 3;
        RouteParams p = route_params(c);
        EXPECT_EQ(p.normalize, norm);
        EXPECT_EQ(p.scale, norm && !sigmoid ? 1 : 3);
      }
    }
  }
}

TEST(GoldenUnits, RouterChoosesTheExpertsAndWeightsOfEveryCase) {
  std::vector<nlohmann::json> cases = unit_cases("topk_idx");
  SKIP_WITHOUT_CASES(cases, "units/*.json with \"topk_idx\"");
  for (const std::string& device : devices()) {
    auto dev = make_device(device);
    for (const auto& c : cases) {
      SCOPED_TRACE(device + ", " + c["name"].get<std::string>());
      const auto& config = c["config"];
      RouteParams p = route_params(router_config(config));
      bool f64 = device == "ref:double";
      DType stat = f64 ? DType::kF64 : DType::kF32;

      auto n = static_cast<int64_t>(c["logits"].size());
      std::vector<double> logits;
      for (const auto& row : c["logits"]) {
        for (double x : row) logits.push_back(x);
      }
      std::vector<float> logits32(logits.begin(), logits.end()), bias32;
      std::vector<double> bias, weight(static_cast<size_t>(n * p.top_k));
      if (!c["bias"].is_null()) bias = c["bias"].get<std::vector<double>>();
      bias32.assign(bias.begin(), bias.end());
      std::vector<int32_t> expert(weight.size()), load(static_cast<size_t>(p.experts));
      std::vector<float> weight32(weight.size());
      Tensor b;
      if (!bias.empty())
        b = Tensor(f64 ? static_cast<void*>(bias.data()) : bias32.data(), stat, 1, p.experts);
      Tensor w(f64 ? static_cast<void*>(weight.data()) : weight32.data(), stat, n, p.top_k);
      dev->route(
          Tensor(f64 ? static_cast<void*>(logits.data()) : logits32.data(), stat, n, p.experts), b,
          Tensor(), p, Tensor(expert.data(), DType::kI32, n, p.top_k), w,
          Tensor(load.data(), DType::kI32, 1, p.experts));
      std::vector<double> got = values(w);

      std::vector<int32_t> want_load(load.size());
      for (size_t t = 0; t < static_cast<size_t>(n); ++t) {
        auto want = c["topk_idx"][t].get<std::vector<int32_t>>();
        auto want_weight = c["topk_weight"][t].get<std::vector<double>>();
        for (int32_t e : want) ++want_load[static_cast<size_t>(e)];
        auto begin = expert.begin() + static_cast<long>(t) * p.top_k, end = begin + p.top_k;
        for (size_t j = 0; j < want.size(); ++j) {
          auto at = std::find(begin, end, want[j]);
          ASSERT_NE(at, end) << "token " << t << " lacks expert " << want[j];
          EXPECT_NEAR(got[static_cast<size_t>(at - expert.begin())], want_weight[j],
                      1e-5 * want_weight[j] + 1e-30)
              << "token " << t;
        }
      }
      EXPECT_EQ(load, want_load);
    }
  }
}

// A model with the case's rotation, as its config.json would have it.
ModelConfig rope_config(const nlohmann::json& c) {
  int64_t rotated = c["rotary_dim"], width = c["query_head_dim"];
  const nlohmann::json& scaling = c["rope_scaling"];
  bool mla = width != rotated;
  nlohmann::json j = {{"architectures", {mla ? "DeepseekV3ForCausalLM" : "LlamaForCausalLM"}},
                      {"model_type", mla ? "deepseek_v3" : "llama"},
                      {"vocab_size", 64},
                      {"hidden_size", 64},
                      {"num_hidden_layers", 1},
                      {"intermediate_size", 64},
                      {"num_attention_heads", 1},
                      {"num_key_value_heads", 1},
                      {"max_position_embeddings", 1 << 20},
                      {"rope_theta", c["rope_theta"]}};
  if (!scaling.is_null()) j["rope_scaling"] = scaling;
  if (mla) {
    j.update({{"kv_lora_rank", 16},
              {"qk_rope_head_dim", rotated},
              {"qk_nope_head_dim", width - rotated},
              {"v_head_dim", 16}});
  } else {
    j["head_dim"] = rotated;
  }
  return parse_hf_config(j.dump(), c["name"]);
}

TEST(GoldenUnits, RotaryTablesAndSoftmaxScaleOfEveryCase) {
  std::vector<nlohmann::json> cases = unit_cases("inv_freq");
  SKIP_WITHOUT_CASES(cases, "units/*.json with \"inv_freq\"");
  for (const nlohmann::json& c : cases) {
    SCOPED_TRACE(c["name"].get<std::string>());
    ModelConfig cfg = rope_config(c);
    std::vector<double> want = c["inv_freq"],
                        got = rope_inverse_frequencies(cfg.rope, c["rotary_dim"]);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12 * want[i]) << i;
    EXPECT_NEAR(rope_magnitude(cfg.rope, cfg.is_mla()), c["cos_sin_multiplier"].get<double>(),
                1e-12);
    EXPECT_NEAR(softmax_scale(cfg), c["softmax_scale"].get<double>(), 1e-12);
    auto positions = c["positions"].get<std::vector<int64_t>>();
    for (DType dtype : {DType::kF64, DType::kF32}) {
      RopeTable table(cfg, dtype);
      table.reserve(1 + *std::max_element(positions.begin(), positions.end()));
      for (size_t p = 0; p < positions.size(); ++p) {
        double bound = dtype == DType::kF32 ? 1e-6 : 1e-9;
        EXPECT_LE(max_difference(values(table.cos().row_range(positions[p], 1)), c["cos"][p]),
                  bound)
            << positions[p];
        EXPECT_LE(max_difference(values(table.sin().row_range(positions[p], 1)), c["sin"][p]),
                  bound)
            << positions[p];
      }
    }
  }
}

// The rows of x turned by the case's cosines and sines. Neighbouring columns (DeepSeek) or the two
// halves (Qwen2, Llama) are a pair's two coordinates; the first `still` columns of a head stay.
std::vector<double> rotated(std::vector<double> x, const nlohmann::json& c, size_t heads,
                            size_t still, bool interleaved) {
  auto cos = c["cos"].get<std::vector<std::vector<double>>>(),
       sin = c["sin"].get<std::vector<std::vector<double>>>();
  size_t half = cos[0].size(), width = still + 2 * half;
  for (size_t at = 0; at < x.size(); at += width) {
    size_t r = at / (heads * width);
    for (size_t i = 0; i < half; ++i) {
      double& a = x[at + still + (interleaved ? 2 * i : i)];
      double& b = x[at + still + (interleaved ? 2 * i + 1 : i + half)];
      double turned = a * cos[r][i] - b * sin[r][i];
      b = a * sin[r][i] + b * cos[r][i];
      a = turned;
    }
  }
  return x;
}

TEST(GoldenUnits, EveryDeviceRotatesByTheCasesAnglesInBothLayouts) {
  std::vector<nlohmann::json> cases = unit_cases("inv_freq");
  SKIP_WITHOUT_CASES(cases, "units/*.json with \"inv_freq\"");
  constexpr int kHeads = 2, kStill = 6;  // heads; columns before the rotated ones
  for (const std::string& device : devices()) {
    auto dev = make_device(device);
    bool f64 = device == "ref:double";
    for (const nlohmann::json& c : cases) {
      auto positions = c["positions"].get<std::vector<int32_t>>();
      auto n = static_cast<int64_t>(positions.size());
      int half = static_cast<int>(c["inv_freq"].size()), width = kStill + 2 * half;
      RopeTable table(rope_config(c), f64 ? DType::kF64 : DType::kF32);
      table.reserve(1 + *std::max_element(positions.begin(), positions.end()));
      Rng rng(7);
      std::vector<float> x32(static_cast<size_t>(n * kHeads * width)), y32(x32.size());
      for (float& x : x32) x = static_cast<float>(rng.normal());
      std::vector<double> x64(x32.begin(), x32.end()), y64(x64.size());
      for (bool interleaved : {true, false}) {
        SCOPED_TRACE(device + ", " + c["name"].get<std::string>() +
                     (interleaved ? ", neighbours" : ", halves"));
        DType t = f64 ? DType::kF64 : DType::kF32;
        Tensor x(f64 ? static_cast<void*>(x64.data()) : x32.data(), t, n, kHeads * width),
            y(f64 ? static_cast<void*>(y64.data()) : y32.data(), t, n, kHeads * width);
        dev->rope(
            x, Tensor(positions.data(), DType::kI32, 1, n), table.cos(), table.sin(),
            {.heads = kHeads, .head_dim = width, .rotated = 2 * half, .interleaved = interleaved},
            y);
        EXPECT_LE(max_difference(values(y), rotated(x64, c, kHeads, kStill, interleaved)),
                  f64 ? 1e-8 : 1e-5);
      }
    }
  }
}

TEST(GoldenUnits, Fp8ProductOfQuantisedActivationsAndStoredWeights) {
  std::string path = golden_folder() + "/quant/fp8_blocks.safetensors";
  if (!std::filesystem::exists(path))
    GTEST_SKIP() << "no " << path << "; set WELS_GOLDEN to the reference data's folder";
  SafetensorsReader file(path);
  auto tensor = [&](const char* name) {
    const TensorEntry* e = file.find(name);
    CHECK(e != nullptr);
    return e->view();
  };
  Weight w;
  w.name = "gemm.weight";
  w.value = {tensor("gemm.weight")};
  w.scale = {tensor("gemm.weight_scale_inv")};
  w.rows = w.value[0].rows;
  w.cols = w.value[0].cols;
  Tensor x = tensor("activation.input");
  for (auto [name, fp8] :
       {std::pair{"gemm.output", true}, std::pair{"gemm.output_unquantised_activation", false}}) {
    std::vector<double> want = values(*file.find(name));
    double largest = 0;
    for (double v : want) largest = std::max(largest, std::fabs(v));
    for (const std::string& device : devices()) {
      SCOPED_TRACE(device + ", " + name);
      auto dev = make_device(device);
      std::vector<float> out(want.size());
      Tensor y(out.data(), DType::kF32, x.rows, w.rows);
      dev->matmul(x, w, nullptr, y, fp8);
      EXPECT_LE(max_difference(values(y), want), 1e-5 * largest);
    }
  }
}

}  // namespace
}  // namespace wels
