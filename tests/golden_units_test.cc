// golden/units and golden/quant on every device: the router's choices and weights, and the product
// in FP8.
#include "backend/registry.h"
#include "tests/golden.h"

namespace wels {
namespace {

std::vector<std::string> devices() {
  std::vector<std::string> out = test_devices();
  out.push_back("ref:double");
  return out;
}

TEST(GoldenUnits, RouterChoosesTheExpertsAndWeightsOfEveryCase) {
  SKIP_WITHOUT_GOLDEN();
  nlohmann::json cases = read_json(golden_folder() + "/units/router.json")["cases"];
  ASSERT_FALSE(cases.empty());
  for (const std::string& device : devices()) {
    auto dev = make_device(device);
    for (const auto& c : cases) {
      SCOPED_TRACE(device + ", " + c["name"].get<std::string>());
      const auto& config = c["config"];
      RouteParams p;
      p.experts = config["n_routed_experts"];
      p.top_k = config["num_experts_per_tok"];
      p.groups = config["n_group"];
      p.top_groups = config["topk_group"];
      p.sigmoid = config["scoring_func"] == "sigmoid";
      p.group_top2 = config["topk_method"] == "noaux_tc";
      p.normalize = config["norm_topk_prob"];
      p.scale = p.normalize && !p.sigmoid ? 1.0 : config["routed_scaling_factor"].get<double>();
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

TEST(GoldenUnits, Fp8ProductOfQuantisedActivationsAndStoredWeights) {
  SKIP_WITHOUT_GOLDEN();
  SafetensorsReader file(golden_folder() + "/quant/fp8_blocks.safetensors");
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
