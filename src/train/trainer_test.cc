#include "train/trainer.h"

#include <gtest/gtest.h>

#include <csignal>

#include "backend/registry.h"
#include "base/signal.h"
#include "model/tiny_config_test.h"

namespace wels {
namespace {

constexpr int32_t kVocab = 8;

std::vector<MicroBatch> four_micro_batches() {
  std::vector<MicroBatch> out(4);
  for (int32_t i = 0; i < 4; ++i) {
    std::vector<int32_t> ids;
    for (int32_t k = 0; k < 6; ++k) ids.push_back((k * (i + 1) + 1) % kVocab);
    out[static_cast<size_t>(i)].batch.append(ids);
    for (int32_t id : ids) out[static_cast<size_t>(i)].targets.push_back((id + i) % kVocab);
  }
  return out;
}

struct Subject {
  Subject() { model.init(DType::kF32, 1, true); }
  std::unique_ptr<Device> dev = make_device("ref");
  Model model{tiny_moe_config(kVocab)};
  Trainer trainer{*dev, model, {.dtype = DType::kF32}};

  std::vector<double> values() {
    std::vector<double> out;
    visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec&) {
      for (const Tensor& t : w.value) {
        std::vector<double> v = to_host(*dev, t);
        out.insert(out.end(), v.begin(), v.end());
      }
    });
    return out;
  }
};

// A stop signal comes while the second of the micro-batches is computed.
Objective with_signal(const std::vector<MicroBatch>& batch, int& passes) {
  Objective o = pretrain_objective(batch, 0, 0);
  o.loss = [inner = o.loss, &passes](auto&&... of) {
    if (++passes == 2) std::raise(SIGTERM);
    return inner(of...);
  };
  return o;
}

TEST(Trainer, AStepIsGivenUpAtTheNextMicroBatchAfterASignalAndLeavesNothing) {
  std::vector<MicroBatch> batch = four_micro_batches();
  Objective objective = pretrain_objective(batch, 0, 0);
  Subject a, b;
  std::vector<double> before = a.values();
  int passes = 0;
  {
    StopSignal stop;
    EXPECT_THROW(a.trainer.step(batch, with_signal(batch, passes), 1e-2), Interrupted);
  }
  EXPECT_EQ(passes, 2);
  EXPECT_EQ(a.trainer.optimizer().steps(), 0);
  EXPECT_EQ(a.values(), before);
  double norm = a.trainer.step(batch, objective, 1e-2).gradient_norm;
  EXPECT_EQ(norm, b.trainer.step(batch, objective, 1e-2).gradient_norm);
  EXPECT_NE(a.values(), before);
  EXPECT_EQ(a.values(), b.values());
}

TEST(Trainer, AStepToItsEndWaitsForNoSignal) {
  std::vector<MicroBatch> batch = four_micro_batches();
  Subject a, b;
  int passes = 0;
  StopSignal stop;
  a.trainer.step(batch, with_signal(batch, passes), 1e-2, true);
  EXPECT_TRUE(stop.requested());
  EXPECT_EQ(passes, 4);
  b.trainer.step(batch, pretrain_objective(batch, 0, 0), 1e-2, true);
  EXPECT_EQ(a.values(), b.values());
}

}  // namespace
}  // namespace wels
