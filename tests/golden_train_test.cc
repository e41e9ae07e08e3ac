// golden/train: losses, the gradient of every parameter, AdamW steps with the selection bias's
// updates. Which of them a case has is seen from its files; what it was computed with (α, λ,
// AdamW's settings) and how near a device must come, from its case.json and expected.json.
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
    config_ = {};
    config_.dtype = exact_ ? DType::kF64 : DType::kF32;
    config_.balance_alpha = 0;
    const nlohmann::json said = case_.value("tolerance", nlohmann::json::object());
    const nlohmann::json loss = said.value("loss", nlohmann::json()),
                         gradients = said.value("gradients", nlohmann::json());
    bound_ = exact_ ? 1e-9 : number_after(loss, "float32: ", 1e-5);
    relative_ = number_after(gradients, "<= ", 1e-3);
    absolute_ = gradients.is_number() ? 0 : number_after(gradients, "+ ", 1e-7);
  }

  // The settings of the case's optimiser steps.
  void read_optimizer() {
    nlohmann::json said = case_.value("definitions", nlohmann::json::object());
    auto text = said.value("optimiser steps", std::string());
    OptimizerConfig& o = config_.optimizer;
    rate_ = number_after(text, "lr ", 1e-3);
    o.beta1 = number_after(text, "betas ", o.beta1);
    if (size_t at = text.find("betas "); at != std::string::npos)
      o.beta2 = number_after(text.substr(at), "/", o.beta2);
    o.eps = number_after(text, "eps ", o.eps);
    o.weight_decay = number_after(text, "weight decay ", o.weight_decay);
    o.clip = number_after(text, "coefficient = ", o.clip);
    config_.bias_update =
        number_after(said.value("bias update", std::string()), "bias_e += ", config_.bias_update);
  }

  int mtp_modules() const { return static_cast<int>(model_->config().num_nextn_predict_layers); }

  // λ of the MTP loss, from a total that has it.
  static double lambda(const nlohmann::json& losses, const char* total) {
    if (!losses.contains("mtp_loss") || !losses.contains(total)) return 0.3;
    return (losses[total].get<double>() - losses["ce_loss"].get<double>()) /
           losses["mtp_loss"].get<double>();
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
          // 1e-13: of gradients that cancel to nothing, what double rounds to instead.
          EXPECT_LE(l2_norm(gap), 2e-7 * l2_norm(want) + 1e-13) << name << " in " << file;
        } else {
          EXPECT_LE(max_difference(got, want), relative_ * largest + absolute_)
              << name << " in " << file;
        }
      }
    });
    EXPECT_GT(compared, 0u);
    if (all) {
      EXPECT_EQ(compared, expected.tensors().size());
    }
  }

  // The case's optimiser steps, a batch each.
  void take_steps(const nlohmann::json& steps) {
    nlohmann::json tokens = read_json(folder_ + "/batch.json")["tokens"];
    Trainer trainer(*dev_, *model_, config_);
    for (size_t i = 0; i < steps.size(); ++i) {
      SCOPED_TRACE("step " + std::to_string(i + 1));
      std::vector<MicroBatch> batch{micro_batch(tokens[i])};
      Objective objective = pretrain_objective(batch, mtp_modules(), lambda(steps[i], "total"));
      StepStats stats = trainer.step(batch, objective, rate_);
      // Later steps: a rounding error that changes the sign of a tiny gradient moves by the rate.
      EXPECT_NEAR(stats.loss[0], steps[i]["ce_loss"].get<double>(),
                  i == 0 ? bound_ : std::max(2 * bound_, 2e-5));
      double norm = steps[i]["grad_norm_before_clipping"];
      EXPECT_NEAR(stats.gradient_norm, norm, 2e-4 * norm);
      for (const StepStats::LayerLoad& l : stats.load) compare_load(l, steps[i]);
      std::string file = folder_ + "/params_after_step" + std::to_string(i + 1) + ".safetensors";
      if (std::filesystem::exists(file)) compare_parameters(file);
    }
  }

  void compare_load(const StepStats::LayerLoad& l, const nlohmann::json& step) {
    std::string gate = "model.layers." + std::to_string(l.layer) + ".mlp.gate",
                name = gate + ".e_score_correction_bias";
    ASSERT_TRUE(step["loads"].contains(gate)) << gate;
    EXPECT_EQ(l.load, step["loads"][gate]["load"].get<std::vector<int64_t>>()) << gate;
    int64_t main = model_->config().num_hidden_layers;
    const ModelWeights& w = model_->weights();
    const BlockWeights& block = l.layer < main ? w.blocks[static_cast<size_t>(l.layer)]
                                               : w.mtp[static_cast<size_t>(l.layer - main)].block;
    const Weight& bias = block.experts.bias;
    if (bias.value.empty()) return;
    std::vector<double> got = values(bias.value[0]), want = step["bias_after"][name];
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i)  // biases are f32
      EXPECT_NEAR(got[i], want[i], 1e-7 * std::max(1.0, std::fabs(want[i]))) << name << " " << i;
  }

  // Adam makes steps of the rate's size from gradients that are hardly more than rounding: a few
  // elements may differ by more.
  void compare_parameters(const std::string& file) {
    const nlohmann::json all_said = case_.value("tolerance", nlohmann::json::object()),
                         said = all_said.value("params_after_step", nlohmann::json());
    double share = 1 - number_after(said, "require ", 99.9) / 100,
           near = number_after(said, "elements within ", 1e-5),
           all = number_after(said, "all within ", 1e-2);
    SafetensorsReader expected(file);
    int64_t beyond = 0, total = 0;
    visit_weights(model_->config(), model_->weights(), [&](Weight& w, const WeightSpec& s) {
      for (size_t e = 0; e < w.value.size(); ++e) {
        std::string name = s.name;
        if (size_t at = name.find("{}"); at != std::string::npos)
          name.replace(at, 2, std::to_string(e));
        const TensorEntry* entry = expected.find(name);
        ASSERT_NE(entry, nullptr) << name << " in " << file;
        std::vector<double> got = values(w.value[e]), want = values(*entry);
        for (size_t j = 0; j < got.size(); ++j) {
          ASSERT_NEAR(got[j], want[j], all) << name;
          beyond += std::fabs(got[j] - want[j]) > near;
          ++total;
        }
      }
    });
    EXPECT_LE(static_cast<double>(beyond), share * static_cast<double>(total));
  }

  std::string folder_;
  double bound_ = 0, relative_ = 0, absolute_ = 0;  // of losses; of gradients
  double rate_ = 0;
  std::unique_ptr<Device> dev_;
  std::unique_ptr<Model> model_;
  TrainerConfig config_;
  nlohmann::json case_;
  bool exact_ = false;
};

TEST_P(GoldenTrain, MaskedCrossEntropyGivesLossLogProbabilitiesAndGradients) {
  std::vector<std::string> cases = golden_cases("train", "grad.safetensors");
  SKIP_WITHOUT_CASES(cases, "train/*/grad.safetensors");
  for (const std::string& name : cases) {
    SCOPED_TRACE(name);
    load(name);
    nlohmann::json data = read_json(folder_ + "/batch.json");
    std::vector<MicroBatch> batch{micro_batch(data["tokens"], data["loss_mask"])};
    Trainer trainer(*dev_, *model_, config_);
    StepStats stats = trainer.gradients(batch, pretrain_objective(batch, 0, 0));
    EXPECT_NEAR(stats.loss[0], case_["loss"].get<double>(), bound_);
    double norm = case_["grad_norm"];
    EXPECT_NEAR(stats.gradient_norm, norm, (exact_ ? 1e-7 : 1e-4) * norm);
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

// Cross-entropy alone, with MTP, with the balance loss, and the balance loss alone: a file each.
TEST_P(GoldenTrain, EveryLossOfAModelWithExpertsGivesItsGradients) {
  std::vector<std::string> cases = golden_cases("train", "expected.json");
  SKIP_WITHOUT_CASES(cases, "train/*/expected.json");
  struct Arm {
    const char* file;
    bool ce, mtp, balance;
  };
  for (const std::string& name : cases) {
    for (Arm arm : {Arm{"grad_ce.safetensors", true, false, false},
                    Arm{"grad_ce_mtp.safetensors", true, true, false},
                    Arm{"grad_ce_balance.safetensors", true, false, true},
                    Arm{"grad_balance_only.safetensors", false, false, true}}) {
      if (!std::filesystem::exists(golden_folder() + "/train/" + name + "/" + arm.file)) continue;
      SCOPED_TRACE(name + " " + arm.file);
      load(name);
      nlohmann::json expected = read_json(folder_ + "/expected.json")["batch0"];
      double fraction_sum = 0;  // Σ f·P over the layers: the balance loss for α = 1
      for (double x : expected.value("balance_sum_fP_per_layer", std::vector<double>()))
        fraction_sum += x;
      if (arm.balance && arm.ce)
        config_.balance_alpha = expected["balance_loss"].get<double>() / fraction_sum;
      if (arm.balance && !arm.ce) config_.balance_alpha = 1;
      std::vector<MicroBatch> batch{micro_batch(read_json(folder_ + "/batch.json")["tokens"][0])};
      double mtp_lambda = lambda(expected, "total_ce_mtp");
      Objective base = pretrain_objective(batch, mtp_modules(), mtp_lambda);
      Objective objective;  // no known_dlogp: the way of objectives that need the values first
      objective.loss = [&](const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                           std::span<const double> logp, std::span<double> dlogp) {
        double loss = base.loss(mb, depth, rows, logp, dlogp);
        double factor = (depth == 0 ? arm.ce : arm.mtp) ? 1 : 0;
        for (double& d : dlogp) d *= factor;
        return factor * loss;
      };
      Trainer trainer(*dev_, *model_, config_);
      StepStats stats = trainer.gradients(batch, objective);
      if (arm.ce) {
        EXPECT_NEAR(stats.loss[0], expected["ce_loss"].get<double>(), bound_);
      }
      if (arm.mtp) {
        double mtp = 0;
        for (size_t k = 1; k < stats.loss.size(); ++k) mtp += stats.loss[k];
        EXPECT_NEAR(mtp / mtp_lambda, expected["mtp_loss"].get<double>(), 3 * bound_);
      }
      if (arm.balance) {
        double want = config_.balance_alpha * fraction_sum;
        EXPECT_NEAR(stats.balance_loss, want, (exact_ ? 1e-9 : 1e-5) * want);
      }
      compare_gradients(arm.file);
    }
  }
}

TEST_P(GoldenTrain, AdamWStepsMoveParametersAndSelectionBiasesAsExpected) {
  size_t cases = 0;
  for (const std::string& name : golden_cases("train", "expected.json")) {
    nlohmann::json steps =
        read_json(golden_folder() + "/train/" + name + "/expected.json")["steps"];
    if (steps.empty()) continue;
    ++cases;
    SCOPED_TRACE(name);
    load(name);
    read_optimizer();
    take_steps(steps);
  }
  if (cases == 0)
    GTEST_SKIP() << "no train/*/expected.json with \"steps\" in " << golden_folder()
                 << "; set WELS_GOLDEN to its folder";
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
