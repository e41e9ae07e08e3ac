// golden/train: losses, the gradient of every parameter, three AdamW steps with the selection
// bias's updates.
#include "backend/registry.h"
#include "model/checkpoint.h"
#include "tests/golden.h"
#include "train/trainer.h"

namespace wels {
namespace {

class GoldenTrain : public testing::TestWithParam<std::string> {
 protected:
  void load(const std::string& name) {
    folder_ = golden_folder() + "/train/" + name;
    exact_ = GetParam() == "ref:double";
    dev_ = make_device(GetParam());
    model_ = load_model(folder_, exact_ ? WeightStorage::kF64 : WeightStorage::kF32);
    model_->make_gradients();
    case_ = read_json(folder_ + "/case.json");
    config_.dtype = exact_ ? DType::kF64 : DType::kF32;
    config_.balance_alpha = 0;
  }

  // Sequences as segments of one micro-batch: position i predicts token i + 1, if the mask says so.
  static MicroBatch micro_batch(const nlohmann::json& tokens,
                                const nlohmann::json& mask = nullptr) {
    MicroBatch mb;
    for (size_t b = 0; b < tokens.size(); ++b) {
      auto ids = tokens[b].get<std::vector<int32_t>>();
      mb.batch.append(ids);
      for (size_t i = 0; i < ids.size(); ++i) {
        bool counts = i + 1 < ids.size() && (mask.is_null() || mask[b][i + 1].get<int>() != 0);
        mb.targets.push_back(counts ? ids[i + 1] : -1);
      }
    }
    return mb;
  }

  // Each parameter's gradient against the file: to the rounding of the stored float32 in double,
  // the case's bound in float32.
  void compare_gradients(const std::string& file, bool all = true) {
    SafetensorsReader expected(folder_ + "/" + file);
    size_t compared = 0;
    visit_weights(model_->config(), model_->weights(), [&](Weight& w, const WeightSpec& s) {
      if (!w.trainable()) return;
      for (size_t e = 0; e < w.grad.size(); ++e) {
        std::string name = s.name;
        if (size_t at = name.find("{}"); at != std::string::npos)
          name.replace(at, 2, std::to_string(e));
        const TensorEntry* entry = expected.find(name);
        std::vector<double> got = values(w.grad[e]);
        if (!entry) {
          EXPECT_EQ(l2_norm(got), 0) << name << " has a gradient, but none is expected in " << file;
          continue;
        }
        ++compared;
        std::vector<double> want = values(*entry);
        double largest = 0;
        for (double x : want) largest = std::max(largest, std::fabs(x));
        if (exact_) {
          std::vector<double> gap(want.size());
          for (size_t i = 0; i < gap.size(); ++i) gap[i] = got[i] - want[i];
          EXPECT_LE(l2_norm(gap), 2e-7 * l2_norm(want) + 1e-30) << name << " in " << file;
        } else {
          EXPECT_LE(max_difference(got, want), 1e-3 * largest + 1e-7) << name << " in " << file;
        }
      }
    });
    EXPECT_GT(compared, 0u);
    if (all) {
      EXPECT_EQ(compared, expected.tensors().size());
    }
  }

  double bound() const { return exact_ ? 1e-9 : 1e-5; }

  std::string folder_;
  std::unique_ptr<Device> dev_;
  std::unique_ptr<Model> model_;
  TrainerConfig config_;
  nlohmann::json case_;
  bool exact_ = false;
};

TEST_P(GoldenTrain, MaskedCrossEntropyGivesLossLogProbabilitiesAndGradients) {
  SKIP_WITHOUT_GOLDEN();
  for (const std::string& name : golden_cases("train")) {
    if (!std::filesystem::exists(golden_folder() + "/train/" + name + "/grad.safetensors"))
      continue;
    SCOPED_TRACE(name);
    load(name);
    nlohmann::json data = read_json(folder_ + "/batch.json");
    std::vector<MicroBatch> batch{micro_batch(data["tokens"], data["loss_mask"])};
    Trainer trainer(*dev_, *model_, config_);
    StepStats stats = trainer.gradients(batch, pretrain_objective(batch, 0, 0));
    EXPECT_NEAR(stats.loss[0], case_["loss"].get<double>(), bound());
    EXPECT_NEAR(stats.gradient_norm, case_["grad_norm"].get<double>(), exact_ ? 1e-6 : 1e-3);
    compare_gradients("grad.safetensors");
    MicroBatch all = micro_batch(data["tokens"]);
    std::vector<double> logp = trainer.log_probabilities(all), kept;
    for (size_t i = 0; i < logp.size(); ++i) {
      if (all.targets[i] >= 0) kept.push_back(logp[i]);
    }
    SafetensorsReader expected(folder_ + "/logprobs.safetensors");
    EXPECT_LE(max_difference(kept, values(*expected.find("logprobs"))), exact_ ? 1e-6 : 1e-3);
  }
}

TEST_P(GoldenTrain, EveryLossOfV3GivesItsGradients) {
  SKIP_WITHOUT_GOLDEN();
  struct Arm {
    const char* file;
    int mtp;
    double alpha, ce;
  };
  for (Arm arm : {Arm{"grad_ce.safetensors", 0, 0, 1}, Arm{"grad_ce_mtp.safetensors", 1, 0, 1},
                  Arm{"grad_ce_balance.safetensors", 0, 1e-4, 1},
                  Arm{"grad_balance_only.safetensors", 0, 1, 0}}) {
    SCOPED_TRACE(arm.file);
    load("v3");
    config_.balance_alpha = arm.alpha;
    nlohmann::json expected = read_json(folder_ + "/expected.json")["batch0"];
    std::vector<MicroBatch> batch{micro_batch(read_json(folder_ + "/batch.json")["tokens"][0])};
    Objective base = pretrain_objective(batch, 1, 0.3);
    Objective objective;  // no known_dlogp: the way of objectives that need the values first
    objective.loss = [&](const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                         std::span<const double> logp, std::span<double> dlogp) {
      double loss = base.loss(mb, depth, rows, logp, dlogp);
      double factor = depth == 0 ? arm.ce : static_cast<double>(arm.mtp);
      for (double& d : dlogp) d *= factor;
      return factor * loss;
    };
    Trainer trainer(*dev_, *model_, config_);
    StepStats stats = trainer.gradients(batch, objective);
    if (arm.ce == 1) {
      EXPECT_NEAR(stats.loss[0], expected["ce_loss"].get<double>(), bound());
    }
    if (arm.mtp == 1) {
      EXPECT_NEAR(stats.loss[1] / 0.3, expected["mtp_loss"].get<double>(), 3 * bound());
    }
    if (arm.alpha == 1e-4) {
      EXPECT_NEAR(stats.balance_loss, expected["balance_loss"].get<double>(), 1e-8);
    }
    compare_gradients(arm.file);
  }
}

TEST_P(GoldenTrain, ThreeAdamWStepsMoveParametersAndSelectionBiasesAsExpected) {
  SKIP_WITHOUT_GOLDEN();
  load("v3");
  nlohmann::json tokens = read_json(folder_ + "/batch.json")["tokens"];
  nlohmann::json steps = read_json(folder_ + "/expected.json")["steps"];
  Trainer trainer(*dev_, *model_, config_);
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE("step " + std::to_string(i + 1));
    std::vector<MicroBatch> batch{micro_batch(tokens[i])};
    StepStats stats = trainer.step(batch, pretrain_objective(batch, 1, 0.3), 1e-3);
    EXPECT_NEAR(stats.loss[0], steps[i]["ce_loss"].get<double>(), i == 0 ? bound() : 2e-5);
    EXPECT_NEAR(stats.gradient_norm, steps[i]["grad_norm_before_clipping"].get<double>(), 2e-3);
    for (const StepStats::LayerLoad& l : stats.load) {
      std::string gate = "model.layers." + std::to_string(l.layer) + ".mlp.gate";
      EXPECT_EQ(l.load, steps[i]["loads"][gate]["load"].get<std::vector<int64_t>>()) << gate;
      const Weight& bias = l.layer < model_->config().num_hidden_layers
                               ? model_->weights().blocks[static_cast<size_t>(l.layer)].experts.bias
                               : model_->weights().mtp[0].block.experts.bias;
      EXPECT_LE(
          max_difference(
              values(bias.value[0]),
              steps[i]["bias_after"][gate + ".e_score_correction_bias"].get<std::vector<double>>()),
          1e-7);
    }
    std::string file = folder_ + "/params_after_step" + std::to_string(i + 1) + ".safetensors";
    if (!std::filesystem::exists(file)) continue;
    SafetensorsReader expected(file);
    int64_t beyond = 0, total = 0;
    visit_weights(model_->config(), model_->weights(), [&](Weight& w, const WeightSpec& s) {
      for (size_t e = 0; e < w.value.size(); ++e) {
        std::string name = s.name;
        if (size_t at = name.find("{}"); at != std::string::npos)
          name.replace(at, 2, std::to_string(e));
        std::vector<double> got = values(w.value[e]), want = values(*expected.find(name));
        for (size_t j = 0; j < got.size(); ++j) {
          ASSERT_NEAR(got[j], want[j], 1e-2) << name;
          beyond += std::fabs(got[j] - want[j]) > 1e-5;
          ++total;
        }
      }
    });
    EXPECT_LE(static_cast<double>(beyond), 1e-3 * static_cast<double>(total));
  }
}

std::vector<std::string> devices() {
  std::vector<std::string> out = test_devices();
  out.push_back("ref:double");
  return out;
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Golden, GoldenTrain, testing::ValuesIn(devices()), test_name);

}  // namespace
}  // namespace wels
